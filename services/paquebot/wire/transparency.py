"""Dot-stuffing, which SMTP and POP3 share: content whose lines may be dots, followed by a line that is a lone dot.

RFC 5321 §4.5.2; RFC 1939 §3. The content's line ends are CRLF.
"""

from collections.abc import Generator, Iterable, Iterator


def dot_stuffed(pieces: Iterable[bytes]) -> Generator[bytes, None, None]:
    """A dot before each line that begins with one, and CRLF at the end of a last line that has none.

    The pieces come out about as long as they go in, so that no second copy of a large message is made. No piece may
    end inside a line end.
    """
    line_start = True
    for piece in pieces:
        if not piece:
            continue
        if line_start and piece.startswith(b"."):
            yield b"."
        yield piece.replace(b"\r\n.", b"\r\n..")
        line_start = piece.endswith(b"\n")
    if not line_start:
        yield b"\r\n"


def add_transparency(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes that an SMTP client sends after 354: the content of `pieces`, dot-stuffed, and the end mark."""
    yield from dot_stuffed(pieces)
    yield b".\r\n"
