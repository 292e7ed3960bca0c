"""The structure of real-world and broken MIME: types, nesting, and the bytes of each part."""

import time

import pytest

from paquebot.message import BodyPart, limits, summarise


def crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


def tree(raw: bytes) -> object:
    """The structure as nested (type/subtype, body bytes or children)."""

    def node(part: BodyPart) -> object:
        name = (part.type + b"/" + part.subtype).decode()
        if part.parts:
            return name, [node(child) for child in part.parts]
        return name, raw[part.body_offset : part.body_offset + part.body_length]

    return node(summarise(raw).body)


def test_plain_message() -> None:
    raw = crlf("Subject: x\n\nhello\nworld\n")
    body = summarise(raw).body
    assert (body.type, body.subtype, body.encoding, body.lines) == (b"TEXT", b"PLAIN", b"7BIT", 2)
    assert (body.header_offset, body.body_offset, body.body_length) == (0, 14, 14)
    assert not body.parameters


def test_multipart_with_preamble_and_epilogue() -> None:
    raw = crlf(
        "Content-Type: multipart/mixed; boundary=x\n\npre\n--x\n\none\n"
        "--x\nContent-Type: TEXT/html\n\n<p>\n--x--\nepi\n"
    )
    assert tree(raw) == ("MULTIPART/MIXED", [("TEXT/PLAIN", b"one"), ("TEXT/HTML", b"<p>")])
    body = summarise(raw).body
    assert body.body_offset + body.body_length == len(raw)


def test_line_end_before_delimiter_belongs_to_it_with_bare_lf_too() -> None:
    raw = b"Content-Type: multipart/mixed; boundary=x\n\n--x\n\none\n\n--x\n\ntwo\n--x--\n"
    assert tree(raw) == ("MULTIPART/MIXED", [("TEXT/PLAIN", b"one\n"), ("TEXT/PLAIN", b"two")])


def test_delimiter_as_first_line_of_the_body_and_last_without_line_end() -> None:
    raw = crlf("Content-Type: multipart/mixed; boundary=x\n\n--x\n\none\n--x--")
    assert tree(raw) == ("MULTIPART/MIXED", [("TEXT/PLAIN", b"one")])


def test_missing_end_boundary() -> None:
    raw = crlf("Content-Type: multipart/mixed; boundary=x\n\n--x\n\none\n--x\n\ntwo, cut")
    assert tree(raw) == ("MULTIPART/MIXED", [("TEXT/PLAIN", b"one"), ("TEXT/PLAIN", b"two, cut")])


def test_missing_boundary_parameter_makes_it_text() -> None:
    raw = crlf("Content-Type: multipart/mixed\n\n--x\n\none\n--x--\n")
    assert tree(raw) == ("TEXT/PLAIN", b"--x\r\n\r\none\r\n--x--\r\n")


@pytest.mark.parametrize("body", ["just text\n", ""])
def test_multipart_without_parts_shows_its_text(body: str) -> None:
    raw = crlf("Content-Type: multipart/mixed; boundary=x\n\n" + body)
    assert tree(raw) == ("MULTIPART/MIXED", [("TEXT/PLAIN", crlf(body))])


def test_multipart_closed_immediately() -> None:
    raw = crlf("Content-Type: multipart/mixed; boundary=x\n\n--x--\nepilogue\n")
    assert tree(raw) == ("MULTIPART/MIXED", [("TEXT/PLAIN", b"")])


def test_outer_delimiter_ends_an_unclosed_inner_multipart() -> None:
    raw = crlf(
        "Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: multipart/mixed; boundary=i\n\n"
        "--i\n\nlost\n--o\n\nafter\n--o--\n"
    )
    inner = ("MULTIPART/MIXED", [("TEXT/PLAIN", b"lost")])
    assert tree(raw) == ("MULTIPART/MIXED", [inner, ("TEXT/PLAIN", b"after")])


def test_boundary_that_is_a_prefix_of_another() -> None:
    raw = crlf(
        "Content-Type: multipart/mixed; boundary=ab\n\n--ab\nContent-Type: multipart/mixed; boundary=abc\n\n"
        "--abc\n\n--abx\n--a\n--abc--\n--ab\n\nlast\n--ab--\n"
    )
    inner = ("MULTIPART/MIXED", [("TEXT/PLAIN", b"--abx\r\n--a")])
    assert tree(raw) == ("MULTIPART/MIXED", [inner, ("TEXT/PLAIN", b"last")])


def test_inner_boundary_that_extends_the_outer_one_by_dashes() -> None:
    raw = crlf('Content-Type: multipart/mixed; boundary="x--"\n\n--x--\n\na\n--x----\nend\n')
    assert tree(raw) == ("MULTIPART/MIXED", [("TEXT/PLAIN", b"a")])


@pytest.mark.parametrize("parameter", ["boundary*0=a; boundary*1=b", "boundary*=us-ascii''%61b"])
def test_boundary_in_rfc_2231_form(parameter: str) -> None:
    raw = crlf(f"Content-Type: multipart/mixed; {parameter}\n\n--ab\n\none\n--ab--\n")
    assert tree(raw) == ("MULTIPART/MIXED", [("TEXT/PLAIN", b"one")])


def test_same_boundary_inside_and_outside() -> None:
    raw = crlf(
        "Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: multipart/mixed; boundary=x\n\n"
        "--x\n\na\n--x--\n--x\n\nb\n--x--\n"
    )
    inner = ("MULTIPART/MIXED", [("TEXT/PLAIN", b"a")])
    assert tree(raw) == ("MULTIPART/MIXED", [inner, ("TEXT/PLAIN", b"b")])


def test_white_space_behind_a_boundary() -> None:
    raw = crlf('Content-Type: multipart/mixed; boundary="a b "\n\n--a b \t\n\none\n--a b-- \n')
    assert tree(raw) == ("MULTIPART/MIXED", [("TEXT/PLAIN", b"one")])


def test_lines_that_only_look_like_delimiters() -> None:
    raw = crlf("Content-Type: multipart/mixed; boundary=x\n\n--x\n\n-- \n--\n--xy\n--x--y\n --x\n--x-\n--x--\n")
    assert tree(raw) == ("MULTIPART/MIXED", [("TEXT/PLAIN", b"-- \r\n--\r\n--xy\r\n--x--y\r\n --x\r\n--x-")])


def test_parts_without_header_or_body() -> None:
    raw = crlf("Content-Type: multipart/mixed; boundary=x\n\n--x\n--x\n\n--x\nA: b\n--x\nA: b\n\n--x--")
    assert tree(raw) == ("MULTIPART/MIXED", [("TEXT/PLAIN", b"")] * 4)
    third = summarise(raw).body.parts[2]
    assert raw[third.header_offset : third.body_offset] == b"A: b"


def test_delimiter_inside_a_part_header() -> None:
    raw = crlf("Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: text/html;\n--x\nX: y\n\nb\n--x--\n")
    assert tree(raw) == ("MULTIPART/MIXED", [("TEXT/HTML", b""), ("TEXT/PLAIN", b"b")])


def test_digest_parts_are_messages_by_default() -> None:
    raw = crlf(
        "Content-Type: multipart/digest; boundary=d\n\n--d\n\nSubject: first\n\none\n"
        "--d\nContent-Type: text/plain\n\ntwo\n--d--\n"
    )
    assert tree(raw) == (
        "MULTIPART/DIGEST",
        [("MESSAGE/RFC822", [("TEXT/PLAIN", b"one")]), ("TEXT/PLAIN", b"two")],
    )
    assert summarise(raw).body.parts[0].envelope.subject == b"first"


def test_embedded_message_counts_its_lines_and_has_an_envelope() -> None:
    raw = crlf(
        "Content-Type: multipart/mixed; boundary=x\n\n--x\n\nsee\n--x\nContent-Type: message/rfc822\n\n"
        "From: a@b.test\nSubject: in\nContent-Type: multipart/mixed; boundary=y\n\n--y\n\ninner\n--y--\n--x--\n"
    )
    part = summarise(raw).body.parts[1]
    assert part.lines == raw.count(b"\n", part.body_offset, part.body_offset + part.body_length) == 7
    assert part.envelope.subject == b"in"
    assert part.envelope.sender[0].mailbox == b"a"
    assert [child.subtype for child in part.parts] == [b"MIXED"]


def test_description_fields() -> None:
    raw = crlf(
        "Content-Type: image/png; NAME=x.png\nContent-ID: <p@x>\nContent-Description: a\n picture\n"
        "Content-Transfer-Encoding: Base64 (yes)\nContent-MD5: Q2hlY2s=\nContent-Language: de, en (English)\n"
        'Content-Location: http://x.test/\n a\nContent-Disposition: Attachment; filename="a b.png"\n\nx\n'
    )
    part = summarise(raw).body
    assert (part.id, part.description, part.encoding, part.md5) == (b"<p@x>", b"a picture", b"BASE64", b"Q2hlY2s=")
    assert list(part.language) == [b"de", b"en"]
    assert part.location == b"http://x.test/a"
    assert part.disposition == b"attachment"
    assert [(p.name, p.value) for p in part.disposition_parameters] == [(b"filename", b"a b.png")]
    assert [(p.name, p.value) for p in part.parameters] == [(b"name", b"x.png")]


def test_absent_description_fields_are_unset() -> None:
    part = summarise(b"Subject: x\r\n\r\n").body
    for name in ("id", "description", "md5", "disposition", "location"):
        assert not part.HasField(name)


@pytest.mark.parametrize("value", ["text", "", "text/", "/plain", "te xt/plain", '"text/html"', "text/\u00e9"])
def test_broken_content_type_is_text_plain(value: str) -> None:
    part = summarise(f"Content-Type: {value}\r\n\r\nx".encode()).body
    assert (part.type, part.subtype) == (b"TEXT", b"PLAIN")


def test_unknown_transfer_encoding_is_reported() -> None:
    assert summarise(b"Content-Transfer-Encoding: x-own (c)\r\n\r\n").body.encoding == b"X-OWN"


def depth(part: BodyPart) -> int:
    return 1 + max((depth(child) for child in part.parts), default=0)


def count(part: BodyPart) -> int:
    return 1 + sum(count(child) for child in part.parts)


@pytest.mark.parametrize(
    "raw",
    [
        "".join(f"Content-Type: multipart/mixed; boundary=b{i}\n\n--b{i}\n" for i in range(500)).encode(),
        b"Content-Type: message/rfc822\n\n" * 500,
    ],
    ids=["multipart", "rfc822"],
)
def test_depth_is_bounded(raw: bytes) -> None:
    body = summarise(raw).body
    assert depth(body) == limits.MAX_DEPTH + 1
    part = body
    while part.parts:
        part = part.parts[0]
    assert (part.type, part.subtype) == (b"APPLICATION", b"OCTET-STREAM")


@pytest.mark.parametrize(
    "field", [b"Content-Disposition: attachment; filename=a.txt", b"Content-Description: a", b"Content-ID: <a>"]
)
def test_a_part_described_by_one_field_alone(field: bytes) -> None:
    raw = b"Content-Type: multipart/mixed; boundary=x\n\n--x\n" + field + b"\n\na\n--x--\n"
    part = summarise(raw).body.parts[0]
    assert (part.disposition, part.description, part.id) in (
        (b"attachment", b"", b""),
        (b"", b"a", b""),
        (b"", b"", b"<a>"),
    )


def test_number_of_parts_is_bounded() -> None:
    raw = b"Content-Type: multipart/mixed; boundary=x\n\n" + b"--x\n\na\n" * 5000 + b"--x--\nepilogue"
    body = summarise(raw).body
    assert count(body) == limits.MAX_PARTS
    assert body.body_offset + body.body_length == len(raw)


def test_number_of_lines_compared_with_boundaries_is_bounded() -> None:
    raw = b"Content-Type: multipart/mixed; boundary=x\n\n--x\n" + b"\n--" * limits.MAX_DASH_LINES + b"\n--x--\nend"
    part = summarise(raw).body.parts[0]
    assert part.body_offset + part.body_length == len(raw)


MEGABYTE = 1024 * 1024


@pytest.mark.slow
@pytest.mark.parametrize(
    "raw",
    [
        b"Content-Type: multipart/mixed; boundary=x\n\n" + b"--x\n" * (MEGABYTE // 2),
        b"Content-Type: multipart/mixed; boundary=x\n\n--x\n" + b"\n--" * MEGABYTE,
        b"a:\n" * MEGABYTE,
        b"\n ".join([b"Subject: x"] * MEGABYTE),
        b"From: " + b"(" * MEGABYTE,
        b"From: " + b"<@" * MEGABYTE,
        b"From: " + b'"' * MEGABYTE,
        b"To: " + b"a," * MEGABYTE,
        b"To: " + b"a@b.test, " * MEGABYTE,
        b"Content-Type: text/plain" + b";" * MEGABYTE + b"=",
        b"Content-Type: text/plain" + b";a=b" * MEGABYTE,
        b"Content-Type: text/plain; a=" + b'"\\' * MEGABYTE,
        b"Content-Type: message/rfc822\n\n" * 50 + b"x\n" * MEGABYTE,
        b"Content-Type: multipart/mixed; boundary=x\n\n" + b"--x\nContent-Type: message/rfc822\n\na:b\n" * 30000,
        b"Content-Type: multipart/mixed; boundary=x\n\n"
        + (b"--x\nContent-ID: <" + b"i" * 500 + b">\nContent-Type: a/b; name=" + b"n" * 500 + b"\n\n") * 1000,
        b"From: a@" + b"b" * limits.ENVELOPE_KEPT,
        b"\r" * MEGABYTE,
        b"\0" * MEGABYTE,
        b":" * MEGABYTE,
    ],
    ids=range(19),
)
def test_hostile_megabytes_take_bounded_time_and_space(raw: bytes) -> None:
    start = time.process_time()
    summary = summarise(raw)
    assert time.process_time() - start < 3
    assert summary.ByteSize() < 256 * 1024
