"""smtp_ingress with a client of the standard library: many sessions at once, large messages, faults."""

from __future__ import annotations

import asyncio
import logging
import smtplib
from email.message import EmailMessage

import pytest

from paquebot.runtime.process.health import Health
from paquebot.runtime.settings import SettingsError, load
from paquebot.smtp_ingress import commands, server
from paquebot.smtp_ingress.service import open_server
from paquebot.smtp_ingress.session import CommandRule, Session
from paquebot.smtp_ingress.settings import SmtpIngressSettings
from paquebot.smtp_ingress.state import Role
from paquebot.wire.smtp.commands import Verb
from paquebot.wire.smtp.replies import Reply
from tests.dialogues.dialogue import client_tls
from tests.support.loopback import free_port
from tests.support.smtp_world import PASSWORD, SmtpStack


def _message(subject: str, *, body: str = "hello\n.\nend\n") -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Alice <alice@paquebot.test>"
    message["To"] = "bob@paquebot.test"
    message["Subject"] = subject
    message.set_content(body)
    return message


def _submit(port: int, message: EmailMessage, *, tls_first: bool) -> None:
    """Submit in a thread: smtplib waits for the server, which runs in this process."""
    if tls_first:
        client: smtplib.SMTP = smtplib.SMTP_SSL("127.0.0.1", port, timeout=20, context=client_tls())
    else:
        client = smtplib.SMTP("127.0.0.1", port, timeout=20)
    with client:
        if not tls_first:
            client.starttls(context=client_tls())
        client.login("alice@paquebot.test", PASSWORD)
        assert client.send_message(message) == {}


@pytest.mark.parametrize("role", [Role.SUBMISSION, Role.SUBMISSIONS])
async def test_a_client_of_the_standard_library_submits(smtp_stack: SmtpStack, role: Role) -> None:
    after = await smtp_stack.last_sequence()
    async with smtp_stack.serving() as running:
        await asyncio.to_thread(_submit, running.ports(role)[0], _message("hello"), tls_first=role is Role.SUBMISSIONS)
    (message,) = await smtp_stack.queued(after)
    assert message.envelope.client.login == "alice@paquebot.test"
    assert message.envelope.client.listener == role.value
    assert message.content.endswith(b"\r\n\r\nhello\r\n.\r\nend\r\n")
    assert message.content.startswith(b"Received: ")


@pytest.mark.parametrize("role", [Role.SUBMISSION, Role.SUBMISSIONS])
async def test_an_ipv4_client_of_a_listener_for_both_families_has_its_own_address(
    smtp_stack: SmtpStack, role: Role
) -> None:
    after = await smtp_stack.last_sequence()
    listen = {f"PAQUEBOT_SMTP_{name}_LISTEN": f"[::]:{free_port()}" for name in ("SUBMISSION", "SUBMISSIONS")}
    async with smtp_stack.serving(**listen) as running:
        await asyncio.to_thread(_submit, running.ports(role)[0], _message("hello"), tls_first=role is Role.SUBMISSIONS)
    (message,) = await smtp_stack.queued(after)
    assert message.envelope.client.address == "127.0.0.1"
    assert b"[127.0.0.1]" in message.content.partition(b"\r\n\r\n")[0]


def _send(port: int, number: int, size: int = 0) -> None:
    body = "".join(f"{line:070d}\r\n" for line in range(size // 72)) or "hello\r\n"
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        refused = client.sendmail(
            "smith@bar.example", ["bob@paquebot.test"], f"Subject: {number}\r\n\r\n{body}".encode()
        )
    assert refused == {}


async def test_many_sessions_at_once_share_packs_and_lose_nothing(smtp_stack: SmtpStack) -> None:
    after = await smtp_stack.last_sequence()
    before = len([info async for info in smtp_stack.blobs.list_packs()])
    async with smtp_stack.serving(PAQUEBOT_COMMIT_LINGER="50ms") as running:
        (port,) = running.ports(Role.MX)
        await asyncio.gather(*(asyncio.to_thread(_send, port, number) for number in range(60)))
    queued = await smtp_stack.queued(after)
    subjects = sorted(int(one.content.partition(b"Subject: ")[2].split(b"\r\n")[0]) for one in queued)
    assert subjects == list(range(60))
    assert len({one.envelope.queue_id for one in queued}) == 60
    assert len([info async for info in smtp_stack.blobs.list_packs()]) - before < 60


async def test_a_large_message_is_stored_whole(smtp_stack: SmtpStack) -> None:
    after = await smtp_stack.last_sequence()
    async with smtp_stack.serving() as running:
        await asyncio.to_thread(_send, running.ports(Role.MX)[0], 1, 12_000_000)
    (message,) = await smtp_stack.queued(after)
    lines = message.content.partition(b"\r\n\r\n")[2].split(b"\r\n")
    assert lines == [b"%070d" % line for line in range(12_000_000 // 72)] + [b""]


@pytest.mark.parametrize(("role", "reply"), [(Role.MX, b"451 4.3.0 "), (Role.SUBMISSIONS, b"554 5.3.0 ")])
async def test_an_unexpected_error_is_not_shown_to_the_client(
    smtp_stack: SmtpStack,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    role: Role,
    reply: bytes,
) -> None:
    """After a 451 the sending server keeps the message until the fault is fixed; a 554 would fail it immediately."""

    async def broken(session: Session, argument: str) -> Reply:
        raise RuntimeError("the secret of the engine")

    monkeypatch.setattr(server, "COMMANDS", {**commands.COMMANDS, Verb.VRFY: CommandRule(broken)})
    async with smtp_stack.serving() as running:
        tls = client_tls() if role is Role.SUBMISSIONS else None
        reader, writer = await asyncio.open_connection("127.0.0.1", running.ports(role)[0], ssl=tls)
        await reader.readline()
        with caplog.at_level(logging.ERROR):
            writer.write(b"VRFY alice\r\nNOOP\r\n")
            answer = await reader.readline()
        assert answer.startswith(reply)
        assert b"secret" not in answer
        assert b"RuntimeError" not in answer
        incident = answer.rpartition(b"incident ")[2].rstrip(b")\r\n").decode()
        assert [record.fields["incident"] for record in caplog.records] == [incident]  # type: ignore[attr-defined]
        assert await reader.readline() == b"250 2.0.0 Ok\r\n"
        writer.close()


async def test_garbage_for_a_handshake_ends_one_connection_only(smtp_stack: SmtpStack) -> None:
    async with smtp_stack.serving() as running:
        (port,) = running.ports(Role.SUBMISSIONS)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"EHLO client.example\r\n")
        answer = await reader.read()
        assert b"220" not in answer
        writer.close()
        await asyncio.to_thread(_submit, port, _message("after garbage"), tls_first=True)


async def test_readiness_names_the_engine_that_is_away(smtp_stack: SmtpStack) -> None:
    settings = load(
        SmtpIngressSettings,
        {
            **smtp_stack.environ,
            "PAQUEBOT_S3_ENDPOINT": "http://127.0.0.1:9",
            "PAQUEBOT_RECIPIENT_VALIDATION": "127.0.0.1:9",
        },
    )
    health = Health(started=True)
    async with open_server(settings, health):
        away = {reason.split(":")[0] for reason in await health.unready()}
    assert away == {"s3", "recipient_validation"}
    health = Health(started=True)
    async with open_server(load(SmtpIngressSettings, smtp_stack.environ), health):
        assert await health.unready() == []


async def test_the_drain_is_bounded_and_closes_the_listeners(smtp_stack: SmtpStack) -> None:
    async with smtp_stack.serving() as running:
        (port,) = running.ports(Role.MX)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.readline()
        writer.write(b"EHLO x\r\n")
        while not (await reader.readline()).startswith(b"250 "):
            pass
        writer.write(b"MAIL FROM:<a@b.example>\r\n")
        await reader.readline()
        assert len(running.sessions) == 1
        await running.drain(0.1)
        assert not running.sessions
        assert await reader.read() == b""
        writer.close()
        with pytest.raises(OSError, match=r".*"):
            await asyncio.open_connection("127.0.0.1", port)


def test_settings_that_contradict_each_other() -> None:
    with pytest.raises(SettingsError) as caught:
        load(SmtpIngressSettings, {"PAQUEBOT_SMTP_RECIPIENTS": "5000", "PAQUEBOT_SMTP_LINE": "100"})
    assert len(caught.value.faults) == 1
    with pytest.raises(SettingsError) as caught:
        load(SmtpIngressSettings, {})
    assert "PAQUEBOT_TLS_CERTIFICATE" in caught.value.faults[0]
    settings = load(
        SmtpIngressSettings, {"PAQUEBOT_SMTP_SUBMISSION_LISTEN": "", "PAQUEBOT_SMTP_SUBMISSIONS_LISTEN": ""}
    )
    assert settings.listen.submission == ()
