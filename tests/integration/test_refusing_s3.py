"""S3 refuses writes, or does not answer them: mail is refused in time, readiness reports it, nothing is doubled."""

from __future__ import annotations

import asyncio
import smtplib

import pytest

from paquebot.runtime.process.health import Health
from paquebot.runtime.settings import load
from paquebot.smtp_ingress.service import open_server
from paquebot.smtp_ingress.settings import SmtpIngressSettings
from paquebot.smtp_ingress.state import Role
from tests.support.imap_wire import connected
from tests.support.imap_world import ImapStack
from tests.support.lying_s3 import Lie, LyingS3
from tests.support.smtp_world import SmtpStack

RAW = b"From: a@example.org\r\nSubject: hello\r\n\r\nHow do you do?\r\n"


def sent(port: int) -> int:
    """Send a message; return the reply code."""
    with smtplib.SMTP("127.0.0.1", port, timeout=30.0) as client:
        try:
            client.sendmail("smith@bar.example", ["alice@paquebot.test"], RAW)
        except smtplib.SMTPDataError as error:
            return error.smtp_code
    return 250


@pytest.mark.parametrize("lie", [Lie.FORBIDDEN, Lie.FULL, Lie.NO_ANSWER])
async def test_mail_is_refused_and_readiness_reports_why(smtp_stack: SmtpStack, lying_s3: LyingS3, lie: Lie) -> None:
    last = await smtp_stack.last_sequence()
    environ = {**smtp_stack.environ, "PAQUEBOT_S3_ENDPOINT": lying_s3.endpoint, "PAQUEBOT_COMMIT_TIMEOUT": "1s"}
    health = Health(started=True)
    async with open_server(load(SmtpIngressSettings, environ), health) as server:
        assert await health.unready() == []
        lying_s3.set_lie(lie)
        async with asyncio.timeout(20.0):  # S3_TIMEOUT alone lasts as long
            assert await asyncio.to_thread(sent, server.ports(Role.MX)[0]) == 451
        assert (await until(health, ready=False))[0].startswith("s3: ")
        lying_s3.set_lie(Lie.NONE)
        await until(health, ready=True)
        assert await asyncio.to_thread(sent, server.ports(Role.MX)[0]) == 250
    assert [message.content.endswith(RAW) for message in await smtp_stack.queued(last)] == [True]


async def until(health: Health, *, ready: bool) -> list[str]:
    """Return the reasons, once /readyz gives them."""
    async with asyncio.timeout(20.0):
        while bool(reasons := await health.unready()) is ready:
            await asyncio.sleep(0.05)
    return reasons


async def test_an_append_is_refused_in_time(imap_stack: ImapStack, lying_s3: LyingS3) -> None:
    reader = await imap_stack.reader()
    await imap_stack.deliver(reader, RAW)
    environ = {"PAQUEBOT_S3_ENDPOINT": lying_s3.endpoint, "PAQUEBOT_COMMIT_TIMEOUT": "1s"}
    async with imap_stack.serving(**environ) as server, connected(server.port("imaps"), reader) as client:
        lying_s3.set_lie(Lie.NO_ANSWER)
        async with asyncio.timeout(20.0):
            await client.say(b"a APPEND INBOX {%d+}\r\n%b\r\n" % (len(RAW), RAW))
            assert (await client.line()).startswith(b"a NO [UNAVAILABLE]")
        await client.ok("SELECT INBOX")
        assert len(await client.ok("FETCH 1:* BODY.PEEK[]")) == 1  # reading still works
        lying_s3.set_lie(Lie.NONE)
