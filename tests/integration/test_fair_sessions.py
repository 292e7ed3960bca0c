"""No session monopolises the event loop: other tasks run between pipelined commands and inside a long one.

A task that counts the iterations of the loop stands for the others: between two commands, and between two names that
LIST matches, it must have run.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from paquebot.pop3.connection import Pop3Connection
from paquebot.runtime.net.connection import ClientConnection
from paquebot.runtime.shares import event_loop
from paquebot.smtp_ingress.connection import SmtpConnection
from paquebot.smtp_ingress.state import Role
from paquebot.wire.imap import ListPatterns
from tests.support.imap_wire import connected
from tests.support.imap_world import ImapStack
from tests.support.mailstores import Mailstore
from tests.support.pop3_world import Pop3Stack
from tests.support.smtp_world import SmtpStack

COMMANDS = 40  # fewer than the limit before login
NAMES = 40


class Rounds:
    """Counts the iterations of the event loop."""

    def __init__(self) -> None:
        self.count = 0

    async def run(self) -> None:
        while True:
            self.count += 1
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def counting() -> AsyncIterator[Rounds]:
    rounds = Rounds()
    task = asyncio.ensure_future(rounds.run())
    try:
        yield rounds
    finally:
        task.cancel()


def noted(monkeypatch: pytest.MonkeyPatch, owner: type[Any], name: str, rounds: Rounds) -> list[int]:
    """Record the iteration of the loop at each call of a method."""
    found: list[int] = []
    original: Callable[..., Any] = getattr(owner, name)

    def call(*arguments: Any, **options: Any) -> Any:
        found.append(rounds.count)
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, call)
    return found


def assert_each_in_a_round_of_its_own(rounds: list[int], count: int) -> None:
    assert len(rounds) >= count
    last = rounds[-count:]
    assert all(earlier < later for earlier, later in itertools.pairwise(last)), last


async def pipelined(port: int, command: bytes, answers: bytes) -> None:
    """Send a command `COMMANDS` times in one write, and read as many answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(30):
            await reader.readuntil(b"\r\n")  # the greeting
            writer.write(command * COMMANDS)
            got = b""
            while got.count(answers) < COMMANDS:
                some = await reader.read(65536)
                assert some, got
                got += some
    finally:
        writer.close()


async def test_pipelined_smtp(smtp_stack: SmtpStack, monkeypatch: pytest.MonkeyPatch) -> None:
    async with smtp_stack.serving() as server, counting() as rounds:
        found = noted(monkeypatch, SmtpConnection, "reply", rounds)
        await pipelined(server.ports(Role.MX)[0], b"NOOP\r\n", b"250 ")
        assert_each_in_a_round_of_its_own(found, COMMANDS)


async def test_pipelined_imap(imap_stack: ImapStack, monkeypatch: pytest.MonkeyPatch) -> None:
    async with imap_stack.serving() as server, counting() as rounds:
        found = noted(monkeypatch, ClientConnection, "send", rounds)
        await pipelined(server.port("imap"), b"a NOOP\r\n", b"a OK ")
        assert_each_in_a_round_of_its_own(found, COMMANDS)


async def test_pipelined_pop3(pop3_stack: Pop3Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    async with pop3_stack.serving() as server, counting() as rounds:
        found = noted(monkeypatch, Pop3Connection, "send", rounds)
        await pipelined(server.port("pop3"), b"CAPA\r\n", b"+OK Capabilities")
        assert_each_in_a_round_of_its_own(found, COMMANDS)


async def test_list_gives_way(imap_stack: ImapStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 patterns over long names: without yields another user waited 13 s for its NOOP."""
    reader = await imap_stack.reader()
    mailstore: Mailstore = imap_stack.mailstore
    for number in range(NAMES):
        await mailstore.mailboxes.create(reader.account_id, "a" * 250 + f"{number:02d}")
    monkeypatch.setattr(event_loop, "SLICE", 0.0)  # yield at every opportunity
    async with imap_stack.serving() as server, connected(server.port("imaps"), reader) as client, counting() as rounds:
        found = noted(monkeypatch, ListPatterns, "matches", rounds)
        patterns = " ".join(f"*a*a*a{number}*" for number in range(64))
        lines = await client.ok(f'LIST "" ({patterns})')
        assert len(lines) == NAMES  # each name, once
        assert_each_in_a_round_of_its_own(found, NAMES)
