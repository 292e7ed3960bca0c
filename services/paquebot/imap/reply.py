"""The answer of a handler: untagged lines, one completion, the next state. Only the session sends it."""

import enum
from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import dataclass

from paquebot.imap.states import SessionState
from paquebot.runtime.net.connection import SLICE
from paquebot.wire.imap import responses


class ReplyStatus(enum.Enum):
    """The completions of RFC 3501 §7.1.1 to §7.1.3."""

    OK = "ok"
    NO = "no"
    BAD = "bad"


class Refresh(enum.Enum):
    """When to refresh the view of the selected mailbox before the completion is sent."""

    WHEN_HINTED = "when hinted"
    NOW = "now"
    NEVER = "never"


Lines = bytes | Iterable[bytes]
"""Whole lines, or pieces of them made while they are written, because there may be very many."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The end of a command. `state` None: it does not change."""

    status: ReplyStatus
    text: str
    code: bytes | None = None
    untagged: Lines = b""
    state: SessionState | None = None
    refresh: Refresh = Refresh.WHEN_HINTED

    def completion(self, tag: bytes) -> bytes:
        """The tagged line."""
        match self.status:
            case ReplyStatus.OK:
                return responses.ok(tag, self.text, self.code)
            case ReplyStatus.NO:
                return responses.no(tag, self.text, self.code)
            case ReplyStatus.BAD:
                return responses.bad(tag, self.text, self.code)


_LINES_PER_STEP = 1000


def in_chunks(*lines: Lines) -> Iterator[bytes]:
    """All lines in chunks worth a write. An empty chunk is a step without one: lines are made here, and very many may
    be empty."""
    out = bytearray()
    count = 0
    for some in lines:
        for piece in (some,) if isinstance(some, bytes) else some:
            out += piece
            count += 1
            if len(out) >= SLICE:
                yield bytes(out)
                out.clear()
            elif count % _LINES_PER_STEP == 0:
                yield b""
    if out:
        yield bytes(out)


@dataclass(frozen=True, slots=True)
class ReplySent:
    """The end of a command whose completion was already sent (STARTTLS)."""


Chunk = bytes | bytearray

Stream = AsyncGenerator[Chunk | Reply | ReplySent, None]
"""An answer in chunks to send at once, which their maker does not change again, and at the end its Reply."""


def ok(
    text: str,
    code: bytes | None = None,
    *,
    untagged: Lines = b"",
    state: SessionState | None = None,
    refresh: Refresh = Refresh.WHEN_HINTED,
) -> Reply:
    """The command succeeded."""
    return Reply(ReplyStatus.OK, text, code, untagged, state, refresh)


def no(text: str, code: bytes | None = None, *, untagged: Lines = b"", state: SessionState | None = None) -> Reply:
    """The command failed."""
    return Reply(ReplyStatus.NO, text, code, untagged, state)


def bad(text: str, code: bytes | None = None) -> Reply:
    """The command breaks the protocol."""
    return Reply(ReplyStatus.BAD, text, code)
