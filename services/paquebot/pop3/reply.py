"""What a handler of a command returns: a reply, or a stream of bytes that the session's one writer sends."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from paquebot.pop3.states import State
from paquebot.wire.pop3 import Code, err, ok


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer. `state`: the session's next one; `fault`: counts against the session's errors."""

    octets: bytes
    state: State | None = None
    fault: bool = False

    @property
    def is_positive(self) -> bool:
        return self.octets.startswith(b"+")


Stream = AsyncGenerator[bytes | Reply, None]
"""Pieces of a positive answer; an exception before the first piece is answered with -ERR, one after it ends the
connection. A `Reply` may be the last piece."""


def positive(text: str = "", state: State | None = None) -> Reply:
    """+OK"""
    return Reply(ok(text), state)


def negative(text: str, code: Code | None = None) -> Reply:
    """-ERR for what is nobody's fault."""
    return Reply(err(text, code))


def fault(text: str, code: Code | None = None) -> Reply:
    """-ERR for what a correct client does not do."""
    return Reply(err(text, code), fault=True)
