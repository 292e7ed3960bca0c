"""Commands of every state (RFC 3501 §6.1, RFC 2971)."""

from paquebot import __version__
from paquebot.imap.commands.context import CommandContext
from paquebot.imap.reply import Refresh, Reply, ok
from paquebot.imap.states import LoggedOut, SessionState
from paquebot.wire.imap import ast, responses


async def capability(context: CommandContext, state: SessionState, command: ast.Capability) -> Reply:
    """RFC 3501 §6.1.1"""
    return ok("CAPABILITY completed", untagged=responses.capability(context.capabilities(state)))


async def noop(context: CommandContext, state: SessionState, command: ast.Noop) -> Reply:
    """RFC 3501 §6.1.2: the client polls."""
    return ok("NOOP completed", refresh=Refresh.NOW)


async def logout(context: CommandContext, state: SessionState, command: ast.Logout) -> Reply:
    """RFC 3501 §6.1.3"""
    return ok("LOGOUT completed", untagged=responses.bye("Logging out"), state=LoggedOut())


async def identify(context: CommandContext, state: SessionState, command: ast.Id) -> Reply:
    """RFC 2971 §3.1: the client's fields change nothing."""
    fields: list[tuple[bytes, bytes | None]] = [(b"name", b"Paquebot"), (b"version", __version__.encode())]
    return ok("ID completed", untagged=responses.identity(fields))
