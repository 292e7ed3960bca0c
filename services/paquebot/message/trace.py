"""The changes to a header at acceptance; there are none afterwards.

Invariants: all other bytes of the message stay as they are; added fields stand in front (RFC 5321 §4.4) and end
their lines with CRLF. RFC 5322 §3.6, RFC 6409 §8, RFC 8601 §5.
"""

import itertools
from collections.abc import Callable
from datetime import datetime
from email.utils import format_datetime
from typing import Final

from paquebot.message.addresses.address_list import skip_comment
from paquebot.message.header import spans_of, unfold

_MAX_ID: Final = 4096  # bytes of Authentication-Results in which the authserv-id must end
_WHITE_SPACE: Final = (b" ", b"\t")


def count_received(content: bytes) -> int:
    """RFC 5321 §6.3: the number of hosts that have passed the message on, by its Received fields."""
    return sum(1 for _ in spans_of(content, b"received"))


def is_looping(content: bytes, hops: int) -> bool:
    """RFC 5321 §6.3: whether at least `hops` hosts, 1 or more, have passed the message on."""
    return next(itertools.islice(spans_of(content, b"received"), hops - 1, None), None) is not None


def add_trace(content: bytes, header_block: bytes) -> bytes:
    """The message with header fields (whole lines, each ended by CRLF) in front.

    A message that starts with white space has no header; an empty line keeps its text from continuing the added field.
    """
    if not header_block.endswith(b"\r\n") or header_block.startswith((*_WHITE_SPACE, b"\r\n")):
        raise ValueError("a header block must be one or more whole fields")
    separator = b"\r\n" if content.startswith(_WHITE_SPACE) else b""
    return b"".join((header_block, separator, content))


def remove_header(content: bytes, name: bytes, predicate: Callable[[bytes], bool]) -> bytes:
    """The message without the fields of this lower-case name whose unfolded value satisfies the predicate.

    The same object when there is none.
    """
    kept: list[bytes] = []
    copied = 0
    for start, value, end in spans_of(content, name):
        if predicate(unfold(content[value:end])):
            kept.append(content[copied:start])
            copied = end
    return b"".join((*kept, content[copied:])) if kept else content


def remove_authentication_results(content: bytes, authserv_id: str) -> bytes:
    """RFC 8601 §5: the message without Authentication-Results fields that claim to be made by `authserv_id`."""
    ours = _canonical(authserv_id.encode("utf-8"))
    return remove_header(content, b"authentication-results", lambda value: _authserv_id(value) in (ours, None))


def _canonical(authserv_id: bytes) -> str:
    """Host names compare without case; an internationalised one in either of its forms (RFC 5890 §2.3.2.1)."""
    text = authserv_id.decode("utf-8", "replace").strip().rstrip(".").casefold()
    try:
        return text.encode("idna").decode("ascii").lower() if not text.isascii() else text
    except UnicodeError:
        return text


def _authserv_id(value: bytes) -> str | None:
    """RFC 8601 §2.2: authres-payload = [CFWS] authserv-id [CFWS authres-version] …; authserv-id = value. None: it may
    stand after more comments than are read."""
    whole = len(value) <= _MAX_ID
    value = value[:_MAX_ID]
    pos = 0
    while pos < len(value) and value[pos] in b" \t(":
        pos = skip_comment(value, pos) if value[pos] == 0x28 else pos + 1
    if pos >= len(value) and not whole:
        return None
    if value.startswith(b'"', pos):
        end = value.find(b'"', pos + 1)
        if end < 0 and not whole:
            return None
        return _canonical(value[pos + 1 : end if end >= 0 else len(value)].replace(b"\\", b""))
    end = pos
    while end < len(value) and value[end] not in b" \t(;":
        end += 1
    if end == len(value) and not whole:
        return None
    return _canonical(value[pos:end])


def ensure_date_and_message_id(content: bytes, now: datetime, message_id: str) -> bytes:
    """RFC 6409 §8.2, §8.3: a submitted message with the Date and Message-ID it may lack.

    `now` is aware; `message_id` comes with its angle brackets. The same object when nothing is missing.
    """
    # After the empty line that add_trace puts before leading white space, fields would be body.
    has_header = not content.startswith(_WHITE_SPACE)
    missing = b""
    if not has_header or next(spans_of(content, b"date"), None) is None:
        missing += f"Date: {format_datetime(now)}\r\n".encode("ascii")
    if not has_header or next(spans_of(content, b"message-id"), None) is None:
        missing += f"Message-ID: {message_id}\r\n".encode()
    return add_trace(content, missing) if missing else content
