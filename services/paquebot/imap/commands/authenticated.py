"""Commands on mailboxes as a whole (RFC 3501 §6.3.3 to §6.3.7), ENABLE (RFC 5161), NAMESPACE (RFC 2342)."""

from paquebot.imap.capabilities import ENABLEABLE
from paquebot.imap.commands.context import CommandContext
from paquebot.imap.reply import Refresh, Reply, no, ok
from paquebot.imap.states import CONDSTORE, QRESYNC, Authenticated, LoggedIn, Selected
from paquebot.mailstore import SpecialUse
from paquebot.wire.imap import ast, check_new_name, response_codes, responses

DELIMITER = "/"
SPECIAL_USES = {f"\\{use.value.capitalize()}": use for use in SpecialUse}
"""RFC 6154 §2, "\\Drafts" and so on."""


async def enable(context: CommandContext, state: Authenticated, command: ast.Enable) -> Reply:
    """RFC 5161 §3.1. QRESYNC enables CONDSTORE too (RFC 7162 §3.2.3)."""
    asked = ENABLEABLE.intersection(command.capabilities)
    if QRESYNC in asked:
        asked |= {CONDSTORE}
    new = sorted(asked - state.enabled)
    following = Authenticated(state.account, state.enabled.union(new))
    return ok("ENABLE completed", untagged=responses.enabled(new), state=following)


async def create(context: CommandContext, state: LoggedIn, command: ast.Create) -> Reply:
    """RFC 3501 §6.3.3; a trailing delimiter announces inferior names, which every mailbox may have.
    USE: RFC 6154 §5.2."""
    name = check_new_name(command.mailbox.removesuffix(DELIMITER))
    uses = [SPECIAL_USES.get(use) for use in command.special_use]
    if len(uses) > 1 or None in uses:
        return no("A mailbox can have one of the known uses", response_codes.USEATTR)
    use = uses[0] if uses else None
    account_id = state.account.account_id
    if use is not None:
        mailboxes = await context.server.mailboxes.list_all(account_id)
        if any(mailbox.special_use is use for mailbox in mailboxes):
            return no("Another mailbox has that use", response_codes.USEATTR)
    made = await context.server.mailboxes.create(account_id, name, special_use=use)
    return ok("CREATE completed", response_codes.mailbox_id(object_id(made.mailbox_id)))


async def delete(context: CommandContext, state: LoggedIn, command: ast.Delete) -> Reply:
    """RFC 3501 §6.3.4. Sessions that have the mailbox selected are woken at once, and end."""
    mailboxes, account_id = context.server.mailboxes, state.account.account_id
    deleted = await mailboxes.find(account_id, command.mailbox)
    await mailboxes.delete(account_id, command.mailbox)
    context.announce()
    if isinstance(state, Selected) and state.mailbox_id == deleted.mailbox_id:
        return ok("DELETE completed; no mailbox is selected now", state=state.deselected())
    return ok("DELETE completed")


async def rename(context: CommandContext, state: LoggedIn, command: ast.Rename) -> Reply:
    """RFC 3501 §6.3.5; renaming INBOX moves its messages away."""
    new_name = check_new_name(command.new_name.removesuffix(DELIMITER))
    await context.server.mailboxes.rename(state.account.account_id, command.mailbox, new_name)
    context.announce()
    return ok("RENAME completed", refresh=Refresh.NOW)


async def subscribe(context: CommandContext, state: LoggedIn, command: ast.Subscribe) -> Reply:
    """RFC 3501 §6.3.6"""
    await context.server.mailboxes.subscribe(state.account.account_id, command.mailbox)
    return ok("SUBSCRIBE completed")


async def unsubscribe(context: CommandContext, state: LoggedIn, command: ast.Unsubscribe) -> Reply:
    """RFC 3501 §6.3.7"""
    await context.server.mailboxes.unsubscribe(state.account.account_id, command.mailbox)
    return ok("UNSUBSCRIBE completed")


async def namespace(context: CommandContext, state: LoggedIn, command: ast.Namespace) -> Reply:
    """RFC 2342 §5: one personal namespace without a prefix, no others."""
    return ok("NAMESPACE completed", untagged=responses.namespace((("", DELIMITER),)))


def object_id(mailbox_id: int) -> str:
    """MAILBOXID: unique within the account, and a rename keeps it (RFC 8474 §4)."""
    return f"M{mailbox_id}"
