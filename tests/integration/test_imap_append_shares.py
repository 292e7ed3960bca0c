"""Uploads of one account do not use the memory share of another."""

from __future__ import annotations

import asyncio

from paquebot.runtime.shares.in_flight import account
from tests.support.imap_wire import connected
from tests.support.imap_world import ImapStack

_SETTINGS = {
    "PAQUEBOT_IN_FLIGHT": "1000",
    "PAQUEBOT_IMAP_APPEND_LIMIT": "300",
    "PAQUEBOT_IN_FLIGHT_ACCOUNT": "0.3",
}


async def test_account_has_at_most_its_share(imap_stack: ImapStack) -> None:
    greedy, other = await imap_stack.reader(), await imap_stack.reader()
    async with (
        imap_stack.serving(**_SETTINGS) as server,
        connected(server.port("imaps"), greedy) as first,
        connected(server.port("imaps"), greedy) as second,
        connected(server.port("imaps"), other) as third,
    ):
        await first.say(b"a APPEND INBOX {300+}\r\n" + b"x" * 250)
        async with asyncio.timeout(30):
            while server.context.budget.used_by(account(greedy.account_id)) != 250:
                await asyncio.sleep(0)
        await second.say(b"b APPEND INBOX {100+}\r\n" + b"x" * 100 + b"\r\n")
        assert (await second.line()).startswith(b"b NO [UNAVAILABLE] ")
        await third.say(b"c APPEND INBOX {300+}\r\n" + b"x" * 300 + b"\r\n")
        assert (await third.line()).startswith(b"c OK ")
        await first.say(b"x" * 50 + b"\r\n")
        assert (await first.line()).startswith(b"a OK ")
        assert server.context.budget.used == 0


async def test_the_largest_account_gives_to_the_smaller(imap_stack: ImapStack) -> None:
    large, small = await imap_stack.reader(), await imap_stack.reader()
    settings = {**_SETTINGS, "PAQUEBOT_IN_FLIGHT": "300"}
    async with (
        imap_stack.serving(**settings) as server,
        connected(server.port("imaps"), large) as first,
        connected(server.port("imaps"), small) as second,
    ):
        await first.say(b"a APPEND INBOX {300+}\r\n" + b"x" * 250)
        async with asyncio.timeout(30):
            while server.context.budget.used != 250:
                await asyncio.sleep(0)
        await second.say(b"b APPEND INBOX {100+}\r\n" + b"x" * 100 + b"\r\n")
        assert (await second.line()).startswith(b"b OK ")
        await first.say(b"x" * 50 + b"\r\n")
        assert (await first.line()).startswith(b"a NO [UNAVAILABLE] ")
        await first.say(b"c APPEND INBOX {300+}\r\n" + b"x" * 300 + b"\r\n")
        assert (await first.line()).startswith(b"c OK ")
