"""IMAP, POP3 and the relay on an S3 with wrong answers: no client gets a wrong body, now or from a cache later."""

from __future__ import annotations

import asyncio
import poplib
import re

import pytest

from tests.support.imap_wire import connected
from tests.support.imap_world import PREFIX as IMAP_PREFIX
from tests.support.imap_world import ImapStack
from tests.support.lying_s3 import Lie, LyingS3
from tests.support.pop3_world import PREFIX as POP3_PREFIX
from tests.support.pop3_world import Pop3Stack, poplib_client

LIES = [Lie.FLIP, Lie.CUT, Lie.SHORT, Lie.LONG, Lie.OTHER_RANGE, Lie.SHIFTED, Lie.WHOLE]
MESSAGES = [b"Subject: number %d\r\n\r\n" % n + b"line of %d\r\n" % n * (20 + 9 * n) for n in range(20)]
_BODY = re.compile(rb"\* (\d+) FETCH \(BODY\[\] \{\d+\}\r\n(.*)\)\r\n", re.DOTALL)


def bodies(lines: list[bytes]) -> dict[int, bytes]:
    """Return the bodies by message number."""
    matches = filter(None, map(_BODY.fullmatch, lines))
    return {int(match[1]): match[2] for match in matches}


@pytest.mark.parametrize("lie", LIES)
async def test_imap(imap_stack: ImapStack, lying_s3: LyingS3, lie: Lie) -> None:
    reader = await imap_stack.reader()
    await imap_stack.deliver(reader, *MESSAGES)
    expected = {number: IMAP_PREFIX + raw for number, raw in enumerate(MESSAGES, 1)}
    async with (
        imap_stack.serving(PAQUEBOT_S3_ENDPOINT=lying_s3.endpoint) as server,
        connected(server.port("imaps"), reader) as client,
    ):
        await client.ok("SELECT INBOX")
        lying_s3.set_lie(lie)
        lines = await client.run("FETCH 1:* BODY.PEEK[]")
        assert bodies(lines).items() <= expected.items()
        named = [line for line in lines if line.startswith(b"* NO [UNAVAILABLE] Message ")]
        given = bodies(lines)
        assert lines[-1].startswith(
            b"OK " if given and len(given) + len(named) == len(MESSAGES) else b"NO [UNAVAILABLE]"
        )
        assert len(given) < len(MESSAGES)
        for number in (3, 20):
            lines = await client.run(f"FETCH {number} BODY.PEEK[]")
            assert bodies(lines).items() <= expected.items()
        assert lying_s3.lies > 0
        lying_s3.set_lie(Lie.NONE)
        assert bodies(await client.ok("FETCH 1:* BODY.PEEK[]")) == expected  # no wrong content was cached


@pytest.mark.parametrize("lie", LIES)
async def test_imap_hides_one_wrong_answer(imap_stack: ImapStack, lying_s3: LyingS3, lie: Lie) -> None:
    reader = await imap_stack.reader()
    await imap_stack.deliver(reader, MESSAGES[5])
    async with (
        imap_stack.serving(PAQUEBOT_S3_ENDPOINT=lying_s3.endpoint) as server,
        connected(server.port("imaps"), reader) as client,
    ):
        await client.ok("SELECT INBOX")
        lying_s3.set_lie(lie, times=1)
        assert bodies(await client.ok("FETCH 1 BODY.PEEK[]")) == {1: IMAP_PREFIX + MESSAGES[5]}
        assert lying_s3.lies == 1


@pytest.mark.parametrize("lie", LIES)
async def test_pop3(pop3_stack: Pop3Stack, lying_s3: LyingS3, lie: Lie) -> None:
    reader = await pop3_stack.reader()
    await pop3_stack.deliver(reader, *MESSAGES)

    def retrieve(client: poplib.POP3_SSL) -> list[bytes | str]:
        return [retrieved(client, number) for number in range(1, len(MESSAGES) + 1)]

    def retrieved(client: poplib.POP3_SSL, number: int) -> bytes | str:
        try:
            return b"\r\n".join(client.retr(number)[1]) + b"\r\n"
        except poplib.error_proto as error:
            return str(error)

    async with pop3_stack.serving(PAQUEBOT_S3_ENDPOINT=lying_s3.endpoint) as server:
        client = await asyncio.to_thread(poplib_client, server, reader)
        lying_s3.set_lie(lie)
        got = await asyncio.to_thread(retrieve, client)
        for read, raw in zip(got, MESSAGES, strict=True):
            assert read == POP3_PREFIX + raw or "-ERR [SYS/TEMP]" in str(read)
        assert any(isinstance(read, str) for read in got)
        lying_s3.set_lie(Lie.NONE)
        assert await asyncio.to_thread(retrieve, client) == [POP3_PREFIX + raw for raw in MESSAGES]
        await asyncio.to_thread(client.quit)
