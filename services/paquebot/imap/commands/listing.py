"""LIST, LSUB and STATUS (RFC 3501 §6.3.8 to §6.3.10), with LIST-EXTENDED (RFC 5258), LIST-STATUS (RFC 5819),
CHILDREN (RFC 3348) and SPECIAL-USE (RFC 6154). One query answers a LIST, STATUS included."""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from paquebot.imap.commands.authenticated import DELIMITER, SPECIAL_USES, object_id
from paquebot.imap.commands.context import CommandContext
from paquebot.imap.reply import Reply, ok
from paquebot.imap.states import LoggedIn, condstore_enabled
from paquebot.mailstore import Mailbox
from paquebot.mailstore.errors import NotSelectable
from paquebot.runtime.shares.event_loop import in_slices
from paquebot.wire.imap import ListPatterns, ast, responses
from paquebot.wire.imap.ast import ListReturn, ListSelect, StatusItem
from paquebot.wire.imap.responses import StatusValue

_CRITERIA = (ListSelect.SUBSCRIBED, ListSelect.SPECIAL_USE)
_USE_NAMES = {use: name for name, use in SPECIAL_USES.items()}


@dataclass(frozen=True, slots=True)
class _Tree:
    """The names of an account's mailboxes."""

    mailboxes: Mapping[str, Mailbox]
    subscribed: frozenset[str]
    parents: frozenset[str]
    """Names with an existing inferior."""


async def _tree(context: CommandContext, account_id: int, *, subscriptions: bool) -> _Tree:
    mailboxes = {mailbox.name: mailbox for mailbox in await context.server.mailboxes.list_all(account_id)}
    subscribed = frozenset[str]()
    if subscriptions:
        subscribed = frozenset(await context.server.mailboxes.subscriptions(account_id))
    return _Tree(mailboxes, subscribed, _superiors(mailboxes))


def _superiors(names: Iterable[str]) -> frozenset[str]:
    return frozenset(superior for name in names for superior in _above(name))


def _above(name: str) -> Iterator[str]:
    """Every superior of a name, nearest first."""
    while (cut := name.rfind(DELIMITER)) > 0:
        name = name[:cut]
        yield name


async def list_mailboxes(context: CommandContext, state: LoggedIn, command: ast.List) -> Reply:
    """RFC 3501 §6.3.8, RFC 5258 §3"""
    if not command.extended and command.patterns == ("",):
        return ok("LIST completed", untagged=responses.list_line(("\\Noselect",), ""))
    subscriptions = ListSelect.SUBSCRIBED in command.select or ListReturn.SUBSCRIBED in command.returns
    tree = await _tree(context, state.account.account_id, subscriptions=subscriptions)
    selection = await _selection(tree, command)
    lines: list[bytes] = []
    async for name in in_slices(selection.listed):
        lines.append(_list_line(tree, name, selection))
        mailbox = tree.mailboxes.get(name)
        # RFC 5819 §2: no STATUS for a name that is listed only for its children.
        if command.return_status and mailbox is not None and mailbox.selectable and name in selection.chosen:
            values = _status_values(context, mailbox, command.return_status)
            lines.append(responses.status(name, values))
    return ok("LIST completed", untagged=b"".join(lines), state=_condstore(state, command.return_status))


@dataclass(frozen=True, slots=True)
class _Selection:
    """The names that the selection options of a LIST choose (RFC 5258 §3.1)."""

    criteria: tuple[str, ...]
    """The options that a name must match."""
    chosen: AbstractSet[str]
    """The names that match the options, before the patterns are applied."""
    above: AbstractSet[str]
    """With RECURSIVEMATCH, the superiors of the chosen names."""
    listed: Sequence[str]
    """The names of the answer, in its order."""


async def _selection(tree: _Tree, command: ast.List) -> _Selection:
    criteria = tuple(option.value.decode() for option in _CRITERIA if option in command.select)
    chosen = frozenset(_chosen(tree, command.select))
    if ListSelect.RECURSIVEMATCH not in command.select:
        return _Selection(criteria, chosen, frozenset(), await _matching(chosen, command.reference, command.patterns))
    above = _superiors(chosen)
    matching = await _matching(chosen | above, command.reference, command.patterns)
    # RFC 5258 §3.5: a name that is not chosen itself is listed for a child that the client would not see.
    unseen = _superiors(chosen.difference(matching))
    return _Selection(criteria, chosen, above, [name for name in matching if name in chosen or name in unseen])


def _chosen(tree: _Tree, options: frozenset[ListSelect]) -> Iterable[str]:
    names = tree.subscribed if ListSelect.SUBSCRIBED in options else tree.mailboxes.keys()
    if ListSelect.SPECIAL_USE not in options:
        return names
    return (name for name in names if name in tree.mailboxes and tree.mailboxes[name].special_use is not None)


async def _matching(names: Iterable[str], reference: str, patterns: Sequence[str]) -> list[str]:
    # Names are in NFC; some clients send names from a file system in NFD.
    wanted = ListPatterns(unicodedata.normalize("NFC", reference + pattern) for pattern in patterns)
    found = [name async for name in in_slices(names) if wanted.matches(name)]
    return sorted(found, key=lambda name: (name != "INBOX", name))


def _list_line(tree: _Tree, name: str, selection: _Selection) -> bytes:
    attributes = _attributes(tree, name, tree.mailboxes.get(name))
    if name in tree.subscribed:
        attributes.append("\\Subscribed")
    child_info = selection.criteria if name in selection.above else ()
    return responses.list_line(attributes, name, child_info=child_info)


def _attributes(tree: _Tree, name: str, mailbox: Mailbox | None) -> list[str]:
    attributes: list[str] = []
    if mailbox is None:
        attributes.append("\\NonExistent")  # RFC 5258 §3.4
    elif not mailbox.selectable:
        attributes.append("\\Noselect")
    attributes.append("\\HasChildren" if name in tree.parents else "\\HasNoChildren")
    if mailbox is not None and mailbox.special_use is not None:
        attributes.append(_USE_NAMES[mailbox.special_use])
    return attributes


async def lsub(context: CommandContext, state: LoggedIn, command: ast.Lsub) -> Reply:
    """RFC 3501 §6.3.9: subscribed names, and with "%" the superiors of those that the pattern does not match."""
    if not command.pattern:
        return ok("LSUB completed", untagged=responses.lsub_line(("\\Noselect",), ""))
    tree = await _tree(context, state.account.account_id, subscriptions=True)
    lines: list[bytes] = []
    names = tree.subscribed | _superiors(tree.subscribed)
    async for name in in_slices(await _matching(names, command.reference, (command.pattern,))):
        if name in tree.subscribed:
            mailbox = tree.mailboxes.get(name)
            selectable = mailbox is not None and mailbox.selectable
            lines.append(responses.lsub_line(() if selectable else ("\\Noselect",), name))
        elif command.pattern.endswith("%"):
            lines.append(responses.lsub_line(("\\Noselect",), name))
    return ok("LSUB completed", untagged=b"".join(lines))


async def status(context: CommandContext, state: LoggedIn, command: ast.Status) -> Reply:
    """RFC 3501 §6.3.10"""
    mailbox = await context.server.mailboxes.find(state.account.account_id, command.mailbox)
    if not mailbox.selectable:
        raise NotSelectable(command.mailbox)
    values = _status_values(context, mailbox, command.items)
    untagged = responses.status(command.mailbox, values)
    return ok("STATUS completed", untagged=untagged, state=_condstore(state, command.items))


def _status_values(
    context: CommandContext, mailbox: Mailbox, items: Iterable[StatusItem]
) -> dict[StatusItem, StatusValue]:
    values: dict[StatusItem, StatusValue] = {
        StatusItem.MESSAGES: mailbox.messages,
        StatusItem.RECENT: mailbox.recent,
        StatusItem.UIDNEXT: mailbox.uid_next,
        StatusItem.UIDVALIDITY: mailbox.uid_validity,
        StatusItem.UNSEEN: mailbox.unseen,
        StatusItem.DELETED: mailbox.deleted,
        StatusItem.SIZE: mailbox.total_size,
        StatusItem.HIGHESTMODSEQ: mailbox.highest_mod_seq,
        StatusItem.APPENDLIMIT: context.server.limits.append,
        StatusItem.MAILBOXID: object_id(mailbox.mailbox_id),
    }
    return {item: values[item] for item in items}


def _condstore(state: LoggedIn, items: Iterable[StatusItem]) -> LoggedIn:
    """Asking for HIGHESTMODSEQ enables CONDSTORE (RFC 7162 §3.1)."""
    return condstore_enabled(state) if StatusItem.HIGHESTMODSEQ in items else state
