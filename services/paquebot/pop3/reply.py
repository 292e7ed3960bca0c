"""What a command's handler returns: a reply, or a stream of bytes that the session's one writer sends."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from paquebot.pop3.states import State
from paquebot.wire.pop3 import Code, err, ok


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply. `state`: the session's next one; `fault`: counts against the session's errors."""

    data: bytes
    state: State | None = None
    fault: bool = False

    @property
    def is_positive(self) -> bool:
        return self.data.startswith(b"+")


Stream = AsyncGenerator[bytes | Reply, None]
"""Pieces of a positive reply. An exception before the first piece is answered with -ERR, one after it ends the
connection. A `Reply` may be the last piece."""


def positive(text: str = "", state: State | None = None) -> Reply:
    """+OK"""
    return Reply(ok(text), state)


def negative(text: str, code: Code | None = None) -> Reply:
    """-ERR that does not count against the client."""
    return Reply(err(text, code))


def fault(text: str, code: Code | None = None) -> Reply:
    """-ERR for a command that a correct client does not send."""
    return Reply(err(text, code), fault=True)
