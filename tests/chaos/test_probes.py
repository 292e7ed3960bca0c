"""Probes of a chaos run: what does not answer in time is found, and reported with its reason."""

from __future__ import annotations

import asyncio
import itertools
import os

import pytest

from tests.chaos import probes
from tests.chaos.ledger import Ledger
from tests.support.loopback import free_port

OK, NOT_READY = b"HTTP/1.1 200 OK\r\n\r\nok\n", b"HTTP/1.1 503 Service Unavailable\r\n\r\ns3: TimeoutError\n"


async def found(answer: bytes | None) -> tuple[probes.Asked, list[str]]:
    """What is found of a process that answers so, None: never."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await reader.read()  # until the prober has gone
        else:
            writer.write(answer)
        writer.close()

    ledger, asked_once = Ledger(), asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        process = probes.Probed("imap", server.sockets[0].getsockname()[1], os.getpid())
        async with probes.asking([process], ledger, "a fault") as asked:
            asyncio.get_running_loop().call_soon(asked_once.set)
            await asked_once.wait()
    finally:
        server.close()
    return asked, ledger.findings


async def test_answers_in_time_are_counted() -> None:
    asked, findings = await found(OK)
    assert (asked.answers, asked.not_judged, findings) == (len(probes.PATHS), 0, [])


async def test_silence_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(probes, "_STARVED", 1e9)
    monkeypatch.setattr(probes, "_PRESSED", 1e9)
    asked, findings = await found(None)
    assert (asked.answers, len(findings)) == (0, len(probes.PATHS))
    assert "a fault: imap gave no answer to /livez: not within 0.05 s" in findings


async def test_unready_is_an_answer_and_a_wish_to_be_killed_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_STARVED", 1e9)
    monkeypatch.setattr(probes, "_PRESSED", 1e9)
    asked, findings = await found(NOT_READY)
    assert asked.unready == {"imap": {"s3"}}
    assert [finding for finding in findings if "/livez" not in finding] == []
    assert "wants to be killed" in findings[0]


async def test_nobody_there_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_STARVED", 1e9)
    monkeypatch.setattr(probes, "_PRESSED", 1e9)
    ledger = Ledger()
    async with probes.asking([probes.Probed("imap", free_port(), os.getpid())], ledger, "a fault"):
        await asyncio.sleep(0)
    assert len(ledger.findings) == len(probes.PATHS)


async def test_who_had_no_processor_is_not_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count(0.0, 2.0)
    monkeypatch.setattr(probes, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(probes, "waited", lambda pid: {pid: next(seconds)})
    asked, findings = await found(None)
    assert (asked.answers, asked.not_judged, findings) == (0, len(probes.PATHS), [])
