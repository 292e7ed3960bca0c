"""`paquebot session record` on a running platform: nothing secret is in the file, and the runner plays it again."""

from __future__ import annotations

import asyncio
import imaplib
import poplib
import signal
import smtplib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from paquebot.cli.demo.accounts import DEMO_PASSWORD
from paquebot.cli.engines.ports import LOOPBACK
from tests.dialogues.dialogue import Endpoint, load, play, with_login
from tests.e2e.platforms import Platform, until

SECONDS = 60.0
BODY = "a text for its recipient alone"


@asynccontextmanager
async def recorded(platform: Platform, account: str, to: Path) -> AsyncIterator[None]:
    """The command runs for the block, and services know of it."""
    data = str(platform.plan.layout.data)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "paquebot", "session", "record", "--account", account, "--to", str(to), "--data", data),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(SECONDS):
            while b"recording sessions of" not in (line := await process.stderr.readline()):
                assert line
        yield
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(SECONDS):
            _, said = await process.communicate()
        assert (process.returncode, b" sessions, " in said) == (0, True)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def read_mail(client: imaplib.IMAP4, file: Path, name: str) -> bool:
    """An ordinary session, from the moment when it is recorded."""
    client.noop()
    if "connect imaps" not in file.read_text():
        return False
    message = f"From: a@example.org\r\nSubject: seen\r\n\r\n{BODY}\r\n".encode()
    client.create(name)
    client.select(name)
    client.append(name, r"(\Flagged)", None, message)
    client.fetch("1:*", "(FLAGS RFC822.SIZE BODY.PEEK[] ENVELOPE)")
    client.search(None, "FLAGGED")
    client.xatom("STATUS", name, "(MESSAGES)")
    client.logout()
    return True


class AgainOn:
    """The world of a transcript: the same platform, and its other account."""

    def __init__(self, platform: Platform) -> None:
        ports = platform.plan.ports.services
        self._ports = {"imaps": ports.imaps, "pop3s": ports.pop3s, "submissions": ports.submissions}

    def endpoint(self, listener: str) -> Endpoint:
        return Endpoint(LOOPBACK, self._ports[listener], tls=True)

    async def perform(self, step: str) -> None:
        raise AssertionError(f"unknown step {step!r}")


@pytest.mark.parametrize("number", [0, 1], ids=["one worker", "two workers"])
async def test_sessions_of_an_account_become_a_dialogue(
    platforms: tuple[Platform, Platform], tmp_path: Path, number: int
) -> None:
    platform, file = platforms[number], tmp_path / "transcript.txt"
    alice, bob = platform.address("alice"), platform.address("bob")
    others = await asyncio.to_thread(platform.imap, "bob")
    async with recorded(platform, alice, file):
        client = await asyncio.to_thread(platform.imap, "alice")
        await until(lambda: read_mail(client, file, "Recorded"), "the session is recorded")
        await asyncio.to_thread(others.logout)
        await asyncio.to_thread(submit, platform, alice)
        await asyncio.to_thread(look, platform)
        await until(lambda: file.read_text().count("\nclosed") == 3, "all sessions are over")
    text = file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert not [secret for secret in (DEMO_PASSWORD, BODY, alice, bob) if secret in text]
    assert "LOGIN (left out)" not in text
    await play(with_login(load(file), bob, DEMO_PASSWORD), AgainOn(platform))


def submit(platform: Platform, alice: str) -> None:
    port = platform.plan.ports.services.submissions
    with smtplib.SMTP_SSL(LOOPBACK, port, timeout=SECONDS, context=platform.tls()) as client:
        client.login(alice, DEMO_PASSWORD)
        client.sendmail(alice, [alice], f"From: {alice}\r\nSubject: recorded\r\n\r\n{BODY}\r\n.\r\nend\r\n")


def look(platform: Platform) -> None:
    client: poplib.POP3 = platform.pop3("alice")
    client.capa()
    client.noop()
    client.quit()


async def test_an_account_that_is_not_there_is_one_sentence(
    platforms: tuple[Platform, Platform], tmp_path: Path
) -> None:
    data = str(platforms[0].plan.layout.data)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "paquebot", "session", "record", "--account", "nobody@here.test", "--data", data),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 1
    assert said.decode().count("\n") == 1
    assert "nobody@here.test" in said.decode()
