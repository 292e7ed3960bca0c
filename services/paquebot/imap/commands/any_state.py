"""Commands of every state (RFC 3501 §6.1, RFC 2971)."""

from typing import TYPE_CHECKING

from paquebot import __version__
from paquebot.imap.reply import Refresh, Reply, ok
from paquebot.imap.states import LoggedOut
from paquebot.wire.imap import ast, responses

if TYPE_CHECKING:
    from paquebot.imap.session import Session


async def capability(session: "Session", command: ast.Capability) -> Reply:
    """RFC 3501 §6.1.1"""
    return ok("CAPABILITY completed", untagged=responses.capability(session.capabilities()))


async def noop(session: "Session", command: ast.Noop) -> Reply:
    """RFC 3501 §6.1.2: the client polls."""
    return ok("NOOP completed", refresh=Refresh.NOW)


async def logout(session: "Session", command: ast.Logout) -> Reply:
    """RFC 3501 §6.1.3"""
    return ok("LOGOUT completed", untagged=responses.bye("Until next time"), state=LoggedOut())


async def identify(session: "Session", command: ast.Id) -> Reply:
    """RFC 2971 §3.1: what the client says of itself changes nothing."""
    said: list[tuple[bytes, bytes | None]] = [(b"name", b"Paquebot"), (b"version", __version__.encode())]
    return ok("ID completed", untagged=responses.identity(said))
