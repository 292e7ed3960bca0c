"""The summary of a message: everything IMAP and searching ask without the body, made once at acceptance.

It marks omissions; a reader that needs the rest makes a complete one from the message (`limits.WHOLE`).

Invariants: summarise() never raises, on any bytes; time and size are bounded (`limits`); every offset lies
inside the message. The contract is protos/paquebot/v1/summary.proto.
RFC 3501 §7.4.2, RFC 5322, RFC 2045, RFC 2046.
"""

from typing import Final

from paquebot.message.header import unfold
from paquebot.message.limits import STORED, Bounds
from paquebot.message.mime.structure import CONTENT_FIELDS, StructureScan
from paquebot.message.summary.cached_headers import CACHED_NAMES, SUMMARY_VERSION, cache_headers
from paquebot.message.summary.conversation import thread_key
from paquebot.message.summary.envelope import ENVELOPE_FIELDS, HeaderValues, fill_envelope
from paquebot.v1 import summary_pb2

_ROOT_FIELDS: Final = ENVELOPE_FIELDS | CONTENT_FIELDS | {b"references"}


def summarise(content: bytes | memoryview, bounds: Bounds = STORED) -> summary_pb2.MessageSummary:
    """The summary of a stored message. A view is copied once; bytes are not copied."""
    data = content if isinstance(content, bytes) else bytes(content)
    summary = summary_pb2.MessageSummary(version=SUMMARY_VERSION)
    scan = StructureScan(data, bounds)
    header = scan.header(0, _ROOT_FIELDS, CACHED_NAMES)
    fill_envelope(summary.envelope, header.values, scan.envelope_budget)
    summary.envelope_extent = _extent(is_cut=scan.is_cut)
    scan.envelope_budget.refused = False  # the structure has the envelopes of embedded messages, and not this one
    scan.entity(summary.body, 0, header, 0, (b"TEXT", b"PLAIN"))
    summary.body_extent = _extent(is_cut=scan.is_cut)
    cache_headers(summary, header.kept, whole=header.whole)
    summary.thread_key = thread_key(
        _first(header.values, b"references"),
        _first(header.values, b"in-reply-to"),
        _first(header.values, b"message-id"),
    )
    return summary


def _extent(*, is_cut: bool) -> "summary_pb2.Extent.ValueType":
    return summary_pb2.EXTENT_CUT if is_cut else summary_pb2.EXTENT_WHOLE


def _first(values: HeaderValues, name: bytes) -> bytes | None:
    found = values.get(name)
    return unfold(found[0]) if found else None
