"""Fuzz the SMTP grammar: on any bytes of a peer only its own errors are raised, and what is read prints back."""

from paquebot.wire.sasl import BadSasl, decode_response, parse_plain, print_plain
from paquebot.wire.smtp.commands import (
    BadCommand,
    NullPath,
    Verb,
    parse_auth,
    parse_bdat,
    parse_command,
    parse_hello,
    parse_mail,
    parse_rcpt,
)
from paquebot.wire.smtp.content import BadContent, ChunkCollector, DataDecoder
from paquebot.wire.smtp.parameters import BadParameter
from paquebot.wire.smtp.replies import BadReply, join_reply, parse_reply_line
from paquebot.wire.transparency import add_transparency
from tests.fuzz.target import Target

_EXTENSIONS = frozenset({"SIZE", "8BITMIME", "SMTPUTF8", "DSN", "AUTH"})
_WORDS = (
    b"\r\n", b"\r", b"\n", b"\0", b".", b"\r\n.\r\n", b"\n.\n", b"\r\n..\r\n", b" ", b"<", b">", b"<>", b'"', b"\\",
    b"@", b":", b",", b";", b"=", b"+", b"+2B", b"\\x{E9}", b"[", b"]", b"[IPv6:::1]", b"\xc3\xa9", b"\xff", b"(c)",
    b"MAIL FROM:", b"RCPT TO:", b" SIZE=", b" BODY=8BITMIME", b" SMTPUTF8", b" RET=HDRS", b" ENVID=", b" AUTH=<>",
    b" NOTIFY=SUCCESS", b" ORCPT=rfc822;", b" ORCPT=utf-8;", b"BDAT ", b"LAST", b"99999999999999999999", b"250-",
    b"550 5.1.1 ", b"xn--", b"\xe2\x80\xa8", b"AUTH PLAIN ", b"postmaster",
)  # fmt: skip


def check(raw: bytes) -> None:
    """Read the bytes as a client's lines, as content, as a server's reply, and as a SASL response."""
    for line in raw.split(b"\r\n"):
        check_line(line)
    check_data(raw)
    check_chunks(raw)
    check_reply(raw)
    check_sasl(raw)


def check_line(line: bytes) -> None:
    try:
        command = parse_command(line)
    except BadCommand:
        return
    assert not any((char < " " and char != "\t") or char == "\x7f" for char in command.argument)
    match command.verb:
        case Verb.MAIL:
            check_mail(command.argument)
        case Verb.RCPT:
            check_rcpt(command.argument)
        case _:
            check_quietly(command.argument)


def check_mail(argument: str) -> None:
    """A path and its parameters print to the same path and parameters."""
    try:
        mail = parse_mail(argument, _EXTENSIONS)
    except (BadCommand, BadParameter):
        return
    assert parse_mail(f"FROM:<{mail.reverse_path}>{mail.parameters}", _EXTENSIONS) == mail
    if not isinstance(mail.reverse_path, NullPath):
        assert mail.parameters.smtputf8 or not mail.reverse_path.needs_smtputf8


def check_rcpt(argument: str) -> None:
    for smtputf8 in (False, True):
        try:
            rcpt = parse_rcpt(argument, _EXTENSIONS, smtputf8=smtputf8)
        except (BadCommand, BadParameter):
            continue
        written = f"TO:<{rcpt.forward_path}>{rcpt.parameters}"
        assert parse_rcpt(written, _EXTENSIONS, smtputf8=smtputf8) == rcpt


def check_quietly(argument: str) -> None:
    """The small grammars refuse with their own error only."""
    for read in (parse_bdat, parse_auth, parse_hello):
        try:
            read(argument)
        except BadCommand:
            continue


def check_data(raw: bytes) -> None:
    """The end is where CRLF.CRLF first is, however the bytes come; the content survives another hop."""
    whole, by_three = DataDecoder(), DataDecoder()
    rest = whole.feed(raw)
    end = (b"\r\n" + raw).find(b"\r\n.\r\n")
    assert (rest is None) == (end < 0)
    for at in range(0, len(raw), 3):
        after = by_three.feed(raw[at : at + 3])
        if after is not None:
            assert rest == after + raw[at + 3 :]
            break
    if rest is None:
        return
    try:
        content = whole.content()
    except BadContent:
        return
    assert content == by_three.content()
    assert content.count(b"\r\n") == content.count(b"\r") == content.count(b"\n")
    again = DataDecoder()
    assert again.feed(b"".join(add_transparency([content]))) == b""
    assert again.content(max_line=10**6) == content


def check_chunks(raw: bytes) -> None:
    collector = ChunkCollector()
    collector.feed(raw)
    try:
        content = collector.content()
    except BadContent:
        return
    assert content.startswith(raw)
    again = DataDecoder()
    assert again.feed(b"".join(add_transparency([content]))) == b""
    assert again.content() == content


def check_reply(raw: bytes) -> None:
    try:
        reply = join_reply([parse_reply_line(line) for line in raw.splitlines()])
    except BadReply:
        return
    assert 200 <= reply.code <= 599
    assert "\n" not in str(reply)


def check_sasl(raw: bytes) -> None:
    try:
        credentials = parse_plain(raw)
    except BadSasl:
        pass
    else:
        assert parse_plain(decode_response(print_plain(credentials))) == credentials
    try:
        decode_response(raw)
    except BadSasl as error:
        assert raw.decode("latin-1") not in str(error) or len(raw) < 10  # noqa: PT017


TARGET = Target("smtp", check, _WORDS)
