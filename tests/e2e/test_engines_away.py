"""Each engine goes away for a while, killed or frozen: no service ends, what cannot be kept is refused temporarily,
and everything goes on by itself when the engine is back (invariant 9).
"""

from __future__ import annotations

import asyncio
import contextlib
import imaplib
import os
import poplib
import signal
import smtplib
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from paquebot.cli.demo.accounts import DEMO_PASSWORD
from paquebot.cli.engines.ports import LOOPBACK
from paquebot.cli.up.layout import SERVICES
from paquebot.janitor.recovery.recover import recover
from paquebot.janitor.settings import JanitorSettings
from paquebot.janitor.stores import open_stores
from paquebot.runtime.settings import load
from tests.e2e.platforms import Platform, running, until
from tests.e2e.senders import Sender, arrivals, sending

NEEDS = {
    "nats": ("smtp_ingress", "delivery", "relay"),
    "s3": ("smtp_ingress", "relay", "imap", "pop3"),
    "postgres": ("recipient_validation", "delivery", "relay", "imap", "pop3"),
}
REPLY_SECONDS = 30.0
"""Above every deadline that the settings below allow for one reply."""
SETTINGS = {
    "PAQUEBOT_NATS_TIMEOUT": "1s",
    "PAQUEBOT_S3_TIMEOUT": "1s",
    "PAQUEBOT_POSTGRES_TIMEOUT": "1s",
    "PAQUEBOT_RECIPIENT_VALIDATION_TIMEOUT": "2s",
}


@pytest.fixture(scope="module")
async def platform(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:
    async with running(tmp_path_factory.mktemp("away") / "data", "away.test", settings=SETTINGS) as started:
        yield started


def family(pid: int) -> list[int]:
    """A process and its descendants: PostgreSQL's are in sessions of their own."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(found for child in children for found in family(int(child)))]


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@contextlib.asynccontextmanager
async def away(platform: Platform, name: str, way: str) -> AsyncIterator[None]:
    """`gone`: the process is killed and stays away. `frozen`: connections hang instead of failing."""
    supervisor = platform.stack.supervisor
    if way == "gone":
        await supervisor.pause(name)
        try:
            yield
        finally:
            await supervisor.resume(name)
        return
    pids = family(supervisor.pid(name))
    signal_all(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        signal_all(pids, signal.SIGCONT)


def page(platform: Platform, service: str, path: str) -> tuple[int, str]:
    url = f"http://{LOOPBACK}:{platform.plan.ports.services.metrics(service)}/{path}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except urllib.error.URLError as error:  # a process that is just starting
        return 0, str(error.reason)


def unready(platform: Platform, service: str) -> bool:
    status, reason = page(platform, service, "readyz")
    return status == 503 and bool(reason.strip())


def pids(platform: Platform) -> dict[str, int]:
    return {name: platform.stack.supervisor.pid(name) for name in SERVICES}


T = TypeVar("T")


async def timed(what: str, work: Callable[[], T]) -> T:
    """The result of a blocking conversation; its reply came within its deadline."""
    began = time.monotonic()
    result = await asyncio.to_thread(work)
    assert time.monotonic() - began < REPLY_SECONDS, f"{what} took {time.monotonic() - began:.1f} s"
    return result


@dataclass(slots=True)
class Clients:
    """Sessions opened before an outage."""

    smtp: smtplib.SMTP
    used: imaplib.IMAP4
    idle: imaplib.IMAP4
    pop3: poplib.POP3

    @classmethod
    def open(cls, platform: Platform) -> Clients:
        used, idle = platform.imap("bob"), platform.imap("bob")
        used.select("INBOX")
        idle.select("INBOX")
        idle.send(b"i1 IDLE\r\n")
        assert idle.readline().startswith(b"+")
        smtp = platform.mx()
        smtp.ehlo("client.example")
        return cls(smtp, used, idle, platform.pop3("alice"))

    def close(self) -> None:
        self.smtp.close()
        self.used.shutdown()
        self.idle.shutdown()
        self.pop3.close()


def rcpt(client: smtplib.SMTP, forward_path: str) -> int:
    """The first code that is not 250, or 250. The session stays open."""
    for command in ("RSET", "MAIL FROM:<someone@client.example>", f"RCPT TO:<{forward_path}>"):
        code, _ = client.docmd(command)
        if code != 250:
            return code
    return 250


def data(client: smtplib.SMTP, forward_path: str) -> int:
    code = rcpt(client, forward_path)
    return code if code != 250 else client.data(b"Subject: probe\r\n\r\nHello\r\n")[0]


def append(client: imaplib.IMAP4) -> tuple[str, bytes]:
    status, lines = client.append("Drafts", "", "", b"Subject: draft\r\n\r\nHello\r\n")
    return status, lines[0]


def status_of(client: imaplib.IMAP4) -> tuple[str, bytes]:
    status, lines = client.status("INBOX", "(MESSAGES)")
    return status, lines[0]


def pop3_reply(client: poplib.POP3, command: str) -> bytes:
    try:
        return client._shortcmd(command)  # type: ignore[attr-defined,no-any-return]
    except poplib.error_proto as error:
        return bytes(error.args[0])


async def refused_meanwhile(platform: Platform, engine: str, clients: Clients) -> None:
    bob, nobody = platform.address("bob"), f"nobody-{time.monotonic_ns()}@{platform.domain}"
    if engine == "postgres":
        assert await timed("RCPT", lambda: rcpt(clients.smtp, nobody)) == 451
        status, text = await timed("STATUS", lambda: status_of(clients.used))
        assert (status, b"[UNAVAILABLE]" in text) == ("NO", True), text
        assert b"[SYS/TEMP]" in await timed("login", lambda: pop3_login(platform))
    else:
        assert await timed("DATA", lambda: data(clients.smtp, bob)) == 451
    if engine == "s3":
        status, text = await timed("APPEND", lambda: append(clients.used))
        assert (status, b"[UNAVAILABLE]" in text) == ("NO", True), text
        assert b"[SYS/TEMP]" in await timed("RETR", lambda: pop3_reply(clients.pop3, "RETR 1"))
    if engine == "nats":
        assert await timed("STATUS", lambda: status_of(clients.used)[0]) == "OK"
        assert (await timed("STAT", lambda: pop3_reply(clients.pop3, "STAT"))).startswith(b"+OK")


def pop3_login(platform: Platform) -> bytes:
    client = poplib.POP3(LOOPBACK, platform.plan.ports.services.pop3, timeout=30)
    try:
        client.stls(platform.tls())
        client.user(platform.address("bob"))
        return client.pass_(DEMO_PASSWORD)
    except poplib.error_proto as error:
        return bytes(error.args[0])
    finally:
        client.close()


def read_news(client: imaplib.IMAP4) -> None:
    """Read IDLE until EXISTS arrives, then end it; the session is the one from before."""
    while not (line := client.readline()).endswith(b"EXISTS\r\n"):
        assert line.startswith(b"* "), line
    client.send(b"DONE\r\n")
    while not (line := client.readline()).startswith(b"i1 OK"):
        assert line.startswith(b"* "), line


def send_to(platform: Platform, recipient: str, subject: str) -> None:
    with platform.submission("bob") as client:
        text = f"From: {platform.address('bob')}\r\nSubject: {subject}\r\n\r\nHello\r\n"
        client.sendmail(platform.address("bob"), [platform.address(recipient)], text.encode())


async def all_ready(platform: Platform) -> None:
    for service in SERVICES:
        await until(lambda: page(platform, service, "readyz")[0] == 200, f"{service} ready")  # noqa: B023


@pytest.mark.parametrize("way", ["gone", "frozen"])
@pytest.mark.parametrize("engine", NEEDS)
async def test_an_engine_that_is_away_costs_no_process_and_no_message(
    platform: Platform, engine: str, way: str
) -> None:
    await asyncio.to_thread(send_to, platform, "alice", f"to fetch {engine} {way}")
    await until(lambda: f"to fetch {engine} {way}" in platform.subjects("alice"), "a message to fetch")
    sender = Sender(platform, platform.address("bob"), f"away-{engine}-{way}")
    before, clients = pids(platform), await asyncio.to_thread(Clients.open, platform)
    try:
        async with sending(sender):
            await until(lambda: sender.count() >= 5, "some mail")
            async with away(platform, engine, way):
                for service in NEEDS[engine]:
                    await until(lambda: unready(platform, service), f"{service} not ready")  # noqa: B023
                await refused_meanwhile(platform, engine, clients)
                for service in SERVICES:
                    assert (await asyncio.to_thread(page, platform, service, "livez"))[0] == 200, service
            await all_ready(platform)
            count = sender.count()
            await until(lambda: sender.count() >= count + 5, "mail flows again")
        assert set(sender.refused) <= {421, 451, 454}
        assert set((await arrivals(platform, "bob", sender)).values()) == {1}
        await asyncio.wait_for(asyncio.to_thread(read_news, clients.idle), 10)
        assert (await asyncio.to_thread(status_of, clients.used))[0] == "OK"
        assert await asyncio.to_thread(data, clients.smtp, platform.address("bob")) == 250
        assert pids(platform) == before
    finally:
        clients.close()


def logs_in(imap: imaplib.IMAP4, login: str) -> bool:
    """The service is back before each client's gRPC channel has noticed: until then the answer is a temporary one."""
    try:
        return imap.login(login, DEMO_PASSWORD)[0] == "OK"
    except imaplib.IMAP4.error as error:
        assert "[UNAVAILABLE]" in str(error)  # noqa: PT017
        return False


async def test_without_recipient_validation_all_refuse_temporarily(platform: Platform) -> None:
    clients = await asyncio.to_thread(Clients.open, platform)
    submission = smtplib.SMTP(LOOPBACK, platform.plan.ports.services.submission, timeout=30)
    imap = imaplib.IMAP4(LOOPBACK, platform.plan.ports.services.imap, timeout=30)
    try:
        await asyncio.to_thread(submission.starttls, context=platform.tls())
        await asyncio.to_thread(imap.starttls, platform.tls())
        async with away(platform, "recipient_validation", "gone"):
            await timed("EHLO and RSET", lambda: (clients.smtp.docmd("RSET"), clients.smtp.docmd("MAIL FROM:<>")))
            code, text = await timed("RCPT", lambda: clients.smtp.docmd(f"RCPT TO:<new@{platform.domain}>"))
            assert (code, text[:5]) == (451, b"4.3.0")
            with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
                await timed("AUTH", lambda: submission.login(platform.address("bob"), DEMO_PASSWORD))
            assert (refused.value.smtp_code, refused.value.smtp_error[:5]) == (454, b"4.7.0")
            with pytest.raises(imaplib.IMAP4.error, match=r"\[UNAVAILABLE\]"):
                await timed("LOGIN", lambda: imap.login(platform.address("bob"), DEMO_PASSWORD))
            assert b"[SYS/TEMP]" in await timed("PASS", lambda: pop3_login(platform))
        await all_ready(platform)
        await until(lambda: logs_in(imap, platform.address("bob")), "LOGIN is answered again")
    finally:
        clients.close()
        submission.close()
        imap.shutdown()


async def test_a_lost_stream_costs_no_message(platform: Platform) -> None:
    """The bucket is enough (invariant 2)."""
    await all_ready(platform)
    supervisor, marks = platform.stack.supervisor, [f"lost-{number}" for number in range(10)]
    await supervisor.pause("delivery")
    try:
        for mark in marks:
            await asyncio.to_thread(send_to, platform, "bob", mark)
        async with open_stores(load(JanitorSettings, platform.plan.client_environment())) as stores:
            await stores.queue.api(f"STREAM.DELETE.{stores.queue.settings.stream}")
            result = await recover(stores, since=3600.0, settle=0.0)
            # More: a pack whose jobs were never acknowledged in an outage before stays, though its senders got 451.
            assert result.messages >= len(marks)
            assert (await recover(stores, since=3600.0, settle=0.0)).messages == 0
    finally:
        await supervisor.resume("delivery")

    def arrived() -> list[str]:
        found = [subject for subject in platform.subjects("bob") if subject.startswith("lost-")]
        return sorted(found) if set(found) == set(marks) else []

    assert await until(arrived, "every message, recovered") == sorted(marks)
