"""Whether a message is signed by DKIM (RFC 6376), and which changes its signatures survive."""

import re
from dataclasses import dataclass
from typing import Final

from paquebot.message.header import field_spans, split_header, unfold

_DKIM: Final = re.compile(rb"dkim-signature[ \t]*:", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Signatures:
    """DKIM (RFC 6376): whether there is one, and whether one has a `simple` header (§3.4.1), which folding breaks."""

    present: bool = False
    simple_header: bool = False


def signatures(content: bytes) -> Signatures:
    present = simple = False
    if not _DKIM.search(content, 0, split_header(content)):
        return Signatures()
    for name, _, value, end in field_spans(content, 0, split_header(content)):
        if name == b"dkim-signature":
            present = True
            tags = (tag.partition(b"=") for tag in unfold(content[value:end]).split(b";"))
            canonicalization = next((text for tag, _, text in tags if tag.strip() == b"c"), b"simple")
            simple = simple or not canonicalization.strip().lower().startswith(b"relaxed")
    return Signatures(present, simple)
