"""A message converted for a host with fewer extensions: it is valid there, with the same content (by the stdlib)."""

from __future__ import annotations

import contextlib
import email
import email.header
import email.policy
import re
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.message import ConversionRules, Signatures, Unconvertible, conversion, pieces, signatures
from paquebot.message.conversion.transfer_encoding import BLOCK

SEVEN_BIT = ConversionRules(seven_bit=True)
SHORT_LINES = ConversionRules()
GREETING = "Viele schöne Grüße von uns allen aus Köln"


def crlf(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return data.replace(b"\n", b"\r\n")


def rewritten(raw: bytes, rules: ConversionRules) -> bytes:
    """Return the message after the edits, and check the rules for every conversion."""
    parts = list(pieces(raw, conversion(raw, rules)))
    assert max(map(len, parts)) < 4 * BLOCK
    assert not any(part.endswith(b"\r") for part in parts)
    found = b"".join(parts)
    assert max(len(line) for line in found.split(b"\r\n")) <= rules.line
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", found)
    assert found.isascii() or not rules.seven_bit
    return found


def leaves(raw: bytes) -> list[tuple[str, str, bytes]]:
    """Type, charset and decoded content of each leaf, as the standard library reads them."""
    message = email.message_from_bytes(raw, policy=email.policy.compat32)
    return [_leaf(part) for part in message.walk() if not part.is_multipart()]


def _leaf(part: Message) -> tuple[str, str, bytes]:
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return part.get_content_type(), part.get_content_charset("us-ascii"), content


def same_leaves(raw: bytes, found: bytes) -> None:
    one, other = leaves(raw), leaves(found)
    assert [leaf[:2] for leaf in one] == [leaf[:2] for leaf in other]
    for (*_, before), (*_, after) in zip(one, other, strict=True):
        assert after.rstrip(b"\r\n") == before.rstrip(b"\r\n")


def text_of(raw: bytes, name: str) -> str:
    value = email.message_from_bytes(raw)[name]
    return str(email.header.make_header(email.header.decode_header(re.sub(r"\r?\n", "", value))))


# --- bodies ---


def test_text_without_a_charset_becomes_utf_8() -> None:
    raw = crlf(f"Subject: x\n\n{GREETING}\n")
    found = rewritten(raw, SEVEN_BIT)
    assert leaves(found) == [("text/plain", "utf-8", crlf(GREETING + "\n"))]
    assert b"\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n" in found
    assert found.startswith(b"Subject: x\r\n")


def test_bytes_that_are_not_utf_8_have_an_unknown_charset() -> None:  # RFC 1428
    found = rewritten(crlf(b"Subject: x\n\nGr\xfc\xdfe\n"), SEVEN_BIT)
    assert leaves(found) == [("text/plain", "unknown-8bit", b"Gr\xfc\xdfe\r\n")]


@pytest.mark.parametrize("label", ["8bit", "8BIT (really)", "binary", "7bit", "utf-8", ""])
def test_the_charset_stays_and_the_label_is_replaced(label: str) -> None:
    encoding = f"Content-Transfer-Encoding: {label}\n" if label else ""
    raw = crlf(f"MIME-Version: 1.0\nContent-Type: text/html; charset=iso-8859-1\n{encoding}X-Last: y\n\n")
    raw += "<p>Grüße\r\n".encode("latin-1")
    found = rewritten(raw, SEVEN_BIT)
    assert leaves(found) == [("text/html", "iso-8859-1", "<p>Grüße\r\n".encode("latin-1"))]
    assert email.message_from_bytes(found).get_all("Content-Transfer-Encoding") == ["quoted-printable"]
    assert found.count(b"MIME-Version") == 1


def test_text_of_another_script_becomes_base64() -> None:
    raw = crlf("MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n" + "Добрый день, товарищи\n" * 300)
    found = rewritten(raw, SEVEN_BIT)
    same_leaves(raw, found)
    assert b"Content-Transfer-Encoding: base64" in found
    assert len(found) < 1.5 * len(raw)


NESTED = crlf(f"""From: a@example.org
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=outer
Content-Transfer-Encoding: 8bit

Preamble: für wen?
--outer
Content-Type: multipart/alternative; boundary="in ner"
Content-Transfer-Encoding: binary

--in ner

{GREETING}
--in ner
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: 8bit

<p>{GREETING}
--in ner--
--outer
Content-Type: image/x-raw
Content-Transfer-Encoding: binary
Content-Disposition: attachment; filename="Köln.raw"

éé\x01\x02\x00
--outer
Content-Type: application/pdf
Content-Transfer-Encoding: base64

JVBERi0xLjQK
--outer
Content-Type: message/rfc822
Content-Transfer-Encoding: 8bit

Subject: {GREETING}
From: Jürgen <j@example.org>

{GREETING}

--outer--
Epilog: Schluß
""")


def test_each_part_is_converted_separately() -> None:
    found = rewritten(NESTED, SEVEN_BIT)
    one, other = leaves(NESTED), leaves(found)
    # A part without a type is text/plain in US-ASCII (RFC 2045 §5.2). Its real charset is unknown, except for a
    # whole message.
    assert [leaf[0] for leaf in one] == [leaf[0] for leaf in other]
    assert [leaf[2].rstrip(b"\r\n") for leaf in one] == [leaf[2].rstrip(b"\r\n") for leaf in other]
    message = email.message_from_bytes(found)
    labels = [part["Content-Transfer-Encoding"] for part in message.walk()]
    printable = "quoted-printable"
    assert labels == ["7bit", "7bit", printable, printable, "base64", "base64", "7bit", printable]
    assert b"JVBERi0xLjQK\r\n" in found, "a valid part is unchanged"
    assert [part.get_filename() for part in message.walk()][4] == "Köln.raw"
    [inside] = [part for part in message.walk() if part["Subject"]]
    assert text_of(inside.as_bytes(), "Subject") == GREETING
    assert inside["Content-Type"] == "text/plain; charset=utf-8"


def test_a_message_that_needs_no_conversion_is_unchanged() -> None:
    raw = crlf("Subject: x\n\n" + "y" * 998 + "\n")
    assert conversion(raw, SEVEN_BIT) == []
    assert b"".join(pieces(raw, [])) == raw


@pytest.mark.parametrize("length", [999, 1500, 3 * BLOCK])
@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/json", ""])
@pytest.mark.parametrize("line", ["a b ", "ä", "x", "=3D", "-- "])
def test_long_lines_of_a_body(length: int, kind: str, line: str) -> None:
    header = f"Content-Type: {kind}\n" if kind else ""
    raw = crlf(f"MIME-Version: 1.0\n{header}\n" + (line * length)[:length] + "\nlast\n")
    found = rewritten(raw, SHORT_LINES)
    assert leaves(found)[0][2] == leaves(raw)[0][2]
    assert max(len(part) for part in found.partition(b"\r\n\r\n")[2].split(b"\r\n")) <= 78


@pytest.mark.parametrize("rules", [SEVEN_BIT, SHORT_LINES])
def test_quoted_printable_that_was_too_wide(rules: ConversionRules) -> None:
    header = "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: Quoted-Printable\n"
    raw = crlf(f"MIME-Version: 1.0\n{header}\n")
    raw += ("a=3Db ü" * 20_000).encode() + b"=\r\nend =20\r\n"
    found = rewritten(raw, rules)
    same_leaves(raw, found)
    assert email.message_from_bytes(found)["Content-Transfer-Encoding"] == "Quoted-Printable"


def test_base64_in_one_line() -> None:
    raw = crlf("MIME-Version: 1.0\nContent-Type: image/png\nContent-Transfer-Encoding: base64\n\n")
    raw += b"AbC1" * 50_000 + b"\xa0\xa0AA==\r\n"
    found = rewritten(raw, SEVEN_BIT)
    same_leaves(raw, found)
    assert max(len(line) for line in found.split(b"\r\n")) == 76


def test_a_soft_line_break_makes_no_delimiter() -> None:  # RFC 2046 §5.1.1
    header = crlf("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\n\n")
    for before in (*range(60, 90), BLOCK - 2, BLOCK - 1, BLOCK):
        raw = header + b"x" * before + b"--b--" * 400 + crlf("\n--b--\n")
        same_leaves(raw, rewritten(raw, SHORT_LINES))


def test_a_message_signed_end_to_end_is_unchanged_or_not_sent() -> None:  # RFC 8551 §3.1.3
    signed = crlf("""MIME-Version: 1.0
Content-Type: multipart/signed; boundary=s; protocol="application/pgp-signature"; micalg=pgp-sha256

--s
Content-Type: text/plain; charset=utf-8

%s
--s
Content-Type: application/pgp-signature

-----BEGIN PGP SIGNATURE-----
--s--
""")
    for rules, text in ((SEVEN_BIT, GREETING), (SHORT_LINES, "x" * 999)):
        with pytest.raises(Unconvertible, match="signed"):
            conversion(signed % text.encode(), rules)
    inner = signed % b"Gr=C3=BC=C3=9Fe"
    mixed = crlf("Content-Type: multipart/mixed; boundary=o\n\n--o\n\nä\n--o\n") + inner + crlf("--o--\n")
    found = rewritten(mixed, SEVEN_BIT)
    assert inner in found


def test_too_many_or_too_deep_parts_are_not_converted() -> None:
    deep = "".join(f"Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n" for n in range(60))
    assert conversion(crlf(f"{deep}\nplain\n"), SEVEN_BIT) == []
    with pytest.raises(Unconvertible, match="deeply"):
        conversion(crlf(f"{deep}\n{GREETING}\n"), SEVEN_BIT)
    many = crlf("Content-Type: multipart/mixed; boundary=b\n\n" + "--b\n\nä\n" * 60_000)
    with pytest.raises(Unconvertible, match="too many"):
        conversion(many, SEVEN_BIT)


# --- header fields ---


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Subject", "plain Grüße and plain"),
        ("Subject", "Grüße aus Köln"),
        ("Subject", "ü" * 300),
        ("Subject", "日本語の件名" * 40),
        ("X-Mailer", "Ä b Ö"),
        ("Keywords", "eins, zwölf"),
    ],
)
def test_unstructured_text(name: str, value: str) -> None:
    found = rewritten(crlf(f"{name}: {value}\n\n"), SEVEN_BIT)
    assert text_of(found, name) == value
    assert all(len(word) <= 75 for word in found.split())
    assert found.startswith(f"{name}: ".encode())


def test_white_space_beside_an_encoded_word_stays() -> None:  # RFC 2047 §6.2
    found = rewritten(crlf("Subject:=?utf-8?Q?a?= ü =?utf-8?Q?b?= c\n d ö\n\n"), SEVEN_BIT)
    assert text_of(found, "Subject") == "a ü b c d ö"


def test_a_subject_of_an_unknown_charset() -> None:
    found = rewritten(crlf(b"Subject: Gr\xfc\xdfe und Text\n\n"), SEVEN_BIT)
    assert found == b"Subject: =?unknown-8bit?Q?Gr=FC=DFe?= und Text\r\n\r\n"
    assert all(len(word) <= 75 for word in rewritten(crlf(b"Subject: " + b"\xfc" * 500 + b"\n\n"), SEVEN_BIT).split())


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("Jürgen Müller <j@example.org>, b@example.org", ["Jürgen Müller", ""]),
        ('"Müller, Jürgen" <j@example.org>', ["Müller, Jürgen"]),
        ('"J. \\"Jo\\" Müller" <j@example.org>', ['J. "Jo" Müller']),
        ("j@example.org (Jürgen), k@example.org", ["Jürgen", ""]),
        ("Jürgen<j@example.org>", ["Jürgen"]),
    ],
)
def test_names_of_addresses(value: str, names: list[str]) -> None:
    found = rewritten(crlf(f"To: {value}\n\n"), SEVEN_BIT)
    pairs = email.utils.getaddresses([email.message_from_bytes(found)["To"].replace("\r\n", "")])
    assert [str(email.header.make_header(email.header.decode_header(name))) for name, _ in pairs] == names
    assert [address.partition("@")[2] for _, address in pairs] == ["example.org"] * len(names)


def test_a_quote_that_is_lost_hides_no_address() -> None:
    found = rewritten(crlf('From: "Müller <m@example.org>\n\n'), SEVEN_BIT)
    assert b"<m@example.org>" in found


def test_domains_become_a_labels() -> None:
    strict = ConversionRules(seven_bit=True, strict=True)
    found = rewritten(crlf("To: x@münchen.example, Y <y@münchen.example>\n\n"), strict)
    assert found == b"To: x@xn--mnchen-3ya.example, Y <y@xn--mnchen-3ya.example>\r\n\r\n"
    with pytest.raises(Unconvertible, match="UTF-8 addresses"):
        conversion(crlf("To: jürgen@example.org\n\n"), strict)
    assert rewritten(crlf("To: <jürgen@example.org>\n\n"), SEVEN_BIT) == b"To: <j?rgen@example.org>\r\n\r\n"


def test_parameters() -> None:  # RFC 2231
    name = "Ärger mit Ümläuten in einem wirklich sehr langen Dateinamen, der kein Ende nimmt.pdf"
    disposition = "Content-Disposition: attachment;\n filename=ü.pdf\n"
    raw = crlf(f'Content-Type: application/pdf; name="{name}"; x=y\n{disposition}\n')
    found = email.message_from_bytes(rewritten(raw, SEVEN_BIT))
    assert email.utils.collapse_rfc2231_value(found.get_param("name") or "") == name
    assert found.get_param("x") == "y"
    assert found.get_filename() == "ü.pdf"


@pytest.mark.parametrize(
    "field", ['Content-Type: text/html; a="ü', 'Content-Disposition: x; a="ü\\', 'To: "ü \\"', 'To: \\"ü']
)
def test_a_quote_that_is_lost_does_not_swallow_the_header(field: str) -> None:
    assert rewritten(crlf(f"{field}\n\nbody\n"), SEVEN_BIT).endswith(b"\r\n\r\nbody\r\n")


def test_invalid_quoted_printable() -> None:
    raw = crlf("Content-Transfer-Encoding: quoted-printable\n\n= a =C3=B6 =x ü=\n")
    assert rewritten(raw, SEVEN_BIT).endswith(b"\r\n\r\n=3D a =C3=B6 =3Dx =C3=BC=\r\n")


def test_a_multipart_without_parts_is_sent_as_the_text_that_readers_show() -> None:
    raw = crlf(f"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=gone\n\n{GREETING}\n")
    assert leaves(rewritten(raw, SEVEN_BIT)) == [("text/plain", "utf-8", crlf(GREETING + "\n"))]


def test_places_without_encoded_words() -> None:
    raw = crlf("Received: from mü\n\tby x\nMessage-ID: <ä@x>\nno field ö\n\n")
    assert rewritten(raw, SEVEN_BIT) == b"Received: from m?\r\n\tby x\r\nMessage-ID: <?@x>\r\nno field ?\r\n\r\n"


# --- folding ---


def test_a_long_field_is_folded_at_white_space() -> None:
    value = " ".join(f"<{n}@mail.example.org>" for n in range(300))
    raw = crlf(f"References: {value}\nSubject: x\n\nbody\n")
    for rules in (SHORT_LINES, ConversionRules(gentle=True)):
        found = rewritten(raw, rules)
        assert found.replace(b"\r\n <", b" <") == raw, "unfolding restores it (RFC 5322 §2.2.3)"


def test_no_line_of_white_space_alone() -> None:  # RFC 5322 §3.2.2
    for blanks in (1, 2, 500, 990):
        raw = crlf("X-A: " + "a" * 600 + " " * blanks + "b" * 600 + " " * 900 + "\n\n")
        found = rewritten(raw, SHORT_LINES)
        assert all(line.strip() for line in found.split(b"\r\n")[:-2])


@pytest.mark.parametrize(
    ("value", "at"),
    [("".join(f"<{n}@example.org>" for n in range(200)), b">\r\n <"), (",".join(["a@b.example"] * 300), b",\r\n a")],
)
def test_a_long_field_without_white_space(value: str, at: bytes) -> None:
    raw = crlf(f"References:{value}\n\n")
    found = rewritten(raw, SHORT_LINES)
    assert found.replace(b"\r\n ", b"") == raw
    assert all(found[hit.start() - 1 : hit.end() + 1] == at for hit in re.finditer(rb"\r\n ", found))
    with pytest.raises(Unconvertible, match="signed"):
        conversion(raw, ConversionRules(gentle=True))


def test_a_long_word_is_cut_but_not_inside_a_character() -> None:
    raw = crlf("X-Blob:" + "€" * 2000 + "\n\n")
    found = rewritten(raw, SHORT_LINES)
    assert found.replace(b"\r\n ", b"") == raw
    found.decode()


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("Subject: x", Signatures()),
        ("DKIM-Signature: v=1; c=relaxed/simple; b=x", Signatures(present=True)),
        ("DKIM-Signature: v=1;\n c = relaxed; b=x", Signatures(present=True)),
        ("DKIM-Signature: v=1; c=simple/relaxed", Signatures(present=True, simple_header=True)),
        ("DKIM-Signature: v=1; b=x", Signatures(present=True, simple_header=True)),
    ],
)
def test_signatures_of_dkim(field: str, expected: Signatures) -> None:  # RFC 6376 §3.4, §3.5
    assert signatures(crlf(f"{field}\n\nDKIM-Signature: no\n")) == expected


# --- any bytes ---

WORDS = st.sampled_from(
    [
        *(
            b"\r\n",
            b"\r\n\r\n",
            b"--b",
            b"--b--",
            b"--c\r\n",
            b"\xc3\xbc",
            b"\xff",
            b"\0",
            b" ",
            b"x" * 1200,
            b"-" * 999,
        ),
        *(b"Content-Type: multipart/mixed; boundary=b\r\n", b"Content-Type: multipart/signed; boundary=c\r\n"),
        *(b"Content-Type: message/rfc822\r\n", b"Content-Type: text/plain; charset=\xff\r\n", b"Subject: ", b"From: "),
        *(b"Content-Transfer-Encoding: base64\r\n", b"Content-Transfer-Encoding: quoted-printable\r\n", b"=", b"=?"),
        *(b'"', b"\\", b"(", b"<", b"@", b';name="', b",", b":", b"To: "),
    ]
)


@given(st.lists(WORDS, max_size=40), st.tuples(st.booleans(), st.just(998), st.booleans(), st.booleans()))
def test_any_bytes_are_converted_or_refused(words: list[bytes], rules: tuple[bool, int, bool, bool]) -> None:
    raw = re.sub(rb"\r\n|\r|\n", b"\r\n", b"".join(words))
    with contextlib.suppress(Unconvertible):
        rewritten(raw, ConversionRules(*rules))


def test_text_without_a_header_is_never_damaged() -> None:
    """Without an empty line a message is all header (RFC 5322 §3.5), but its text need not obey the rules of fields."""
    with pytest.raises(Unconvertible):
        rewritten(crlf("Subject: x\nGrüße aus Köln\n"), SEVEN_BIT)


def test_a_report_stays_readable_without_decoding() -> None:
    fields = "Final-Recipient: rfc822; jörg@b.example\nStatus: 5.1.1\nDiagnostic-Code: x; " + "äöüß" * 3000 + "\n"
    found = rewritten(crlf("Content-Type: message/delivery-status\n\n" + fields), SEVEN_BIT)
    assert b"Content-Transfer-Encoding: quoted-printable\r\n" in found
    assert b"\r\nStatus: 5.1.1\r\n" in found


def test_an_equals_sign_before_an_escaped_byte() -> None:
    head = "Content-Transfer-Encoding: quoted-printable\n\n"
    assert rewritten(crlf(head + "a=ä=3D=\n"), SEVEN_BIT).endswith(b"a=3D=C3=A4=3D=\r\n")


def test_the_text_of_a_multipart_without_parts_can_still_be_read() -> None:
    head = "Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: 8bit\nSubject: x\n\n"
    found = email.message_from_bytes(rewritten(crlf(head + "Viele Grüße\n"), SEVEN_BIT))
    assert (found.get_content_type(), found.get_content_charset()) == ("text/plain", "utf-8")
    assert found.get_payload(decode=True) == "Viele Grüße\r\n".encode()
    assert conversion(crlf(head + "Hello\n").replace(b"8bit", b"7bit"), SEVEN_BIT) == []


def test_an_inner_multipart_without_parts_ends_where_the_outer_continues() -> None:
    inner = "--o\nContent-Type: multipart/mixed; boundary=b\n\nGrüße\n--o\n\nlast\n--o--\n"
    found = email.message_from_bytes(
        rewritten(crlf("Content-Type: multipart/mixed; boundary=o\n\n" + inner), SEVEN_BIT)
    )
    assert [part.get_payload(decode=True) for part in found.walk() if not part.is_multipart()] == [
        "Grüße".encode(),
        b"last",
    ]


def test_a_message_whose_parts_cannot_all_be_found_is_not_converted() -> None:
    dashes = "-- ä\n" * 400_001
    raw = crlf(f"Content-Type: multipart/mixed; boundary=b\n\n--b\n\n{dashes}\n--b\n\nlast\n--b--\n")
    with pytest.raises(Unconvertible):
        conversion(raw, SEVEN_BIT)
