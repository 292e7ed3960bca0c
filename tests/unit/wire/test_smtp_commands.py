"""Commands and paths by the grammar of RFC 5321."""

import pytest

from paquebot.wire.address import Address, Postmaster
from paquebot.wire.smtp.commands import (
    MAX_HELLO,
    BadCommand,
    BadPath,
    Bdat,
    Command,
    NonAsciiPath,
    NullPath,
    Verb,
    parse_auth,
    parse_bdat,
    parse_command,
    parse_hello,
    parse_mail,
    parse_rcpt,
)
from paquebot.wire.smtp.parameters import BadParameter, Body, UnknownParameter

_ALL = frozenset({"SIZE", "8BITMIME", "SMTPUTF8", "DSN", "AUTH"})


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (b"NOOP", Command(Verb.NOOP, "")),
        (b"noop  anything ", Command(Verb.NOOP, "anything")),
        (b"Mail From:<a@b.example>", Command(Verb.MAIL, "From:<a@b.example>")),
        (b"XFOO bar", Command(Verb.OTHER, "bar")),
        (b"OTHER", Command(Verb.OTHER, "")),
        (b"", Command(Verb.OTHER, "")),
        (b" NOOP", Command(Verb.OTHER, "NOOP")),
        (b"NOOP\tx", Command(Verb.OTHER, "")),
        (b"MAIL FROM:\t<>\t", Command(Verb.MAIL, "FROM:\t<>")),
    ],
)
def test_a_line_is_a_verb_and_its_argument(line: bytes, command: Command) -> None:
    assert parse_command(line) == command


@pytest.mark.parametrize("line", [b"NOOP \xff", b"NOOP a\0b", b"RCPT TO:<a\rb@c.example>", b"NOOP \x7f"])
def test_control_characters_and_bad_utf8_are_refused(line: bytes) -> None:
    with pytest.raises(BadCommand):
        parse_command(line)


@pytest.mark.parametrize(
    ("argument", "path"),
    [
        ("FROM:<>", NullPath()),
        ("from: <a@b.example>", Address("a", "b.example")),
        ("FROM:\t<a@b.example>\t \tSIZE=1\tBODY=8BITMIME", Address("a", "b.example")),
        ('FROM:<"a b>\\" c"@b.example>', Address('a b>" c', "b.example")),
        ("FROM:<a@[192.0.2.1]>", Address("a", "[192.0.2.1]")),
        ("FROM:<@x.example,@[IPv6:2001:db8::1]:a@b.example>", None),
        ("FROM:<@x.example,@y.example:a@b.example>", Address("a", "b.example")),
        ("FROM:<A.b@B.EXAMPLE>", Address("A.b", "b.example")),
    ],
)
def test_reverse_paths(argument: str, path: Address | NullPath | None) -> None:
    if path is None:  # a colon inside the literal ends the route: refused, not misread
        with pytest.raises(BadPath):
            parse_mail(argument, _ALL)
    else:
        assert parse_mail(argument, _ALL).reverse_path == path


@pytest.mark.parametrize(
    "argument",
    [
        "FROM:a@b.example",
        "FROM:<a@b.example",
        "FROM:<a@b.example>SIZE=1",
        "FROM:<a>",
        "FROM:<a@>",
        "FROM:<@b.example>",
        "FROM:<a@b.example..>",
        "FROM:<(c)a@b.example>",
        "FROM:<a@b.example (c)>",
        "FROM:<a b@c.example>",
        "FROM:<a\tb@c.example>",
        'FROM:<"a\tb"@c.example>',
        "FROM:<a@b@c.example>",
        "FROM:<<a@b.example>>",
        'FROM:<"a@b.example>',
        "FROM:<@x.example a@b.example>",
        "FROM:<x.example:a@b.example>",
        "FROM:< >",
    ],
)
def test_bad_reverse_paths(argument: str) -> None:
    with pytest.raises(BadPath):
        parse_mail(argument, _ALL)


@pytest.mark.parametrize("argument", ["", "FROM", "FROM <a@b.example>", "TO:<a@b.example>", "<a@b.example>"])
def test_the_keyword_is_needed(argument: str) -> None:
    with pytest.raises(BadCommand):
        parse_mail(argument, _ALL)


def test_forward_paths() -> None:
    assert parse_rcpt("TO:<postMASTER>", _ALL, smtputf8=False).forward_path == Postmaster()
    assert parse_rcpt("TO:<a@b.example>", _ALL, smtputf8=False).forward_path == Address("a", "b.example")
    with pytest.raises(BadPath):
        parse_rcpt("TO:<>", _ALL, smtputf8=False)


def test_non_ascii_paths_need_smtputf8() -> None:
    with pytest.raises(NonAsciiPath):
        parse_mail("FROM:<é@b.example>", _ALL)
    with pytest.raises(NonAsciiPath):
        parse_rcpt("TO:<a@bücher.example>", _ALL, smtputf8=False)
    mail = parse_mail("FROM:<é@bücher.example> SMTPUTF8", _ALL)
    assert mail.reverse_path == Address("é", "xn--bcher-kva.example")


def test_parameters_follow_the_path() -> None:
    mail = parse_mail("FROM:<a@b.example> SIZE=10  BODY=8bitmime", _ALL)
    assert (mail.parameters.size, mail.parameters.body) == (10, Body.EIGHT_BIT_MIME)
    with pytest.raises(UnknownParameter):
        parse_mail("FROM:<a@b.example> SIZE=10", frozenset())
    with pytest.raises(BadParameter):
        parse_mail("FROM:<a@b.example> SIZE=ten", _ALL)


@pytest.mark.parametrize(
    ("argument", "bdat"), [("0 LAST", Bdat(0, True)), ("10", Bdat(10, False)), ("7 last", Bdat(7, True))]
)
def test_bdat(argument: str, bdat: Bdat) -> None:
    assert parse_bdat(argument) == bdat


@pytest.mark.parametrize("argument", ["", "-1", "+1", "1.5", "LAST", "1 LAST 2", "1 FIRST", "٣", "1" * 21, "0x10"])
def test_bad_bdat(argument: str) -> None:
    with pytest.raises(BadCommand):
        parse_bdat(argument)


def test_auth() -> None:
    assert parse_auth("plain") == ("PLAIN", None)
    assert parse_auth("LOGIN AbC=") == ("LOGIN", b"AbC=")
    assert parse_auth("PLAIN =") == ("PLAIN", b"=")
    for argument in ("", "PLAIN a b", "PLAIN  a"):
        with pytest.raises(BadCommand):
            parse_auth(argument)


@pytest.mark.parametrize(
    "name",
    [
        "client.example",
        "[192.0.2.1]",
        "[IPv6:2001:db8::1]",
        "[IPv6:fe80::1%en0]",
        "my_host",
        "MÜLLER-PC",
        "Ann's-MacBook",
        "PC(2)",
        "a,b",
        "host/1",
        "two words",
        "<script>",
        "-",
        ".",
        '""',
        "[]",
        "\\\\HOST",
        "é\u202e",
    ],
)
def test_any_name_is_a_hello(name: str) -> None:
    assert parse_hello(name) == name


def test_a_hello_has_a_name_and_it_is_bounded() -> None:
    assert parse_hello("x" * 3000) == "x" * MAX_HELLO
    with pytest.raises(BadCommand):
        parse_hello("")


def test_the_name_of_a_client_may_be_in_another_character_set() -> None:
    assert parse_command(b"EHLO M\xdcLLER-PC") == Command(Verb.EHLO, "M\ufffdLLER-PC")
    assert parse_command(b"helo \xff") == Command(Verb.HELO, "\ufffd")
    with pytest.raises(BadCommand):
        parse_command(b"EHLO a\0b")


@pytest.mark.parametrize("argument", ["FROM:< a@b.example>", "FROM:<a@b.example >", "FROM: <\ta@b.example > "])
def test_space_around_the_address_is_ignored(argument: str) -> None:
    assert str(parse_mail(argument, ()).reverse_path) == "a@b.example"
