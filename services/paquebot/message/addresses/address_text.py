"""Address lists as text to search: FROM, TO, CC and BCC of RFC 3501 §6.4.4 search the envelope, where an address is
`local@domain`, however it was quoted, commented or spaced in the message (RFC 5322 §3.2.2, §4.4)."""

import re
from collections.abc import Iterator
from typing import Final

from paquebot.message.addresses.address_list import MailAddress, addresses
from paquebot.message.text.encoded_text import decode_header_text

ADDRESS_FIELDS: Final = frozenset(
    (
        *("from", "sender", "reply-to", "to", "cc", "bcc"),
        *("resent-from", "resent-sender", "resent-to", "resent-cc", "resent-bcc"),
    )
)
"""Lower-case names of the fields whose values are address lists (RFC 5322 §3.6)."""

_PIECE: Final = 4096  # bytes that are parsed in one step
# Without any of these, each address stands in the list as it is.
_NOT_PLAIN: Final = re.compile(rb'["(\\]|[ \t][.@>]|[<.@][ \t]')


def address_texts(value: bytes) -> Iterator[tuple[int, str]]:
    """The entries of an unfolded address list as `name <local@domain>`, for each piece of the list with the number of
    bytes that were parsed. Nothing for a list that already has its entries so.

    A longer list is cut at commas; an entry with the comma in quotes is cut too, and not found.
    """
    if _NOT_PLAIN.search(value) is None:
        return
    start = 0
    while start < len(value):
        end = start + _PIECE
        if end < len(value):
            end = value.rfind(b",", start, end) + 1 or end
        yield min(end, len(value)) - start, "\0".join(map(_text, addresses(value[start:end])))
        start = end


def _text(entry: MailAddress) -> str:
    name = decode_header_text(entry.name or b"")
    if entry.host is None:  # a group begins or ends
        return decode_header_text(entry.mailbox or b"")
    local, domain = decode_header_text(entry.mailbox or b""), decode_header_text(entry.host)
    return f"{name} <{local}@{domain}>"
