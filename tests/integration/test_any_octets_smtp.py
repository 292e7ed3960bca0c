"""For any bytes in any argument, a healthy platform never replies with a temporary failure: each command succeeds or
fails permanently, the server logs no unexpected error, and it understands the next command."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import logging
import socket
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paquebot.smtp_ingress import metrics
from paquebot.smtp_ingress.state import Role
from paquebot.wire.sasl import Credentials, print_plain
from paquebot.wire.smtp.commands import BadCommand, parse_bdat
from tests.dialogues.dialogue import client_tls
from tests.support.smtp_world import PASSWORD, SmtpStack

_LOGIN = b"AUTH PLAIN " + print_plain(Credentials("alice@paquebot.test", PASSWORD))

_PIECES = st.sampled_from(
    [
        *(b"\0 \x01 \x7f \xc2\x80 \xff \xed\xa0\x80 \xef\xbf\xbe \xf0\x9f\x92\xa9 \xc3\xbc \xef\xbc\xa0").split(),
        *(b'< > @ " \\ ( ) , ; : [ ] [IPv6:::1] [127.0.0.1] . - _ + = % * ? / ! xn-- xn--ls8h ').split(),
        *(b"alice bob paquebot.test team nobody elsewhere.example postmaster \r \t").split(),
        b" ",
        b"a" * 70,
        b"b." * 40,
        b"\xf0\x9f\x92\xa9" * 60,
        b"x" * 1000,
        b"y" * 5000,
    ]
)
_BYTES = st.one_of(
    st.binary(max_size=40),
    st.lists(_PIECES, max_size=8).map(b"".join),
    st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass")),
).map(lambda data: data.replace(b"\n", b""))
_ADDRESSES = st.one_of(
    _BYTES,
    st.tuples(_BYTES, _BYTES).map(b"@".join),
    _BYTES.map(lambda data: data + b"@paquebot.test"),
    _BYTES.map(lambda data: b"alice+" + data + b"@paquebot.test"),
    _BYTES.map(lambda data: b'"' + data + b'"@elsewhere.example'),
    _BYTES.map(lambda data: b"x@" + data + b".example"),
    st.sampled_from([b"", b"alice@paquebot.test", b"bob@paquebot.test", b"Postmaster", b"x@elsewhere.example"]),
)
_KEYWORDS = st.sampled_from(b"SIZE BODY SMTPUTF8 RET ENVID AUTH NOTIFY ORCPT X".split())
_VALUES = st.one_of(
    _BYTES,
    st.sampled_from(b"0 1 99999999999999999999 8BITMIME 7BIT FULL NEVER SUCCESS,DELAY <> +00 +0D+0A \\x{0}".split()),
    _BYTES.map(lambda data: b"rfc822;" + data),
    _BYTES.map(lambda data: b"utf-8;" + data),
)
_PARAMETER = st.one_of(
    st.just(b" SMTPUTF8"),
    st.tuples(_KEYWORDS, _VALUES).map(lambda pair: b" %b=%b" % pair),
    _BYTES.map(b" ".__add__),
)
_PARAMETERS = st.lists(_PARAMETER, max_size=2).map(b"".join)
_PATHS = st.tuples(_ADDRESSES, _PARAMETERS).map(lambda pair: b"<%b>%b" % pair)
_SECRETS = st.one_of(
    _BYTES.map(base64.b64encode),
    st.tuples(_BYTES, _BYTES, _BYTES).map(b"\0".join).map(base64.b64encode),
    st.tuples(_BYTES, _BYTES).map(lambda pair: base64.b64encode(b"\0%b@paquebot.test\0%b" % pair)),
    _BYTES,
    st.sampled_from([b"", b"*", b"="]),
)
_CHUNKS = st.tuples(
    _BYTES.filter(lambda data: len(data) < 2000), st.sampled_from([b"", b" LAST", b" last ", b" X"])
).map(lambda pair: b"BDAT %d%b\r\n%b" % (len(pair[0]), pair[1], pair[0]))
_COMMANDS = st.one_of(
    _PATHS.map(lambda path: b"MAIL FROM:" + path),
    _PATHS.map(lambda path: b"RCPT TO:" + path),
    st.tuples(st.sampled_from(b"EHLO HELO MAIL RCPT VRFY EXPN NOOP HELP RSET DATA AUTH BDAT FOO".split()), _BYTES).map(
        b" ".join
    ),
    st.tuples(st.sampled_from([b"PLAIN", b"LOGIN", b"CRAM-MD5"]), _SECRETS).map(lambda pair: b"AUTH %b %b" % pair),
    st.sampled_from([b"AUTH PLAIN", b"AUTH LOGIN", b"DATA", b"RSET", b"MAIL FROM:<>", b"EHLO a"]),
    st.sampled_from([b"RCPT TO:<bob@paquebot.test>", b"MAIL FROM:<alice@paquebot.test>"]),
    _CHUNKS,
    _BYTES,
)
_CONTENT = _BYTES.map(lambda data: b"From: alice@paquebot.test\r\nX: " + data + b"\r\n\r\n" + data)


class _Client:
    """A client of one session. Each has its own address, so that failed logins of other clients do not count."""

    _numbers = itertools.count(1)

    def __init__(self, port: int, *, tls: bool) -> None:
        number = next(self._numbers)
        source = (f"127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}", 0)
        plain = socket.create_connection(("127.0.0.1", port), 60, source)
        self._socket = client_tls().wrap_socket(plain) if tls else plain
        self._stream = self._socket.makefile("rb")
        assert self.reply() == 220

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):  # it has ended; `reply` returns None
            self._socket.sendall(data)

    def reply(self) -> int | None:
        """Return the reply code; None: the connection is closed."""
        while line := self._line():
            assert line.endswith(b"\r\n")
            assert line.isascii()
            if line[3:4] != b"-":
                return int(line[:3])
        return None

    def _line(self) -> bytes:
        try:
            return self._stream.readline()
        except ConnectionError:
            return b""

    def command(self, line: bytes, content: bytes, secret: bytes) -> list[int | None]:
        """Return the replies to a command, and to the content or the responses that it asks for."""
        self.send(line if line.startswith(b"BDAT") and b"\r\n" in line else line + b"\r\n")
        codes = [self.reply()]
        while codes[-1] in (334, 354):
            self.send(content + b"\r\n.\r\n" if codes[-1] == 354 else secret + b"\r\n")
            codes.append(self.reply())
        return codes


def _missing_chunk(line: bytes) -> bytes:
    """The content of a chunk, for a line that the server reads as BDAT."""
    verb, _, argument = line.partition(b" ")
    if verb.upper() != b"BDAT" or b"\r\n" in line:
        return line
    try:
        size = parse_bdat(argument.decode().strip(" \t")).size
    except (BadCommand, UnicodeDecodeError):
        return line
    return line + b"\r\n" + b"x" * size if size < 100_000 else line


def _play(connect: Callable[[], _Client], lines: Sequence[bytes], content: bytes, secret: bytes) -> None:
    client = connect()
    try:
        for line in map(_missing_chunk, lines):
            codes = client.command(line, content, secret)
            exchange = f"{codes} to {line!r}, {secret!r}, {content!r}"
            assert all(code is not None and not 400 <= code < 500 for code in codes), exchange
            if codes[-1] in (220, 221):  # a handshake that the test does not do, or the end
                return
            client.send(b"NOOP\r\n")
            if (code := client.reply()) is None:  # the session has ended, with a permanent reply
                assert codes[-1] is not None
                assert codes[-1] >= 500, exchange
                return
            assert code in (250, 503, 530), exchange
    finally:
        client.close()


def _connects(port: int, beginning: Sequence[bytes], *, tls: bool) -> Callable[[], _Client]:
    def connect() -> _Client:
        client = _Client(port, tls=tls)
        for line in beginning:
            client.send(line + b"\r\n")
            assert client.reply() in (235, 250)
        return client

    return connect


@pytest.mark.parametrize(
    ("role", "beginning"),
    [
        (Role.MX, [b"EHLO client.example"]),
        (Role.SUBMISSIONS, [b"EHLO client.example"]),
        (Role.SUBMISSIONS, [b"EHLO client.example", _LOGIN]),
        (Role.SUBMISSIONS, [b"EHLO client.example", _LOGIN, b"MAIL FROM:<alice@paquebot.test> SMTPUTF8"]),
    ],
    ids=["mx", "before login", "after login", "in a transaction"],
)
async def test_no_bytes_get_a_temporary_failure(
    smtp_stack: SmtpStack, caplog: pytest.LogCaptureFixture, role: Role, beginning: list[bytes]
) -> None:
    incidents = metrics.INCIDENTS._value.get()
    limits = {"PAQUEBOT_SMTP_ERRORS": "1000", "PAQUEBOT_SMTP_LOGIN_COMMANDS": "1000"}
    async with smtp_stack.serving(**limits, PAQUEBOT_SMTP_CONNECTIONS_PER_CLIENT="1000") as running:
        (port,) = running.ports(role)
        connect = _connects(port, beginning, tls=role is not Role.MX)

        @given(st.lists(_COMMANDS, min_size=1, max_size=8), _CONTENT, _SECRETS)
        @settings(max_examples=max(150, settings().max_examples))
        def tried(lines: list[bytes], content: bytes, secret: bytes) -> None:
            _play(connect, lines, content, secret)

        await asyncio.to_thread(tried)
    assert metrics.INCIDENTS._value.get() == incidents
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
