"""Messages whose bytes cannot be read: which, why, and what a FETCH or SEARCH says of them (decision 34).

S3 that is away is temporary, and the whole command says so. One message that is lost or damaged must not take the
others with it: it is named in an untagged NO (a warning, RFC 3501 §7.1.2), and the command goes on without it.
"""

from dataclasses import dataclass
from typing import Final

from paquebot.blobs import BlobMissing, BlobsUnavailable
from paquebot.imap.bodies.body_cache import BodyError
from paquebot.wire.imap import response_codes, responses

_NAMED: Final = 100
"""Messages that one command names; where there are more, nobody reads their numbers."""


@dataclass(slots=True)
class Unreadable:
    """Counts of one command."""

    away: int = 0
    """S3 did not answer: to try again helps."""
    damaged: int = 0
    """What S3 answered was wrong twice: it may be right another time, or never."""
    lost: int = 0
    """S3 has no such object: to try again does not help."""

    def __bool__(self) -> bool:
        return bool(self.away or self.damaged or self.lost)

    def add(self, error: BodyError, number: int, uid: int) -> bytes:
        """Count a message; returns the untagged line that names it, b"" where the completion says enough."""
        if isinstance(error, BlobsUnavailable):
            self.away += 1
            return b""
        if isinstance(error, BlobMissing):
            self.lost += 1
            what, code = "lost", response_codes.CORRUPTION
        else:
            self.damaged += 1
            what, code = "damaged", response_codes.UNAVAILABLE
        if self.lost + self.damaged > _NAMED:
            return (
                responses.untagged_no("More messages cannot be read") if self.lost + self.damaged == _NAMED + 1 else b""
            )
        return responses.untagged_no(f"Message {number} (UID {uid}) is {what}, please report it", code)

    def code(self, *, given: int) -> bytes | None:
        """The code with which the command fails (RFC 5530 §3), when so many messages were given; None: it succeeds."""
        if self.away:
            return response_codes.UNAVAILABLE
        if given or not self:
            return None
        return response_codes.UNAVAILABLE if self.damaged else response_codes.CORRUPTION
