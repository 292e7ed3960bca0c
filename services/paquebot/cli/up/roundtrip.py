"""The main job, once, in front of the user: alice submits a message to bob, and bob reads it over IMAP and POP3.

Done with Python's own mail clients, which know nothing of this platform.
"""

import contextlib
import email.message
import email.policy
import email.utils
import imaplib
import poplib
import smtplib
import ssl
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from paquebot.cli.engines.ports import LOOPBACK
from paquebot.cli.up.environment import Plan
from paquebot.cli.up.layout import UpError

PASSWORD = "paquebot"  # noqa: S105 - the demo accounts' password, told to the person
SENDER = "alice"
READER = "bob"
_DEADLINE_SECONDS = 30.0
_PAUSE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Timed:
    """One step of the round trip."""

    what: str
    seconds: float


def round_trip(plan: Plan, say: Callable[[Timed], None]) -> None:
    """Send, wait, read twice. Each step is told with its time. Raises UpError with the reason. Blocks."""
    mark = uuid.uuid4().hex
    tls = ssl.create_default_context(cafile=str(plan.layout.certificate))
    steps: tuple[tuple[str, Callable[[], str]], ...] = (
        ("submit", lambda: _submit(plan, tls, mark)),
        ("imap", lambda: _read_imap(plan, tls, mark)),
        ("pop3", lambda: _read_pop3(plan, tls, mark)),
    )
    start = time.perf_counter()
    for name, step in steps:
        begin = time.perf_counter()
        try:
            what = step()
        except (OSError, smtplib.SMTPException, imaplib.IMAP4.error, poplib.error_proto) as error:
            raise UpError(f"the round trip failed at {name}: {type(error).__name__}: {error}") from error
        say(Timed(what, time.perf_counter() - begin))
    say(Timed("the whole way", time.perf_counter() - start))


def _message(plan: Plan, mark: str) -> email.message.EmailMessage:
    message = email.message.EmailMessage(policy=email.policy.SMTP)
    message["From"] = f"Alice <{SENDER}@{plan.domain}>"
    message["To"] = f"Bob <{READER}@{plan.domain}>"
    message["Subject"] = f"A first letter ({mark[:8]})"
    message["Date"] = email.utils.localtime()
    message["Message-ID"] = f"<{mark}@{plan.domain}>"
    message.set_content("Hello Bob,\n\nthe packet boat has arrived.\n\nAlice\n")
    message.add_alternative("<p>Hello Bob,</p><p>the packet boat has <b>arrived</b>.</p>", subtype="html")
    message.add_attachment(bytes(range(256)) * 8, maintype="application", subtype="octet-stream", filename="cargo.bin")
    return message


def _submit(plan: Plan, tls: ssl.SSLContext, mark: str) -> str:
    port = plan.ports.services.submissions
    with smtplib.SMTP_SSL(LOOPBACK, port, context=tls, timeout=_DEADLINE_SECONDS) as client:
        client.login(f"{SENDER}@{plan.domain}", PASSWORD)
        refused = client.send_message(_message(plan, mark))
        if refused:
            raise UpError(f"the server refused {', '.join(refused)}")
    return f"{SENDER} submitted a message over TLS with AUTH (port {port}): kept in S3, queued on JetStream"


def _read_imap(plan: Plan, tls: ssl.SSLContext, mark: str) -> str:
    port = plan.ports.services.imaps
    with imaplib.IMAP4_SSL(LOOPBACK, port, ssl_context=tls, timeout=_DEADLINE_SECONDS) as client:
        client.login(f"{READER}@{plan.domain}", PASSWORD)
        client.select("INBOX", readonly=True)
        number = _wait(lambda: _find(client, mark), "the message did not reach the mailbox")
        _, parts = client.fetch(number, "(BODY.PEEK[])")
        content = next(part[1] for part in parts if isinstance(part, tuple))
    _check(content)
    return f"{READER} sees it over IMAP (port {port}): whole, with its attachment"


def _find(client: imaplib.IMAP4, mark: str) -> str:
    _, found = client.search(None, "HEADER", "Message-ID", mark)
    numbers: list[bytes] = found[0].split() if found and found[0] else []
    return numbers[-1].decode() if numbers else ""


def _read_pop3(plan: Plan, tls: ssl.SSLContext, mark: str) -> str:
    port = plan.ports.services.pop3s
    client = poplib.POP3_SSL(LOOPBACK, port, context=tls, timeout=_DEADLINE_SECONDS)
    with contextlib.closing(client):
        client.user(f"{READER}@{plan.domain}")
        client.pass_(PASSWORD)
        newest = len(client.list()[1])
        for number in range(newest, max(0, newest - 20), -1):
            content = b"\r\n".join(client.retr(number)[1]) + b"\r\n"
            if mark.encode() in content:
                _check(content)
                client.quit()
                return f"{READER} sees it over POP3 (port {port})"
    raise UpError("the round trip failed at pop3: the message is not in the maildrop")


def _check(content: bytes) -> None:
    received = email.message_from_bytes(content, policy=email.policy.SMTP)
    attached = [part.get_content() for part in received.iter_attachments()]
    if attached != [bytes(range(256)) * 8]:
        raise UpError("the round trip failed: the attachment that came is not the one that was sent")


def _wait(look: Callable[[], str], failure: str) -> str:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(_PAUSE_SECONDS)
    raise UpError(f"the round trip failed: {failure} within {_DEADLINE_SECONDS:g} s")
