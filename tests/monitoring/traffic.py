"""Mail of every kind, round after round: what the dashboards show must be there to be seen."""

from __future__ import annotations

import asyncio
import contextlib
import imaplib
import poplib
import smtplib
import threading
from collections.abc import AsyncIterator

from tests.e2e.platforms import Platform
from tests.support.remote_host import Answer

ABROAD = ("takes.test", "defers.test", "refuses.test")


def reply_by_domain(command: str) -> str:
    """What the host of all those domains says to RCPT."""
    if "@defers.test" in command:
        return "451 4.2.1 Later"
    return "550 5.1.1 Nobody" if "@refuses.test" in command else "250 2.1.5 OK"


REMOTE: dict[str, Answer] = {"RCPT": reply_by_domain}


def letter(sender: str, recipient: str) -> bytes:
    return f"From: {sender}\r\nTo: {recipient}\r\nSubject: watched\r\n\r\nHow do you do?\r\n".encode()


def send(platform: Platform) -> None:
    """Submission to a mailbox here and to three hosts abroad; the MX port for a known and an unknown recipient."""
    alice, bob = platform.address("alice"), platform.address("bob")
    with platform.submission("alice") as client:
        for recipient in (bob, *(f"friend@{domain}" for domain in ABROAD)):
            client.sendmail(alice, [recipient], letter(alice, recipient))
    with platform.mx() as client:
        client.sendmail("somebody@elsewhere.test", [bob], letter("somebody@elsewhere.test", bob))
        with contextlib.suppress(smtplib.SMTPRecipientsRefused):
            client.sendmail("somebody@elsewhere.test", [platform.address("nobody")], b"\r\n")


def read_imap(platform: Platform) -> None:
    client = platform.imap("bob")
    client.select("INBOX")
    client.append("INBOX", "", "", letter("bob", "bob"))
    client.search(None, "ALL")
    for _ in range(2):  # the second time from the cache
        client.fetch("1:3", "(FLAGS BODY.PEEK[])")
    client.logout()
    with contextlib.suppress(imaplib.IMAP4.error):
        refused = imaplib.IMAP4("127.0.0.1", platform.plan.ports.services.imap)
        with refused:
            refused.starttls(platform.tls())
            refused.login(platform.address("bob"), "wrong")


def read_pop3(platform: Platform) -> None:
    client = platform.pop3("bob")
    try:
        if client.list()[1]:
            client.retr(1)
            client.dele(1)
    finally:
        client.quit()


def _round(platform: Platform, stop: threading.Event) -> None:
    while not stop.is_set():
        for step in (send, read_imap, read_pop3):
            # While an engine is away clients are refused: they come again, as in life.
            with contextlib.suppress(OSError, smtplib.SMTPException, imaplib.IMAP4.error, poplib.error_proto):
                step(platform)
        stop.wait(0.2)


@contextlib.asynccontextmanager
async def flowing(platform: Platform) -> AsyncIterator[None]:
    stop = threading.Event()
    task = asyncio.create_task(asyncio.to_thread(_round, platform, stop))
    try:
        yield
    finally:
        stop.set()
        await task
