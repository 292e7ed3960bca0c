"""Fuzz what another host's SMTP server says: replies are read whole or the session is broken, within its bounds, and a
notification that quotes them is well formed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from paquebot import message
from paquebot.relay.outcome import Host
from paquebot.relay.smtp_client.session import MAX_REPLY_LINES, ClientSession, SessionBroken
from paquebot.relay.smtp_client.stream import MAX_LINE, Stream
from paquebot.wire.smtp.extensions import parse_extensions, size_limit
from paquebot.wire.smtp.replies import Reply
from tests.fuzz.target import Samples, Target

_NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
_WORDS = (
    b"\r\n", b"\n", b"\r", b"250 ", b"250-", b"220 ", b"421 4.3.2 ", b"550 5.1.1 ", b"354 ", b"999 ", b"25", b"\0",
    b"\xff", b"\xc3\xa9", b"SIZE 99999999999999999999", b"AUTH=LOGIN", b"STARTTLS", b"8BITMIME", b"-" * 300,
    b"x" * 4100,
)  # fmt: skip


def _made() -> Samples:
    return [
        ("greeting", b"220 mx.test ESMTP\r\n"),
        ("ehlo", b"250-mx.test\r\n250-SIZE 35882577\r\n250-8BITMIME\r\n250-STARTTLS\r\n250 AUTH=PLAIN LOGIN\r\n"),
        ("refused", b"550 5.1.1 <bob@b.test>: no such user\r\n"),
        ("refused at length", b"554-5.7.1 one\r\n554-5.7.1 two\r\n554 5.7.1 three\r\n"),
        ("bare ends", b"250-a\n250 b\n"),
        ("codes differ", b"250-a\r\n251 b\r\n"),
        ("no text", b"250\r\n"),
        ("closing", b"421 4.3.2 shutting down\r\n"),
        ("pipelined", b"250 2.1.0 ok\r\n550 5.1.1 no\r\n354 go\r\n250 2.0.0 queued\r\n"),
        ("endless", b"250-x\r\n" * (MAX_REPLY_LINES + 2)),
        ("long line", b"250 " + b"y" * (MAX_LINE + 10) + b"\r\n"),
        ("silence", b""),
    ]


def check(raw: bytes) -> None:
    whole, by_three = asyncio.run(_heard(raw, len(raw) or 1)), asyncio.run(_heard(raw, 3))
    assert whole == by_three
    for reply in whole:
        assert 200 <= reply.code <= 599
        extensions = parse_extensions(reply.text)
        assert all(keyword == keyword.upper() for keyword in extensions)
        _check_notification(reply)


async def _heard(raw: bytes, piece: int) -> list[Reply]:
    """The replies of a host that says these bytes, in pieces, and closes."""
    stream = Stream()
    session = ClientSession(Host("mx.test", "192.0.2.1", 25), stream)
    replies: list[Reply] = []
    for at in range(0, len(raw), piece):
        stream.data_received(raw[at : at + piece])
    stream.eof_received()
    try:
        while True:
            replies.append(await session.reply(5, "MAIL"))
            assert size_limit(session.extensions) == 0
    except SessionBroken as broken:
        assert broken.text.isprintable()  # noqa: PT017
    assert not session.usable
    return replies


def _check_notification(reply: Reply) -> None:
    diagnostic = str(reply)
    recipient = message.RecipientReport(
        "bob@b.test", message.Action.FAILED, "5.1.1", diagnostic_code=diagnostic, remote_mta="mx.test"
    )
    report = message.DeliveryReport(
        "mx.test", "alice@a.test", (recipient,), b"Subject: x\r\n\r\nx\r\n", "<d@mx.test>", _NOW
    )
    dsn = message.build_dsn(report)
    assert b"\n" not in dsn.replace(b"\r\n", b"")
    assert max(map(len, dsn.split(b"\r\n"))) <= 998
    body = message.summarise(dsn).body
    assert (body.type, body.subtype, len(body.parts)) == (b"MULTIPART", b"REPORT", 3)
    assert [part.subtype for part in body.parts][1] == b"DELIVERY-STATUS"


TARGET = Target("relay", check, _WORDS, _made)
