"""The header of a message as fields: where it ends, what its fields are, and their unfolded text.

Lines end with LF, whether or not CR stands before it; a CR elsewhere is an ordinary byte.
The raw slices of all fields joined give the header back, byte for byte. Nothing raises on any bytes.
RFC 5322 §2.1, §2.2, §2.2.3 and §4.5 (obsolete fields).
"""

from collections.abc import Iterable, Iterator

_SP = 0x20
_HTAB = 0x09


def split_header(content: bytes, start: int = 0) -> int:
    """Offset of the body of the message that starts at `start`: just after the first empty line.

    Without an empty line everything is header (RFC 5322 §3.5: the body is optional), so it is len(content).
    """
    if content.startswith(b"\r\n", start):
        return start + 2
    if content.startswith(b"\n", start):
        return start + 1
    crlf = content.find(b"\n\r\n", start)
    lone = content.find(b"\n\n", start) if crlf < 0 else content.find(b"\n\n", start, crlf + 1)
    if lone >= 0:
        return lone + 2
    return crlf + 3 if crlf >= 0 else len(content)


def field_spans(content: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int, int]]:
    """The fields of content[start:end] as (lower-case name, start, start of the value, end).

    Spans touch each other and cover the range up to an empty line, or to its end. A line that is neither a
    field nor a continuation has the name b"".
    """
    find = content.find
    while start < end:
        after = find(b"\n", start, end) + 1 or end
        while after < end and ((first := content[after]) == _SP or first == _HTAB):
            after = find(b"\n", after, end) + 1 or end
        colon = find(b":", start, after)
        if colon > start:
            # RFC 5322 §4.5: obsolete syntax has white space between the name and the colon.
            yield content[start:colon].rstrip(b" \t").lower(), start, colon + 1, after
        elif content[start:after] in (b"\r\n", b"\n"):
            return
        else:
            yield b"", start, start, after
        start = after


def spans_of(content: bytes, name: bytes) -> Iterator[tuple[int, int, int]]:
    """The fields of the message's header with this lower-case name, as (start, start of the value, end).

    They are what `field_spans` finds under it, at a cost that hardly grows with the number of other fields.
    """
    lower = content[: split_header(content)].lower()
    line = b"\n" + name
    at = 0 if lower.startswith(name) else lower.find(line) + 1 or -1
    while at >= 0:
        colon = at + len(name)
        while lower.startswith((b" ", b"\t"), colon):
            colon += 1
        after = colon
        if lower.startswith(b":", colon):
            after = _field_end(lower, colon)
            yield at, colon + 1, after
        at = lower.find(line, after - 1) + 1 or -1


def _field_end(header: bytes, start: int) -> int:
    """The offset after the lines of the field that `start` is in."""
    after = header.find(b"\n", start) + 1 or len(header)
    while header.startswith((b" ", b"\t"), after):
        after = header.find(b"\n", after) + 1 or len(header)
    return after


def fields(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The header fields of a message (or of a header alone) in order, as (lower-case name, raw field).

    The raw field has its name, its folding and its line end. A line that is no field has the name b"".
    """
    for name, start, _, end in field_spans(content, 0, split_header(content)):
        yield name, content[start:end]


def field_value(raw_field: bytes) -> bytes:
    """The unfolded value of a raw field, without surrounding white space."""
    return unfold(raw_field[raw_field.find(b":") + 1 :])


def first_value(content: bytes, name: bytes) -> bytes | None:
    """The unfolded value of the first field with this lower-case name, or None."""
    for found, _, value, end in field_spans(content, 0, split_header(content)):
        if found == name:
            return unfold(content[value:end])
    return None


def unfold(value: bytes) -> bytes:
    """RFC 5322 §2.2.3: remove each line end before white space, and the white space around the whole.

    NUL is removed and a CR or LF that folds nothing becomes a space, so that the result is one line that
    IMAP can carry as a string.
    """
    value = value.strip(b" \t\r\n")
    if b"\n" in value:
        value = value.replace(b"\r\n", b"").replace(b"\n", b"")
    if b"\r" in value:
        value = value.replace(b"\r", b" ")
    return value.replace(b"\0", b"") if b"\0" in value else value


def header_fields(header: bytes, names: Iterable[str], *, negate: bool = False) -> bytes:
    """RFC 3501 §6.4.5 HEADER.FIELDS, or HEADER.FIELDS.NOT with `negate`: a subset and the empty line.

    `header` is a header with or without its empty line; names match without regard to case. Lines that are
    no field belong to no name: they appear only with `negate`.
    """
    wanted = {name.lower().encode("utf-8", "surrogateescape") for name in names}
    return join_fields(raw for name, raw in fields(header) if (name in wanted) is not negate)


def join_fields(raw_fields: Iterable[bytes]) -> bytes:
    """Raw fields as their own header: each line ended, and the empty line after the last."""
    lines = [raw if raw.endswith(b"\n") else raw + b"\r\n" for raw in raw_fields]
    return b"".join(lines) + b"\r\n"
