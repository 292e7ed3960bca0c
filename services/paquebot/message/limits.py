"""How much of one message is read and kept: every bound of this package in one place.

A summary travels in queue jobs and mailbox rows, so its size is bounded for any message:
about HEADERS_KEPT + ENVELOPE_KEPT + STRUCTURE_KEPT bytes, plus some 40 bytes for each part. A summary marks
whether it is incomplete; readers then make another from the message, within the much wider limits WHOLE.
"""

from dataclasses import dataclass
from typing import Final

MAX_DEPTH: Final = 50
"""Nested entities below the root; a deeper one is reported as APPLICATION/OCTET-STREAM."""

MAX_PARTS: Final = 1000
"""Entities listed for one message in its stored summary; further siblings are left out of the structure."""

MAX_BOUNDARY: Final = 512
"""Bytes; RFC 2046 §5.1.1 allows 70, real senders exceed it."""

MAX_DASH_LINES: Final = 400_000
"""Lines starting with two hyphens that are compared with boundaries; after them no part ends any more."""

MAX_HEADER: Final = 256 * 1024
"""Bytes of one header that are read."""

MAX_HEADERS_TOTAL: Final = 1024 * 1024
"""Bytes of all headers of one message that are read."""

MAX_TYPE: Final = 127
"""Bytes of a media type or subtype (RFC 6838 §4.2)."""

MAX_PARAMETERS: Final = 1000
"""Parameters of one Content-Type or Content-Disposition field, and segments of them (RFC 2231 §3)."""

MAX_ADDRESSES: Final = 2000
"""Mailboxes and group marks read from one field, and kept in one stored summary."""

HEADERS_KEPT: Final = 16 * 1024
"""Bytes of header fields kept verbatim in a summary."""

HEADER_KEPT: Final = 6 * 1024
"""Bytes of all fields of one name kept verbatim in a summary."""

ENVELOPE_KEPT: Final = 64 * 1024
"""Bytes of envelope text kept in a summary, the embedded messages' included."""

STRUCTURE_KEPT: Final = 64 * 1024
"""Bytes of part descriptions (parameters, identifiers) kept in a summary."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of a message one summary has; its bytes of header fields have bounds of their own."""

    parts: int
    depth: int
    header: int
    """Bytes of one header that are read."""
    headers: int
    """The same of all headers."""
    addresses: int
    """Mailboxes and group marks of all envelopes; From may count three times, for Sender and Reply-To."""
    envelope: int
    """Bytes of the text of all envelopes."""
    structure: int
    """Bytes of the descriptions of parts."""


STORED: Final = Bounds(
    parts=MAX_PARTS,
    depth=MAX_DEPTH,
    header=MAX_HEADER,
    headers=MAX_HEADERS_TOTAL,
    addresses=MAX_ADDRESSES,
    envelope=ENVELOPE_KEPT,
    structure=STRUCTURE_KEPT,
)
"""Of the summary that is made at acceptance and stored in the message's row."""

WHOLE: Final = Bounds(
    parts=10_000,
    depth=90,
    header=2 * 1024 * 1024,
    headers=4 * 1024 * 1024,
    addresses=50_000,
    envelope=4 * 1024 * 1024,
    structure=4 * 1024 * 1024,
)
"""Of a summary that is made for a reply when the stored one was cut: far above what people send, and bounded."""

WHOLE_BYTES: Final = 16 * 1024 * 1024
"""About the maximum memory of a summary within WHOLE, without the message."""


class ParseBudget:
    """Bytes, and entries of lists, that may still be kept; what does not fit is refused, never cut."""

    __slots__ = ("entries", "left", "refused")

    def __init__(self, size: int, entries: int = 0) -> None:
        self.left = size
        self.entries = entries
        self.refused = False
        """Whether anything was."""

    def take(self, size: int) -> bool:
        """Take `size` bytes. False, with nothing taken: fewer are left."""
        if size > self.left:
            self.refused = True
            return False
        self.left -= size
        return True

    def take_entries(self, size: int, entries: int) -> bool:
        """The same, with this number of entries."""
        if entries > self.entries:
            self.refused = True
            return False
        if not self.take(size):
            return False
        self.entries -= entries
        return True
