"""POP3 commands: examples of the RFCs, and refusals with their positions."""

from __future__ import annotations

import pytest

from paquebot.wire import pop3
from paquebot.wire.cursor import GrammarError
from paquebot.wire.pop3 import Code, err, multi_line, ok, parse_command


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (b"USER mrose", pop3.User(b"mrose")),
        (b"pass  two spaces ", pop3.Pass(b" two spaces ")),
        (b"AUTH PLAIN", pop3.Auth("PLAIN", None)),
        (b"auth plain dGVzdAB0ZXN0AHRlc3Q=", pop3.Auth("PLAIN", b"dGVzdAB0ZXN0AHRlc3Q=")),
        (b"AUTH PLAIN =", pop3.Auth("PLAIN", b"=")),
        (b"STLS", pop3.Stls()),
        (b"CAPA", pop3.Capa()),
        (b"STAT", pop3.Stat()),
        (b"LIST", pop3.List(None)),
        (b"LIST ", pop3.List(None)),
        (b"LIST 2", pop3.List(2)),
        (b"RETR 1", pop3.Retr(1)),
        (b"DELE 1", pop3.Dele(1)),
        (b"NOOP", pop3.Noop()),
        (b"RSET", pop3.Rset()),
        (b"TOP 1 10", pop3.Top(1, 10)),
        (b"UIDL", pop3.Uidl(None)),
        (b"UIDL 2", pop3.Uidl(2)),
        (b"Quit", pop3.Quit()),
        (b"APOP mrose c4c9334bac560ecc979e58001b3e22fb", pop3.NotOffered("APOP")),
        (b"utf8", pop3.NotOffered("UTF8")),
        (b"LANG *", pop3.NotOffered("LANG")),
        (b"XTND XMIT", pop3.Unknown()),
        (b"AUTH", pop3.Auth(None, None)),
        (b"AUTH  PLAIN  =", pop3.Auth("PLAIN", b"=")),
        (b"USER  mrose \t", pop3.User(b"mrose")),
        (b"  stat\t", pop3.Stat()),
        (b"LIST 1 ", pop3.List(1)),
        (b"LIST   0001", pop3.List(1)),
        (b"LIST\t1", pop3.List(1)),
        (b"RETR  2  ", pop3.Retr(2)),
        (b"TOP  1   000", pop3.Top(1, 0)),
        (b"TOP 1 99999999999999999999999999", pop3.Top(1, 2**63 - 1)),
        (b"DELE 4294967296", pop3.Dele(4294967296)),
        (b"RETR " + b"9" * 4000, pop3.Retr(2**63 - 1)),
    ],
)
def test_commands(line: bytes, command: pop3.Command) -> None:
    assert parse_command(line) == command


@pytest.mark.parametrize(
    ("line", "position"),
    [(b"", 0), (b"USER", 4), (b"USER ", 5), (b"PASS ", 5), (b"RETR x", 5), (b"LIST 1 2", 6), (b"STAT now", 4),
     (b"TOP 1", 5), (b"TOP 1 -1", 6), (b"AUTH ", 5), (b"DELE 1x", 6), (b"AUTH " + b"A" * 21, 5)],
)  # fmt: skip
def test_refused_with_the_position(line: bytes, position: int) -> None:
    with pytest.raises(GrammarError) as caught:
        parse_command(line)
    assert caught.value.position == position


def test_passwords_are_not_shown() -> None:
    assert "secret" not in repr(parse_command(b"PASS secret"))
    assert "c2VjcmV0" not in repr(parse_command(b"AUTH PLAIN c2VjcmV0"))


def test_responses() -> None:
    assert ok() == b"+OK\r\n"
    assert err("x", Code.IN_USE) == b"-ERR [IN-USE] x\r\n"
    assert multi_line("x", ["a", "b"]) == b"+OK x\r\na\r\nb\r\n.\r\n"
    with pytest.raises(AssertionError):
        ok("x" * 600)
    with pytest.raises(AssertionError):
        ok("a\r\n+OK forged")
