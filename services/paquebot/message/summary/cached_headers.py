"""The header fields a summary keeps verbatim, and the sections that can be made from them alone.

Invariant: a section equals that of the stored message, byte for byte, or there is none.
RFC 3501 §6.4.5 (BODY[HEADER.FIELDS]).
"""

from collections.abc import Iterable
from typing import Final

from paquebot.message.header import join_fields
from paquebot.message.limits import HEADER_KEPT, HEADERS_KEPT
from paquebot.v1 import summary_pb2

SUMMARY_VERSION: Final = 1

_EVERY_CLIENT: Final = "bcc cc content-type date from in-reply-to message-id references reply-to sender subject to"
_MIME: Final = "content-description content-disposition content-transfer-encoding content-language mime-version"
# Thunderbird, K-9, Roundcube and SnappyMail: priority marks, receipts, drafts.
_PRIORITY: Final = "importance priority sensitivity x-msmail-priority x-priority"
_RECEIPT: Final = "disposition-notification-to return-receipt-to x-confirm-reading-to"
_DRAFT: Final = (
    "x-draft-info x-k9mail-identity x-mozilla-draft-info x-uniform-type-identifier x-universally-unique-identifier"
)
# Apple Mail, mutt, Roundcube: mailing lists, and what replies to them need.
_LIST: Final = (
    "list-archive list-help list-id list-owner list-post list-subscribe list-unsubscribe list-unsubscribe-post"
    " mail-followup-to mail-reply-to newsgroups lines precedence auto-submitted x-label x-original-to"
)
# Apple Mail and SnappyMail: authentication of the sender, and results of filters.
_TRUST: Final = (
    "authentication-results dkim-signature bimi-indicator bimi-location x-bimi-indicator-hash"
    " x-spam-flag x-spam-level x-spam-score x-spam-status x-spamd-result"
)
# mbsync finds its own uploads by X-TUID.
_SYNC: Final = "x-tuid resent-from resent-to resent-cc resent-date resent-message-id resent-sender"

CACHED_HEADERS: Final = frozenset(
    " ".join((_EVERY_CLIENT, _MIME, _PRIORITY, _RECEIPT, _DRAFT, _LIST, _TRUST, _SYNC)).split()
)
"""Lower-case names. Received is not among them: it is long. Of the clients tried, only Thunderbird asks for it in a
list; it then reads all bodies anyway."""

CACHED_NAMES: Final = frozenset(name.encode("ascii") for name in CACHED_HEADERS)
"""The same as field names in a message."""


def cache_headers(summary: summary_pb2.MessageSummary, found: list[tuple[bytes, bytes]], *, whole: bool) -> None:
    """Keep the (name, raw field) pairs found in the summary, in order, and name those that do not fit.

    Without `whole` the header was not read to its end, and no field can be given from what was read.
    """
    if not whole:
        summary.headers_left_out.extend(sorted(CACHED_HEADERS))
        return
    total = sum(len(raw) for _, raw in found)
    left_out: set[bytes] = set() if total <= HEADER_KEPT else _overflow(found)
    add = summary.headers.add
    for name, raw in found:
        if name not in left_out:
            add(name=name.decode("ascii"), raw=raw)
    summary.headers_left_out.extend(sorted(name.decode("ascii") for name in left_out))


def _overflow(found: list[tuple[bytes, bytes]]) -> set[bytes]:
    """The names whose fields are too long alone, then the longest until the rest fits together."""
    sizes: dict[bytes, int] = {}
    for name, raw in found:
        sizes[name] = sizes.get(name, 0) + len(raw)
    left_out: set[bytes] = set()
    total = sum(sizes.values())
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        if sizes[name] <= HEADER_KEPT and total <= HEADERS_KEPT:
            break
        left_out.add(name)
        total -= sizes[name]
    return left_out


def cached_header_fields(summary: summary_pb2.MessageSummary, names: Iterable[str]) -> bytes | None:
    """HEADER.FIELDS (names) of the stored message with its final empty line, or None when the summary lacks some.

    Names match without regard to case. Fields that a mailbox row adds before the stored message (Return-Path,
    Delivered-To) are not known here.
    """
    wanted = {name.lower() for name in names}
    if not knows_header_fields(summary, wanted):
        return None
    return join_fields(field.raw for field in summary.headers if field.name in wanted)


def knows_header_fields(summary: summary_pb2.MessageSummary, names: Iterable[str]) -> bool:
    """Whether the summary has these fields, or states that the message has none of them."""
    wanted = {name.lower() for name in names}
    return (
        summary.version == SUMMARY_VERSION and wanted <= CACHED_HEADERS and wanted.isdisjoint(summary.headers_left_out)
    )
