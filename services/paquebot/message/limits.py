"""How much of one message is ever looked at or kept: every bound of this package in one place.

A summary travels in queue jobs and mailbox rows, so its size is bounded whatever the message says:
about HEADERS_KEPT + ENVELOPE_KEPT + STRUCTURE_KEPT octets, plus some 40 octets for each part.
"""

from typing import Final

MAX_DEPTH: Final = 50
"""Nested entities below the root; what lies deeper is reported as one APPLICATION/OCTET-STREAM."""

MAX_PARTS: Final = 1000
"""Entities listed for one message; further siblings are left out of the structure."""

MAX_BOUNDARY: Final = 512
"""Octets; RFC 2046 §5.1.1 allows 70, real senders do not always keep to it."""

MAX_DASH_LINES: Final = 400_000
"""Lines starting with two hyphens that are compared with boundaries; behind them no part ends any more."""

MAX_HEADER: Final = 256 * 1024
"""Octets of one header that are looked at."""

MAX_HEADERS_TOTAL: Final = 1024 * 1024
"""Octets of all headers of one message that are looked at."""

MAX_TYPE: Final = 127
"""Octets of a media type or subtype (RFC 6838 §4.2)."""

MAX_PARAMETERS: Final = 64
"""Parameters of one Content-Type or Content-Disposition field."""

MAX_ADDRESSES: Final = 2000
"""Mailboxes and group marks read from one field."""

HEADERS_KEPT: Final = 16 * 1024
"""Octets of header fields kept verbatim in a summary."""

HEADER_KEPT: Final = 6 * 1024
"""Octets of all fields of one name kept verbatim in a summary."""

ENVELOPE_KEPT: Final = 64 * 1024
"""Octets of envelope text kept in a summary, the embedded messages' included."""

STRUCTURE_KEPT: Final = 64 * 1024
"""Octets of part descriptions (parameters, identifiers) kept in a summary."""


class Budget:
    """Octets that may still be kept; what does not fit is refused whole, never cut."""

    __slots__ = ("left",)

    def __init__(self, octets: int) -> None:
        self.left = octets

    def take(self, octets: int) -> bool:
        """Claim `octets`; False, and nothing claimed, when fewer are left."""
        if octets > self.left:
            return False
        self.left -= octets
        return True
