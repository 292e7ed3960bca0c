"""Text to encoded words, for headers that Paquebot writes (RFC 2047 §2, §4.2, §5)."""

from collections.abc import Iterator
from typing import Final

_MAX_TEXT: Final = 75 - len("=?utf-8?Q??=")  # RFC 2047 §2
_SAFE: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")  # RFC 2047 §5 (3)


def encoded_words(text: str) -> Iterator[str]:
    """`text` as encoded words in UTF-8 that are valid at any place; only white space may stand between them.

    No character is divided between two words; letters, digits and `!*+-/` stand for themselves.
    """
    word = ""
    for char in text:
        encoded = _encoded(char)
        if len(word) + len(encoded) > _MAX_TEXT:
            yield f"=?utf-8?Q?{word}?="
            word = ""
        word += encoded
    yield f"=?utf-8?Q?{word}?="


def _encoded(char: str) -> str:
    """The "Q" encoding, with "_" for SPACE."""
    if char == " ":
        return "_"
    data = char.encode("utf-8", "replace")
    return "".join(chr(octet) if octet in _SAFE else f"={octet:02X}" for octet in data)
