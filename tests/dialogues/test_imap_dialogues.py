"""Plays every script of tests/dialogues/imap with the real IMAP service.

Beside the runner's own steps, a script can have:

    deliver [count]            messages arrive in INBOX as delivery puts them there
    do drain                   the process begins its drain
    do disable [unannounced]   the account is disabled; unannounced: the hint is lost
    do remove                  the account is removed
    do change password         of the account
    assert messages N          INBOX holds N messages

`{account}`, `{password}` and `{plain}` (the base64 of SASL PLAIN) are those of the script's account.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from paquebot.imap.server import ImapServer
from tests.dialogues.dialogue import Endpoint, Script, play, scripts, with_login
from tests.support.imap_world import PASSWORD, ImapStack, Reader

FOLDER = Path(__file__).parent / "imap"


def message(number: int) -> bytes:
    return (
        f"From: Alice <alice@example.org>\r\nTo: reader@imap.test\r\nSubject: message {number}\r\n"
        f"Date: Mon, 2 Mar 2026 10:00:{number:02d} +0100\r\nMessage-ID: <{number}@example.org>\r\n"
        f"\r\nbody {number}\r\n"
    ).encode()


class ImapDialogue:
    """The world of a script: one service, one account."""

    def __init__(self, stack: ImapStack, server: ImapServer, reader: Reader, draining: asyncio.Event) -> None:
        self._stack = stack
        self._server = server
        self._reader = reader
        self._draining = draining
        self._delivered = 0

    def endpoint(self, listener: str) -> Endpoint:
        return Endpoint("127.0.0.1", self._server.port(listener), tls=listener == "imaps")

    async def perform(self, step: str) -> None:
        match step.split():
            case ["deliver", *count]:
                numbers = range(self._delivered + 1, self._delivered + 1 + int(count[0] if count else 1))
                self._delivered = numbers[-1]
                await self._stack.deliver(self._reader, *(message(number) for number in numbers))
            case ["do", *change] if await self._stack.directory.change(change, self._reader.address):
                pass
            case ["do", "drain"]:
                self._draining.set()
            case ["assert", "messages", count]:
                inbox = await self._stack.mailstore.mailboxes.find(self._reader.account_id, "INBOX")
                assert inbox.messages == int(count)
            case _:
                raise AssertionError(f"unknown step {step!r}")


@pytest.mark.parametrize("script", scripts(FOLDER))
async def test_imap_dialogue(script: Script, imap_stack: ImapStack) -> None:
    reader = await imap_stack.reader()
    draining = asyncio.Event()
    async with imap_stack.serving(draining, **script.settings) as server:
        await play(with_login(script, reader.address, PASSWORD), ImapDialogue(imap_stack, server, reader, draining))
