"""IMAP sections: the example of RFC 3501 §6.4.5, and messages without parts."""

import pytest

from paquebot.message import ByteRange, SectionText, StoredSection, charset, part_at, section_bytes, summarise

# RFC 3501 §6.4.5's example: part 3 is a message with two parts, part 4 a multipart with an image and a message.
EXAMPLE = (
    b"Subject: top\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\n"
    b"--a\r\nContent-Type: text/plain\r\n\r\npart 1\r\n"
    b"--a\r\nContent-Type: application/octet-stream\r\n\r\npart 2\r\n"
    b"--a\r\nContent-Type: message/rfc822\r\n\r\n"
    b"Subject: three\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\n\r\npart 3.1\r\n--b\r\nContent-Type: application/octet-stream\r\n\r\npart 3.2\r\n--b--\r\n"
    b"--a\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n"
    b"--c\r\nContent-Type: image/gif\r\n\r\npart 4.1\r\n"
    b"--c\r\nContent-Type: message/rfc822\r\n\r\n"
    b"Subject: four-two\r\nContent-Type: multipart/mixed; boundary=d\r\n\r\n"
    b"--d\r\n\r\npart 4.2.1\r\n"
    b"--d\r\nContent-Type: multipart/alternative; boundary=e\r\n\r\n"
    b"--e\r\n\r\npart 4.2.2.1\r\n--e\r\nContent-Type: text/richtext\r\n\r\npart 4.2.2.2\r\n--e--\r\n"
    b"--d--\r\n--c--\r\n--a--\r\n"
)


def read(raw: bytes, path: tuple[int, ...], text: SectionText = SectionText.WHOLE) -> bytes | None:
    found = section_bytes(summarise(raw), StoredSection(path, text))
    return None if found is None else found.of(raw)


@pytest.mark.parametrize("number", ["1", "2", "3.1", "3.2", "4.1", "4.2.1", "4.2.2.1", "4.2.2.2"])
def test_leaves_of_the_example(number: str) -> None:
    assert read(EXAMPLE, tuple(map(int, number.split(".")))) == f"part {number}".encode()


def test_whole_header_and_text_of_the_message() -> None:
    header = b"Subject: top\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\n"
    assert read(EXAMPLE, ()) == EXAMPLE
    assert read(EXAMPLE, (), SectionText.HEADER) == header
    assert read(EXAMPLE, (), SectionText.TEXT) == EXAMPLE[len(header) :]
    assert read(EXAMPLE, (), SectionText.MIME) is None


def test_embedded_messages() -> None:
    header = b"Subject: three\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    assert read(EXAMPLE, (3,), SectionText.HEADER) == header
    whole, text = read(EXAMPLE, (3,)), read(EXAMPLE, (3,), SectionText.TEXT)
    assert text is not None
    assert whole == header + text
    four = read(EXAMPLE, (4, 2), SectionText.HEADER)
    assert four is not None
    assert four.startswith(b"Subject: four-two\r\n")


def test_mime_headers() -> None:
    assert read(EXAMPLE, (1,), SectionText.MIME) == b"Content-Type: text/plain\r\n\r\n"
    assert read(EXAMPLE, (3, 1), SectionText.MIME) == b"\r\n"
    assert read(EXAMPLE, (4, 2, 2), SectionText.MIME) == b"Content-Type: multipart/alternative; boundary=e\r\n\r\n"


@pytest.mark.parametrize("path", [(5,), (0,), (1, 1), (2, 1), (3, 3), (4, 3), (4, 1, 1), (4, 2, 2, 3), (-1,)])
def test_paths_that_lead_nowhere(path: tuple[int, ...]) -> None:
    assert part_at(summarise(EXAMPLE), path) is None
    assert read(EXAMPLE, path) is None


@pytest.mark.parametrize("path", [(1,), (4,), (4, 1)])
def test_only_messages_have_header_and_text(path: tuple[int, ...]) -> None:
    assert read(EXAMPLE, path, SectionText.HEADER) is None
    assert read(EXAMPLE, path, SectionText.TEXT) is None


def test_charset() -> None:
    assert charset(summarise(b'Content-Type: text/plain; CHARSET="UTF-8"\r\n\r\n').body) == "UTF-8"
    assert charset(summarise(b"Subject: x\r\n\r\n").body) == ""


def test_every_message_has_a_part_1() -> None:
    raw = b"Subject: x\r\n\r\nbody"
    assert read(raw, (1,)) == b"body"
    assert read(raw, (1,), SectionText.MIME) == b"Subject: x\r\n\r\n"
    assert read(raw, (2,)) is None
    assert read(raw, (1, 1)) is None


def test_a_message_that_is_an_embedded_message() -> None:
    raw = b"Content-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\ninner"
    assert read(raw, (1,)) == b"Subject: in\r\n\r\ninner"
    assert read(raw, (1,), SectionText.HEADER) == b"Subject: in\r\n\r\n"
    assert read(raw, (1, 1)) == b"inner"


def test_embedded_message_without_parts_has_a_part_1() -> None:
    raw = (
        b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: message/rfc822\r\n\r\n"
        b"Subject: in\r\n\r\ninner\r\n--x--\r\n"
    )
    assert read(raw, (1, 1)) == b"inner"
    assert read(raw, (1, 1), SectionText.MIME) == b"Subject: in\r\n\r\n"
    assert read(raw, (1, 2)) is None


@pytest.mark.parametrize(
    ("origin", "length", "expected"),
    [(0, 4, b"body"), (0, 2, b"bo"), (2, 100, b"dy"), (4, 1, b""), (100, 1, b""), (1, 0, b"")],
)
def test_partial(origin: int, length: int, expected: bytes) -> None:
    raw = b"A: b\r\n\r\nbody"
    assert ByteRange(8, 4).partial(origin, length).of(raw) == expected
