"""Looks through a header or a body for all texts of a search together, a piece at a time.

A piece is decoded once, folded, compared with every text that was not found so far, and dropped: nothing is kept but
which texts are there. What that costs is counted, in bytes decoded and characters compared, and for each part and
each comparison, however short they are.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from paquebot.imap.search.header_texts import embedded_header_text
from paquebot.message import BodyPart, embedded_message, is_multipart, text_pieces

_DECODING = 8  # to decode and fold a byte takes about as long as to compare it with so many texts
_TOGETHER = 16  # texts that are compared with a piece in one step
_CHECKED = 64 * 1024  # what a piece without text stands for: bytes whose charset is guessed
_PART, _COMPARISON = (
    8192,
    128,
)  # in characters, what it costs to begin a part, and to compare a text with a piece at all


@dataclass(slots=True)
class TextsFound:
    """In one header or body so far. `complete`: all of it was looked through, so what was not found is not there."""

    found: set[str] = field(default_factory=set)
    complete: bool = False


def search_texts(parts: Iterable[Iterable[str]], wanted: Iterable[str], texts: TextsFound) -> Iterator[int]:
    """Fill `texts` with what of `wanted`, which is folded, is there. Each step yields what it cost.

    A text is looked for in each part by itself. The caller may stop as soon as it knows enough.
    """
    missing = [text for text in wanted if text]
    texts.found.add("")  # it is in every text
    for part in parts:
        tail = ""
        yield _PART
        for piece in part:
            if not piece:
                yield _CHECKED
                continue
            text = tail + piece.casefold()
            yield _DECODING * len(piece)
            for start in range(0, len(missing), _TOGETHER):
                some = missing[start : start + _TOGETHER]
                texts.found.update(one for one in some if one in text)
                yield (len(text) + _COMPARISON) * len(some)
            missing = [one for one in missing if one not in texts.found]
            overlap = max(map(len, missing), default=1) - 1
            tail = text[max(0, len(text) - overlap) :]
    texts.complete = True


def part_texts(raw: bytes, root: BodyPart) -> Iterator[Iterable[str]]:
    """The text of every text part, and the header of every embedded message, in pieces."""
    return _parts(root, memoryview(raw))


def _parts(part: BodyPart, raw: memoryview) -> Iterator[Iterable[str]]:
    embedded = embedded_message(part)
    if is_multipart(part):
        for child in part.parts:
            yield from _parts(child, raw)
    elif embedded is not None:
        yield embedded_header_text(raw[embedded.header_offset : embedded.body_offset])
        yield from _parts(embedded, raw)
    elif part.type == b"TEXT":
        body = raw[part.body_offset : part.body_offset + part.body_length]
        yield text_pieces(body, part.encoding, _charset(part))


def _charset(part: BodyPart) -> str:
    return next((p.value.decode("latin-1") for p in part.parameters if p.name.lower() == b"charset"), "")
