"""Two sessions stay synchronised, in one process and in two processes that share only the engines."""

from __future__ import annotations

import asyncio
import contextlib
import imaplib
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from urllib.request import urlopen

import pytest

from tests.dialogues.dialogue import client_tls
from tests.support.counted import value
from tests.support.imap_wire import WireClient, connected
from tests.support.imap_world import PASSWORD, ImapStack, Reader
from tests.support.loopback import free_port

START = """
import sys
from paquebot.imap.service import NAME, main
from paquebot.imap.settings import ImapSettings
from paquebot.runtime.process.service import run
sys.exit(run(NAME, ImapSettings, main))
"""


def message(number: int) -> bytes:
    return f"Subject: number {number}\r\nFrom: a@example.org\r\n\r\nbody {number}\r\n".encode()


@contextlib.asynccontextmanager
async def process(stack: ImapStack, **environ: str) -> AsyncIterator[tuple[int, int, asyncio.subprocess.Process]]:
    """`paquebot imap` as its own process with uvloop: (IMAPS port, metrics port, process)."""
    imaps, metrics = free_port(), free_port()
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        START,
        env={
            **os.environ,
            **stack.environ,
            "PAQUEBOT_IMAP_LISTEN": "",
            "PAQUEBOT_IMAPS_LISTEN": f"127.0.0.1:{imaps}",
            "PAQUEBOT_METRICS_LISTEN": f"127.0.0.1:{metrics}",
            **environ,
        },
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        await ready(metrics)
        yield imaps, metrics, started
    finally:
        if started.returncode is None:
            started.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(started.wait(), 15) == 0


async def ready(metrics: int) -> None:
    """Wait until /readyz is 200."""

    def ask() -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{metrics}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    async with asyncio.timeout(30):
        while not await asyncio.to_thread(ask):
            await asyncio.sleep(0.05)


async def test_two_processes_see_changes_of_each_other_immediately(imap_stack: ImapStack) -> None:
    reader = await imap_stack.reader()
    await imap_stack.deliver(reader, *map(message, range(3)))
    async with process(imap_stack) as (first, metrics, _), process(imap_stack) as (second, _, _):
        async with connected(first, reader) as one, connected(second, reader) as two:
            for client in (one, two):
                await client.ok("SELECT INBOX")
            await one.say(b"i IDLE\r\n")
            assert await one.line() == b"+ idling\r\n"

            await two.ok("STORE 2 +FLAGS (\\Flagged)")
            # There is no NOOP, and the poll is a minute away: the hint causes this response.
            assert await one.line() == b"* 2 FETCH (FLAGS (\\Flagged \\Recent))\r\n"
            await two.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
            assert await one.line() == b"* 1 FETCH (FLAGS (\\Deleted \\Recent))\r\n"
            await two.ok("EXPUNGE")
            assert await one.line() == b"* 1 EXPUNGE\r\n"
            assert await one.line() == b"* 2 RECENT\r\n"
            await imap_stack.deliver(reader, message(4))
            assert await one.line() == b"* 3 EXISTS\r\n"
            await one.line()
            await one.say(b"DONE\r\n")
            assert (await one.line()).startswith(b"i OK")

            # Without IDLE, the next command sees what the other process answered before.
            await two.ok("STORE 1 +FLAGS (\\Answered)")
            assert b"\\Answered" in (await one.ok("FETCH 1 FLAGS"))[-1]
            page = await asyncio.to_thread(lambda: urlopen(f"http://127.0.0.1:{metrics}/metrics").read().decode())
            assert "paquebot_imap_hints_total" in page
            assert 'paquebot_imap_commands_total{command="fetch",completion="ok"} 1.0' in page


async def test_sigterm_sends_bye_and_exits_with_0(imap_stack: ImapStack) -> None:
    reader = await imap_stack.reader()
    async with process(imap_stack) as (port, _, running):
        async with connected(port, reader) as client:
            running.send_signal(signal.SIGTERM)
            assert (await client.line()).startswith(b"* BYE [UNAVAILABLE]")
            with pytest.raises(asyncio.IncompleteReadError):
                await client.line()


async def test_starttls_in_the_real_process(imap_stack: ImapStack) -> None:
    reader = await imap_stack.reader()
    port = free_port()
    async with process(imap_stack, PAQUEBOT_IMAP_LISTEN=f"127.0.0.1:{port}"):

        def work() -> None:
            with imaplib.IMAP4("127.0.0.1", port) as client:
                client.starttls(client_tls())
                client.login(reader.address, PASSWORD)
                assert client.append("INBOX", "", "", message(1) * 20_000)[0] == "OK"
                assert client.select()[1] == [b"1"]
                part = client.fetch("1", "(RFC822)")[1][0]
                assert isinstance(part, tuple)
                assert part[1] == message(1) * 20_000

        await asyncio.wait_for(asyncio.to_thread(work), 60)


class Mirror:
    """A client that keeps its own copy of the mailbox from untagged responses alone."""

    def __init__(self, client: WireClient) -> None:
        self.client = client
        self.flags: list[frozenset[bytes] | None] = []  # None: a new message whose flags were not asked for

    def take(self, lines: list[bytes]) -> None:
        for line in lines:
            words = line.split(None, 3)
            if len(words) < 3 or not words[1].isdigit():
                continue
            number = int(words[1])
            if words[2] == b"EXISTS":
                self.flags += [None] * (number - len(self.flags))
            elif words[2] == b"EXPUNGE":
                del self.flags[number - 1]
            elif words[2] == b"FETCH" and b"FLAGS (" in line:
                inside = line.split(b"FLAGS (", 1)[1].split(b")", 1)[0]
                self.flags[number - 1] = frozenset(inside.split()) - {b"\\Recent"}

    async def run(self, command: str) -> None:
        self.take(await self.client.run(command))


async def _mirror(opened: contextlib.AsyncExitStack, port: int, reader: Reader) -> Mirror:
    """A copy of INBOX as it is now."""
    mirror = Mirror(await opened.enter_async_context(connected(port, reader)))
    await mirror.run("SELECT INBOX")
    await mirror.run("FETCH 1:* FLAGS")
    return mirror


async def _see_all(mirrors: list[Mirror]) -> None:
    """Fetch the flags of messages that were only announced so far."""
    for mirror in mirrors:
        for number in [number for number, flags in enumerate(mirror.flags, 1) if flags is None]:
            await mirror.run(f"FETCH {number} FLAGS")


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_mirrors_converge_after_random_changes(imap_stack: ImapStack, seed: int) -> None:
    """Three sessions change one mailbox concurrently at random; after a NOOP each client's copy equals the mailbox."""
    chance = random.Random(seed)
    reader = await imap_stack.reader()
    await imap_stack.deliver(reader, *map(message, range(20)))
    async with imap_stack.serving() as one, imap_stack.serving() as two:
        ports = (one.port("imaps"), two.port("imaps"), two.port("imaps"))
        async with contextlib.AsyncExitStack() as opened:
            mirrors = [await _mirror(opened, port, reader) for port in ports]
            await asyncio.gather(*(_disturb(mirror, random.Random(chance.random())) for mirror in mirrors))
            for mirror in mirrors:
                await mirror.run("NOOP")
            await _see_all(mirrors)
            truth = await _truth(imap_stack, reader)
            assert [mirror.flags for mirror in mirrors] == [truth] * 3
    assert await imap_stack.mailstore.broken_invariants(reader.account_id) == []


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_sessions_of_one_process_see_changes_without_a_query(imap_stack: ImapStack, seed: int) -> None:
    """Without NOOP, which queries everything: the sessions must have announced all changes to each other."""
    chance = random.Random(seed)
    reader = await imap_stack.reader()
    await imap_stack.deliver(reader, *map(message, range(10)))
    before = value("paquebot_imap_refreshes_total", source="cache") or 0.0
    async with imap_stack.serving() as server, contextlib.AsyncExitStack() as opened:
        mirrors = [await _mirror(opened, server.port("imaps"), reader) for _ in range(3)]
        await asyncio.gather(*(_work(mirror, random.Random(chance.random())) for mirror in mirrors))
        for mirror in mirrors:
            await mirror.run("CAPABILITY")
        await _see_all(mirrors)
        truth = await _truth(imap_stack, reader)
        assert [mirror.flags for mirror in mirrors] == [truth] * 3
    assert (value("paquebot_imap_refreshes_total", source="cache") or 0.0) > before


async def _work(mirror: Mirror, chance: random.Random) -> None:
    """Do what clients of a shared mailbox do: change flags, append, copy to other mailboxes, and expunge."""
    for turn in range(25):
        number = chance.randint(1, max(1, len(mirror.flags)))
        flag = chance.choice(("\\Seen", "\\Flagged", "\\Deleted", "$Label"))
        kind = chance.choice(("store", "store", "append", "other", "expunge", "look"))
        match kind:
            case "store":
                await mirror.run(f"STORE {number} {chance.choice('+-')}FLAGS ({flag})")
            case "append":
                target, raw = chance.choice(("INBOX", "inbox", "Drafts")), message(turn).decode()
                await mirror.run(f"APPEND {target} ({flag}) {{{len(raw)}+}}\r\n{raw}")
            case "other":
                await mirror.run(f"COPY {number} Drafts")
            case "expunge":
                await mirror.run("EXPUNGE")
            case _:
                await mirror.run("CAPABILITY")


async def _disturb(mirror: Mirror, chance: random.Random) -> None:
    for _ in range(40):
        number = chance.randint(1, max(1, len(mirror.flags)))
        flag = chance.choice(("\\Seen", "\\Flagged", "\\Deleted", "$Label"))
        await mirror.run(
            chance.choice(
                (
                    f"STORE {number} +FLAGS ({flag})",
                    f"STORE {number} -FLAGS ({flag})",
                    f"STORE {number}:* +FLAGS ($Bulk)",
                    "NOOP",
                    "EXPUNGE" if chance.random() < 0.3 else "CHECK",
                    f"FETCH {number} (FLAGS)",
                    f"COPY {number} INBOX",
                    "SEARCH UNSEEN",
                )
            )
        )


async def _truth(stack: ImapStack, reader: Reader) -> list[frozenset[bytes]]:
    inbox = await stack.mailstore.mailboxes.find(reader.account_id, "INBOX")
    snapshot = await stack.mailstore.mailbox_reader.state(reader.account_id, inbox.mailbox_id)
    names = {1: b"\\Seen", 2: b"\\Answered", 4: b"\\Flagged", 8: b"\\Deleted", 16: b"\\Draft"}
    return [
        frozenset(name for bit, name in names.items() if flags & bit)
        | frozenset(word.encode() for word in snapshot.rows.keywords.get(uid, ()))
        for uid, flags in zip(snapshot.rows.uids, snapshot.rows.flags, strict=True)
    ]
