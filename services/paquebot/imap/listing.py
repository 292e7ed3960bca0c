"""LIST, LSUB and STATUS (RFC 3501 §6.3.8 to §6.3.10), with LIST-EXTENDED (RFC 5258), LIST-STATUS (RFC 5819),
CHILDREN (RFC 3348) and SPECIAL-USE (RFC 6154). One query answers all of a LIST, its STATUS included."""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paquebot.imap.authenticated import DELIMITER, SPECIAL_USES, object_id
from paquebot.imap.reply import Reply, ok
from paquebot.imap.states import LoggedIn, condstore_enabled
from paquebot.mailstore.errors import NotSelectable
from paquebot.mailstore.types import Mailbox
from paquebot.runtime.fairness import in_slices
from paquebot.wire.imap import ListPatterns, ast, responses
from paquebot.wire.imap.ast import ListReturn, ListSelect, StatusItem
from paquebot.wire.imap.responses import StatusValue

if TYPE_CHECKING:
    from paquebot.imap.session import Session

_USE_NAMES = {use: name for name, use in SPECIAL_USES.items()}


@dataclass(frozen=True, slots=True)
class _Tree:
    """The account's names as LIST sees them."""

    mailboxes: Mapping[str, Mailbox]
    subscribed: frozenset[str]
    parents: frozenset[str]  # names with an existing inferior
    subscribed_below: frozenset[str]  # names with a subscribed inferior


async def _tree(session: "Session", account_id: int, *, subscriptions: bool) -> _Tree:
    mailstore = session.process.mailstore
    mailboxes = {mailbox.name: mailbox for mailbox in await mailstore.mailboxes(account_id)}
    subscribed = frozenset(await mailstore.subscriptions(account_id)) if subscriptions else frozenset[str]()
    return _Tree(mailboxes, subscribed, _superiors(mailboxes), _superiors(subscribed))


def _superiors(names: Iterable[str]) -> frozenset[str]:
    return frozenset(superior for name in names for superior in _above(name))


def _above(name: str) -> Iterator[str]:
    """Every superior of a name, nearest first."""
    while (cut := name.rfind(DELIMITER)) > 0:
        name = name[:cut]
        yield name


async def list_mailboxes(session: "Session", state: LoggedIn, command: ast.List) -> Reply:
    """RFC 3501 §6.3.8, RFC 5258 §3"""
    if not command.extended and command.patterns == ("",):
        return ok("LIST completed", untagged=responses.list_line(("\\Noselect",), ""))
    by_subscription = ListSelect.SUBSCRIBED in command.select
    tree = await _tree(
        session,
        state.account.account_id,
        subscriptions=by_subscription or ListReturn.SUBSCRIBED in command.returns,
    )
    lines: list[bytes] = []
    names = tree.mailboxes.keys() | tree.subscribed if by_subscription else tree.mailboxes.keys()
    if by_subscription and ListSelect.RECURSIVEMATCH in command.select:
        names |= tree.subscribed_below
    async for name in in_slices(await _matching(names, command.reference, command.patterns)):
        line = _list_line(tree, name, command)
        if line is None:
            continue
        lines.append(line)
        mailbox = tree.mailboxes.get(name)
        if command.return_status and mailbox is not None and mailbox.selectable:
            values = _status_values(session, mailbox, command.return_status)
            lines.append(responses.status(name, values))  # RFC 5819 §2
    return ok("LIST completed", untagged=b"".join(lines), state=_condstore(state, command.return_status))


async def _matching(names: Iterable[str], reference: str, patterns: Sequence[str]) -> list[str]:
    # Names are in NFC; some clients send what a file system gave them.
    wanted = ListPatterns(unicodedata.normalize("NFC", reference + pattern) for pattern in patterns)
    found = [name async for name in in_slices(names) if wanted.matches(name)]
    return sorted(found, key=lambda name: (name != "INBOX", name))


def _list_line(tree: _Tree, name: str, command: ast.List) -> bytes | None:
    """The answer for a name, or None when the selection options leave it out (RFC 5258 §3.1)."""
    mailbox = tree.mailboxes.get(name)
    if ListSelect.SPECIAL_USE in command.select and (mailbox is None or mailbox.special_use is None):
        return None
    child_info: tuple[str, ...] = ()
    if ListSelect.SUBSCRIBED in command.select:
        recursive = ListSelect.RECURSIVEMATCH in command.select and name in tree.subscribed_below
        if name not in tree.subscribed and not recursive:
            return None
        child_info = ("SUBSCRIBED",) if recursive else ()
    attributes = _attributes(tree, name, mailbox)
    if name in tree.subscribed:
        attributes.append("\\Subscribed")
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


async def lsub(session: "Session", state: LoggedIn, command: ast.Lsub) -> Reply:
    """RFC 3501 §6.3.9: subscribed names, and with "%" the superiors of those it does not reach."""
    if not command.pattern:
        return ok("LSUB completed", untagged=responses.lsub_line(("\\Noselect",), ""))
    tree = await _tree(session, state.account.account_id, subscriptions=True)
    lines: list[bytes] = []
    names = tree.subscribed | tree.subscribed_below
    async for name in in_slices(await _matching(names, command.reference, (command.pattern,))):
        if name in tree.subscribed:
            mailbox = tree.mailboxes.get(name)
            selectable = mailbox is not None and mailbox.selectable
            lines.append(responses.lsub_line(() if selectable else ("\\Noselect",), name))
        elif command.pattern.endswith("%"):
            lines.append(responses.lsub_line(("\\Noselect",), name))
    return ok("LSUB completed", untagged=b"".join(lines))


async def status(session: "Session", state: LoggedIn, command: ast.Status) -> Reply:
    """RFC 3501 §6.3.10"""
    mailbox = await session.process.mailstore.find_mailbox(state.account.account_id, command.mailbox)
    if not mailbox.selectable:
        raise NotSelectable(command.mailbox)
    values = _status_values(session, mailbox, command.items)
    untagged = responses.status(command.mailbox, values)
    return ok("STATUS completed", untagged=untagged, state=_condstore(state, command.items))


def _status_values(session: "Session", mailbox: Mailbox, items: Iterable[StatusItem]) -> dict[StatusItem, StatusValue]:
    values: dict[StatusItem, StatusValue] = {
        StatusItem.MESSAGES: mailbox.messages,
        StatusItem.RECENT: mailbox.recent,
        StatusItem.UIDNEXT: mailbox.uid_next,
        StatusItem.UIDVALIDITY: mailbox.uid_validity,
        StatusItem.UNSEEN: mailbox.unseen,
        StatusItem.DELETED: mailbox.deleted,
        StatusItem.SIZE: mailbox.octets,
        StatusItem.HIGHESTMODSEQ: mailbox.highest_mod_seq,
        StatusItem.APPENDLIMIT: session.process.limits.append,
        StatusItem.MAILBOXID: object_id(mailbox.mailbox_id),
    }
    return {item: values[item] for item in items}


def _condstore(state: LoggedIn, items: Iterable[StatusItem]) -> LoggedIn:
    """Asking for HIGHESTMODSEQ enables CONDSTORE (RFC 7162 §3.1)."""
    return condstore_enabled(state) if StatusItem.HIGHESTMODSEQ in items else state
