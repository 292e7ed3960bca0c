"""The real IMAP process with a hard memory limit under hostile commands, and its peak memory.

The process runs with RLIMIT_DATA, as a pod does with its limit: an allocation beyond it fails. Its peak is the kernel's
VmHWM. Sizes are a part of the chart's (a limit of 512 MiB, PAQUEBOT_IMAP_READING of 128 MiB, messages of 50 MB).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from paquebot.blobs import BlobStore
from paquebot.message import WHOLE
from paquebot.runtime.engine_settings import S3Settings
from paquebot.runtime.settings import load
from tests.support.imap_packs import delivered, packed
from tests.support.imap_wire import WireClient, connected
from tests.support.imap_world import ImapStack, Reader
from tests.support.loopback import free_port

_MIB = 2**20
_SMALL = {
    "PAQUEBOT_IMAP_READING": "32MiB",
    "PAQUEBOT_IMAP_READING_PER_ACCOUNT": "16MiB",
    "PAQUEBOT_IMAP_BODY_CACHE": "8MiB",
    "PAQUEBOT_IMAP_WRITE_TIMEOUT": "2s",
}
_GROWTH = 64 * _MIB  # above the memory of the process when it is ready
_DATA = 1024 * _MIB  # mostly stacks of threads, which stay untouched
_LIMITED = """
import os, resource, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
os.execv(sys.executable, [sys.executable, "-m", "paquebot", "imap"])
"""


@dataclass(frozen=True, slots=True)
class Service:
    """A running IMAP process."""

    pid: int
    port: int
    idle: int
    """Resident bytes when the process was ready."""

    def peak(self) -> int:
        """Return the maximum of resident bytes so far."""
        return _status(self.pid, "VmHWM")


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {name}")


@contextlib.asynccontextmanager
async def service(stack: ImapStack, **settings: str) -> AsyncIterator[Service]:
    port = free_port()
    environ = {
        **stack.environ,
        **settings,
        "PAQUEBOT_IMAPS_LISTEN": f"127.0.0.1:{port}",
        "PAQUEBOT_METRICS_LISTEN": f"127.0.0.1:{free_port()}",
        "PATH": os.environ["PATH"],
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _LIMITED, str(_DATA), env=environ, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60.0):
            while b'"service_started"' not in (line := await process.stdout.readline()):
                assert line, "the service ended"
        reading = asyncio.create_task(process.stdout.read())
        async with connected(port):
            yield Service(process.pid, port, _status(process.pid, "VmRSS"))
        assert process.returncode is None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
    assert b"MemoryError" not in await reading


@pytest.fixture
async def store(imap_stack: ImapStack) -> AsyncIterator[BlobStore]:
    blobs = BlobStore(load(S3Settings, imap_stack.environ))
    yield blobs
    await blobs.close()


def text(number: int, length: int) -> bytes:
    """Return ASCII text with one character in each line that makes Python's string four bytes per character."""
    line = "an ordinary line of words, and a face: \N{GRINNING FACE}\r\n".encode()
    return b"Subject: %d\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" % number + line * (length // len(line))


def noise(length: int) -> bytes:
    """Bytes that zstd cannot compress."""
    return b"Subject: noise\r\n\r\n" + random.Random(1).randbytes(length).replace(b"\0", b"0")


async def mailbox(stack: ImapStack, store: BlobStore, messages: Sequence[bytes], times: int = 1) -> Reader:
    reader = await stack.reader()
    refs = [(await packed(store, [raw]))[0] for raw in messages]
    await delivered(stack, reader, list(zip(refs, messages, strict=True)) * times)
    return reader


async def test_a_search_of_much_text_keeps_none_of_it(imap_stack: ImapStack, store: BlobStore) -> None:
    """Over 200 MB; as Python strings four times as many."""
    victim = await imap_stack.reader()
    reader = await mailbox(imap_stack, store, [text(number, 2_000_000) for number in range(5)], times=21)
    async with service(imap_stack, **_SMALL) as imap, connected(imap.port, reader) as client:
        await client.ok("SELECT INBOX")
        searching = asyncio.create_task(client.ok('SEARCH CHARSET UTF-8 NOT BODY "nowhere" TEXT "ordinary line"'))
        async with connected(imap.port, victim) as other:
            while not searching.done():
                await other.ok("NOOP")
        assert len(searching.result()[0].split()) == 2 + 105
        assert imap.peak() - imap.idle < _GROWTH


async def test_many_partials_of_a_long_message_are_not_copies_of_it(imap_stack: ImapStack, store: BlobStore) -> None:
    victim = await imap_stack.reader()
    size = 8_000_000
    reader = await mailbox(imap_stack, store, [noise(size)])
    items = " ".join(f"BODY.PEEK[]<{start}.{size - 100}>" for start in range(40))
    async with service(imap_stack, **_SMALL) as imap, connected(imap.port, reader) as client:
        await client.ok("SELECT INBOX")
        await client.say(b"a FETCH 1 (%b)\r\n" % items.encode())
        async with connected(imap.port, victim) as other:
            for start in range(40):
                head = await client.reader.readuntil(b"}\r\n")
                assert head.endswith(b"BODY[]<%d> {%d}\r\n" % (start, size - 100))
                await client.reader.readexactly(size - 100)
                await other.ok("NOOP")
        assert await client.line() == b")\r\n"
        assert (await client.line()).startswith(b"a OK")
        assert imap.peak() - imap.idle < _GROWTH


async def test_clients_that_never_read_keep_no_message_in_memory(imap_stack: ImapStack, store: BlobStore) -> None:
    """Eight accounts ask for a message and do not read it, over TLS, whose transport buffers without a limit."""
    victim = await mailbox(imap_stack, store, [b"Subject: small\r\n\r\nsmall\r\n"])
    message = [noise(8_000_000)]
    readers = [await mailbox(imap_stack, store, message) for _ in range(8)]
    async with service(imap_stack, **_SMALL) as imap, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(imap.port, reader)) for reader in readers]
        await asyncio.gather(*map(ask_and_not_read, clients))
        async with connected(imap.port, victim) as other:
            await other.ok("SELECT INBOX")
            assert (await other.ok("FETCH 1 BODY.PEEK[TEXT]"))[0].endswith(b"small\r\n)\r\n")
        assert imap.peak() - imap.idle < _GROWTH


async def test_whole_envelopes_are_made_one_after_another(imap_stack: ImapStack, store: BlobStore) -> None:
    """Twelve sessions of four accounts ask for a million addresses each, and half of the sessions do not read."""
    victim = await mailbox(imap_stack, store, [b"Subject: small\r\n\r\nsmall\r\n"])
    message = [b"Subject: many\r\nTo: " + b"a@b, " * 1_000_000 + b"\r\n\r\nx\r\n"]
    readers = [await mailbox(imap_stack, store, message) for _ in range(4)]
    async with service(imap_stack, **_SMALL) as imap, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(imap.port, reader, limit=2**23)) for reader in readers * 3]
        for client in clients:
            await client.ok("SELECT INBOX")
        asking = [asyncio.create_task(client.ok("FETCH 1 (ENVELOPE BODYSTRUCTURE)")) for client in clients[:6]]
        for client in clients[6:]:
            await client.say(b"a FETCH 1 (ENVELOPE BODYSTRUCTURE)\r\n")
        async with connected(imap.port, victim) as other:
            await other.ok("SELECT INBOX")
            while not all(task.done() for task in asking):
                await other.ok("NOOP")
            assert b'"small"' in (await other.ok("FETCH 1 ENVELOPE"))[0]
        for task in asking:
            assert task.result()[1].count(b'(NIL NIL "a" "b")') == WHOLE.addresses
        assert imap.peak() - imap.idle < _GROWTH


async def ask_and_not_read(client: WireClient) -> None:
    """Send the command; return when the response has begun."""
    await client.ok("SELECT INBOX")
    await client.say(b"a FETCH 1 BODY.PEEK[]\r\n")
    async with asyncio.timeout(60.0):
        await client.reader.readuntil(b"}\r\n")
