"""Plays every script of tests/dialogues/pop3 with the real POP3 service.

Beside the runner's own steps, a script can have:

    deliver [count]            messages of 3 body lines arrive in INBOX as delivery puts them there
    deliver bytes TEXT         one message of exactly these bytes (with escapes), without a prefix
    do drain                   the process begins its drain
    do disable [unannounced]   the account is disabled; unannounced: the hint is lost
    do remove                  the account is removed
    do change password         of the account
    do steal                   another session takes the maildrop, as after the lease has expired
    assert messages N          INBOX holds N messages, now or as soon as the server has noticed a closed connection

`{account}`, `{password}` and `{plain}` (the base64 of SASL PLAIN) are those of the script's account.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from paquebot.pop3.server import Pop3Server
from tests.dialogues.dialogue import Endpoint, Script, play, scripts, unescaped, with_login
from tests.support.pop3_world import PASSWORD, Pop3Stack, Reader, until

FOLDER = Path(__file__).parent / "pop3"


def message(number: int) -> bytes:
    return (
        f"From: Alice <alice@example.org>\r\nSubject: message {number}\r\n\r\nfirst {number}\r\n.second\r\nthird\r\n"
    ).encode()


class Pop3Dialogue:
    """The world of a script: one service, one account."""

    def __init__(self, stack: Pop3Stack, server: Pop3Server, reader: Reader, draining: asyncio.Event) -> None:
        self._stack = stack
        self._server = server
        self._reader = reader
        self._draining = draining
        self._delivered = 0

    def endpoint(self, listener: str) -> Endpoint:
        return Endpoint("127.0.0.1", self._server.port(listener), tls=listener == "pop3s")

    async def perform(self, step: str) -> None:
        match step.split():
            case ["deliver", "bytes", *_]:
                await self._stack.deliver(self._reader, unescaped(step.split(" ", 2)[2]).encode(), prefix=b"")
            case ["deliver", *count]:
                numbers = range(self._delivered + 1, self._delivered + 1 + int(count[0] if count else 1))
                self._delivered = numbers[-1]
                await self._stack.deliver(self._reader, *(message(number) for number in numbers))
            case ["do", *change] if await self._stack.directory.change(change, self._reader.address):
                pass
            case ["do", "drain"]:
                self._draining.set()
            case ["do", "steal"]:
                sql = "UPDATE mailstore.maildrop_locks SET owner = 'thief' WHERE account_id = $1"
                await self._stack.postgres.execute("test", sql, self._reader.account_id)
            case ["assert", "messages", count]:
                await until(lambda: self._holds(int(count)))
            case _:
                raise AssertionError(f"unknown step {step!r}")

    async def _holds(self, count: int) -> bool:
        return len(await self._stack.uids(self._reader)) == count


@pytest.mark.parametrize("script", scripts(FOLDER))
async def test_pop3_dialogue(script: Script, pop3_stack: Pop3Stack) -> None:
    reader = await pop3_stack.reader()
    draining = asyncio.Event()
    async with pop3_stack.serving(draining, **script.settings) as server:
        await play(with_login(script, reader.address, PASSWORD), Pop3Dialogue(pop3_stack, server, reader, draining))
