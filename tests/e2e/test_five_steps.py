"""The whole path of a message between two platforms with DNS between them."""

from __future__ import annotations

import asyncio
import email
import imaplib
import smtplib
import threading
from email.message import EmailMessage
from functools import partial
from typing import cast

from tests.e2e.platforms import Platform, until


def letter(sender: str, recipient: str, subject: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, recipient, subject
    message.set_content("How do you do?\n")
    message.add_attachment(b"\x00\x01\x02" * 1000, maintype="application", subtype="octet-stream", filename="a.bin")
    return message


def send(platform: Platform, name: str, message: EmailMessage) -> None:
    with platform.submission(name) as client:
        assert client.send_message(message) == {}


async def test_message_travels_from_one_platform_to_the_other(platforms: tuple[Platform, Platform]) -> None:
    here, there = platforms
    message = letter(here.address("alice"), there.address("bob"), "across the water")
    await asyncio.to_thread(send, here, "alice", message)
    await until(lambda: "across the water" in there.subjects("bob"), "the message in bob's mailbox")

    def read() -> bytes:
        client = there.imap("bob")
        client.select("INBOX", readonly=True)
        _, found = client.search(None, "SUBJECT", '"across the water"')
        _, parts = client.fetch(found[0].decode(), "(BODY.PEEK[])")
        client.logout()
        return next(part[1] for part in parts if isinstance(part, tuple))

    raw = await asyncio.to_thread(read)
    received = email.message_from_bytes(raw)
    assert received["Return-Path"] == f"<{here.address('alice')}>"
    assert received["Delivered-To"] == there.address("bob")
    hops = received.get_all("Received") or []
    assert len(hops) == 2  # one from each platform
    assert "by mail.there.test" in hops[0]
    assert "by mail.here.test" in hops[1]
    assert received["Message-ID"]
    assert received["Date"]
    _, attachment = cast("list[EmailMessage]", received.get_payload())
    assert attachment.get_payload(decode=True) == b"\x00\x01\x02" * 1000


async def test_wrong_password_is_refused(platforms: tuple[Platform, Platform]) -> None:
    here, _ = platforms

    def login() -> int:
        with smtplib.SMTP("127.0.0.1", here.plan.ports.services.submission) as client:
            client.starttls(context=here.tls())
            try:
                client.login(here.address("alice"), "wrong")
            except smtplib.SMTPAuthenticationError as error:
                return error.smtp_code
        return 0

    assert await asyncio.to_thread(login) == 535


async def test_recipient_is_checked_at_rcpt(platforms: tuple[Platform, Platform]) -> None:
    here, there = platforms

    def ask() -> tuple[int, int, int]:
        with there.mx() as client:
            client.ehlo("mail.here.test")
            client.mail(here.address("alice"))
            return (
                client.rcpt(there.address("bob"))[0],
                client.rcpt(there.address("nobody"))[0],
                client.rcpt("x@elsewhere.test")[0],
            )

    assert await asyncio.to_thread(ask) == (250, 550, 550)


async def test_unknown_recipient_there_comes_back_as_a_report(platforms: tuple[Platform, Platform]) -> None:
    here, there = platforms
    message = letter(here.address("alice"), there.address("nobody"), "to nobody")
    await asyncio.to_thread(send, here, "alice", message)

    def report() -> email.message.Message | None:
        client = here.imap("alice")
        client.select("INBOX", readonly=True)
        _, found = client.search(None, "BODY", there.address("nobody"))
        try:
            if not found[0]:
                return None
            _, parts = client.fetch(found[0].split()[-1].decode(), "(BODY.PEEK[])")
            return email.message_from_bytes(next(part[1] for part in parts if isinstance(part, tuple)))
        finally:
            client.logout()

    received = await until(report, "the report in alice's mailbox")
    assert received.get_content_type() == "multipart/report"
    assert received["Return-Path"] == "<>"
    status = next(part for part in received.walk() if part.get_content_type() == "message/delivery-status")
    assert "5.1.1" in status.as_string()


async def test_two_imap_clients_stay_in_sync(platforms: tuple[Platform, Platform]) -> None:
    _, there = platforms
    first, second = await asyncio.to_thread(there.imap, "alice"), await asyncio.to_thread(there.imap, "alice")
    for client in (first, second):
        await asyncio.to_thread(client.select, "INBOX")
        client.response("EXISTS")  # what SELECT said is no news
    message = letter(there.address("bob"), there.address("alice"), "for two devices")
    await asyncio.to_thread(send, there, "bob", message)

    def news(client: imaplib.IMAP4, name: str) -> list[bytes | None]:
        client.noop()
        return [item for item in client.response(name)[1] if item is not None]

    for client in (first, second):
        assert await until(partial(news, client, "EXISTS"), "EXISTS on both")
    count = (await asyncio.to_thread(first.search, None, "ALL"))[1][0].split()[-1].decode()
    await asyncio.to_thread(first.store, count, "+FLAGS.SILENT", r"(\Flagged)")

    def flagged() -> bool:
        second.noop()
        return bool(second.search(None, "FLAGGED")[1][0])

    assert await until(flagged, "the flag on the other device")
    await asyncio.to_thread(first.store, count, "+FLAGS.SILENT", r"(\Deleted)")
    await asyncio.to_thread(first.expunge)
    assert await until(lambda: news(second, "EXPUNGE"), "EXPUNGE on the other device")
    for client in (first, second):
        await asyncio.to_thread(client.logout)


async def test_idle_hears_of_new_mail(platforms: tuple[Platform, Platform]) -> None:
    _, there = platforms
    client = await asyncio.to_thread(there.imap, "bob")
    await asyncio.to_thread(client.select, "INBOX")
    client.send(b"x1 IDLE\r\n")
    assert (await asyncio.to_thread(client.readline)).startswith(b"+")
    arrived = threading.Event()

    def listen() -> None:
        while not client.readline().endswith(b"EXISTS\r\n"):
            pass
        arrived.set()

    listener = asyncio.create_task(asyncio.to_thread(listen))
    await asyncio.to_thread(send, there, "alice", letter(there.address("alice"), there.address("bob"), "wake up"))
    await asyncio.wait_for(listener, 30)
    assert arrived.is_set()
    client.send(b"DONE\r\n")
    while not (await asyncio.to_thread(client.readline)).startswith(b"x1 OK"):
        pass
    await asyncio.to_thread(client.logout)


async def test_pop3_downloads_and_removes(platforms: tuple[Platform, Platform]) -> None:
    here, _ = platforms
    await asyncio.to_thread(send, here, "alice", letter(here.address("alice"), here.address("bob"), "to take away"))
    await until(lambda: "to take away" in here.subjects("bob"), "the message in bob's mailbox")

    def take() -> int:
        client = here.pop3("bob")
        count = len(client.list()[1])
        for number in range(1, count + 1):
            assert b"".join(client.retr(number)[1])
            client.dele(number)
        client.quit()
        return count

    assert await asyncio.to_thread(take) >= 1
    assert await asyncio.to_thread(here.subjects, "bob") == []
