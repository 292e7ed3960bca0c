"""The round trip: one account submits a message, another reads it over IMAP and POP3.

It uses the mail clients of Python's standard library, which share no code with this platform.
"""

import contextlib
import email.message
import email.policy
import email.utils
import imaplib
import ipaddress
import poplib
import smtplib
import socket
import ssl
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from paquebot.cli.roundtrip.route import RoundTripRoute, ServiceAddress
from paquebot.cli.up.layout import UpError

_DEADLINE_SECONDS = 30.0
_PAUSE_SECONDS = 0.02
_ATTACHMENT = bytes(range(256)) * 8
_LATEST = 20  # messages of the maildrop to search


class RoundTripError(UpError):
    """The message did not arrive; the text is one sentence that says where it stopped."""


@dataclass(frozen=True, slots=True)
class TimedStep:
    """One step of the round trip."""

    what: str
    seconds: float


def round_trip(route: RoundTripRoute, say: Callable[[TimedStep], None]) -> None:
    """Submit, wait, read over IMAP and POP3; `say` gets each step with its time. Blocks. Raises RoundTripError."""
    mark = uuid.uuid4().hex
    steps: tuple[tuple[str, Callable[[], str]], ...] = (
        ("submission", lambda: _submit(route, mark)),
        ("imap", lambda: _read_imap(route, mark)),
        ("pop3", lambda: _read_pop3(route, mark)),
    )
    start = time.perf_counter()
    for name, step in steps:
        begin = time.perf_counter()
        try:
            what = step()
        except (OSError, smtplib.SMTPException, imaplib.IMAP4.error, poplib.error_proto) as error:
            endpoint: ServiceAddress = getattr(route, name)
            text = f"the round trip failed at {name} ({endpoint}): {_why(error)}"
            raise RoundTripError(text) from error
        say(TimedStep(what, time.perf_counter() - begin))
    say(TimedStep("in total", time.perf_counter() - start))


def _why(error: Exception) -> str:
    """The reason of a failure, for an operator."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused; is one of its pods ready?"
    if isinstance(error, socket.gaierror):
        return "the name has no address; does its Service exist?"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted for this name: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return f"no answer within {_DEADLINE_SECONDS:g} s"
    if isinstance(error, smtplib.SMTPResponseException):
        return f"the server answered {error.smtp_code} {_text(error.smtp_error)}"
    if isinstance(error, (imaplib.IMAP4.error, poplib.error_proto)):
        return f"the server answered {_text(error.args[0] if error.args else '')}"
    return f"{type(error).__name__}: {error}"


def _text(answer: object) -> str:
    return answer.decode(errors="replace") if isinstance(answer, bytes) else str(answer)


def _message(route: RoundTripRoute, mark: str) -> email.message.EmailMessage:
    sender, reader = route.sender, route.reader
    message = email.message.EmailMessage(policy=email.policy.SMTP)
    message["From"] = f"{sender.name.title()} <{sender.address}>"
    message["To"] = f"{reader.name.title()} <{reader.address}>"
    message["Subject"] = f"A first letter ({mark[:8]})"
    message["Date"] = email.utils.localtime()
    message["Message-ID"] = f"<{mark}@{sender.address.partition('@')[2]}>"
    message.set_content(f"Hello {reader.name.title()},\n\nthe packet boat has arrived.\n\n{sender.name.title()}\n")
    html = f"<p>Hello {reader.name.title()},</p><p>the packet boat has <b>arrived</b>.</p>"
    message.add_alternative(html, subtype="html")
    message.add_attachment(_ATTACHMENT, maintype="application", subtype="octet-stream", filename="cargo.bin")
    return message


def _submit(route: RoundTripRoute, mark: str) -> str:
    endpoint = route.submission
    _reach(route, endpoint)
    with _smtp(endpoint, route.tls) as client:
        client.login(route.sender.address, route.sender.password)
        if refused := client.send_message(_message(route, mark)):
            raise RoundTripError(f"the server refused {', '.join(refused)}")
    text = "submitted a message over TLS with AUTH"
    return f"{route.sender.name} {text} (port {endpoint.port}): stored in S3, queued on JetStream"


def _smtp(endpoint: ServiceAddress, tls: ssl.SSLContext) -> smtplib.SMTP:
    if endpoint.implicit:
        return smtplib.SMTP_SSL(endpoint.host, endpoint.port, context=tls, timeout=_DEADLINE_SECONDS)
    client = smtplib.SMTP(endpoint.host, endpoint.port, timeout=_DEADLINE_SECONDS)
    with _closed_on_failure(client.close):
        client.starttls(context=tls)
    return client


def _read_imap(route: RoundTripRoute, mark: str) -> str:
    endpoint = route.imap
    _reach(route, endpoint)
    with _imap(endpoint, route.tls) as client:
        client.login(route.reader.address, route.reader.password)
        client.select("INBOX", readonly=True)
        number = _wait(lambda: _find(client, mark), "the message was accepted, but not delivered to the mailbox")
        _, parts = client.fetch(number, "(BODY.PEEK[])")
        content = next(part[1] for part in parts if isinstance(part, tuple))
    _check(content, route.client)
    seen = f", from our own address {route.client}" if route.client else ""
    return f"{route.reader.name} reads it over IMAP (port {endpoint.port}): complete, with its attachment{seen}"


def _imap(endpoint: ServiceAddress, tls: ssl.SSLContext) -> imaplib.IMAP4:
    if endpoint.implicit:
        return imaplib.IMAP4_SSL(endpoint.host, endpoint.port, ssl_context=tls, timeout=_DEADLINE_SECONDS)
    client = imaplib.IMAP4(endpoint.host, endpoint.port, timeout=_DEADLINE_SECONDS)
    with _closed_on_failure(client.shutdown):
        client.starttls(tls)
    return client


def _find(client: imaplib.IMAP4, mark: str) -> str:
    _, found = client.search(None, "HEADER", "Message-ID", mark)
    numbers: list[bytes] = found[0].split() if found and found[0] else []
    return numbers[-1].decode() if numbers else ""


def _read_pop3(route: RoundTripRoute, mark: str) -> str:
    endpoint = route.pop3
    _reach(route, endpoint)
    with contextlib.closing(_pop3(endpoint, route.tls)) as client:
        client.user(route.reader.address)
        client.pass_(route.reader.password)
        newest = len(client.list()[1])
        for number in range(newest, max(0, newest - _LATEST), -1):
            content = b"\r\n".join(client.retr(number)[1]) + b"\r\n"
            if mark.encode() in content:
                _check(content, route.client)
                client.quit()
                return f"{route.reader.name} reads it over POP3 (port {endpoint.port})"
    raise RoundTripError("the round trip failed at pop3: the message is not in the maildrop")


def _pop3(endpoint: ServiceAddress, tls: ssl.SSLContext) -> poplib.POP3:
    if endpoint.implicit:
        return poplib.POP3_SSL(endpoint.host, endpoint.port, context=tls, timeout=_DEADLINE_SECONDS)
    client = poplib.POP3(endpoint.host, endpoint.port, timeout=_DEADLINE_SECONDS)
    with _closed_on_failure(client.close):
        client.stls(tls)
    return client


@contextlib.contextmanager
def _closed_on_failure(close: Callable[[], object]) -> Iterator[None]:
    """Close the client after an error, so that its socket is not left open."""
    try:
        yield
    except BaseException:
        close()
        raise


def _reach(route: RoundTripRoute, endpoint: ServiceAddress) -> None:
    """Wait until the listener accepts connections, for `connect_timeout` at most. Raises OSError."""
    deadline = time.monotonic() + route.connect_timeout
    while True:
        try:
            socket.create_connection((endpoint.host, endpoint.port), timeout=_DEADLINE_SECONDS).close()
            return
        except OSError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(_PAUSE_SECONDS * 10)


def _check(content: bytes, client: str) -> None:
    received = email.message_from_bytes(content, policy=email.policy.SMTP)
    if [part.get_content() for part in received.iter_attachments()] != [_ATTACHMENT]:
        raise RoundTripError("the round trip failed: the attachment that arrived is not the one that was sent")
    if not client:
        return
    seen = client_address(str(received.get("Received", "")))
    if seen is None or seen not in {ipaddress.ip_address(address.strip()) for address in client.split(",")}:
        text = "a proxy or load balancer hides the addresses of clients"
        raise RoundTripError(f"the platform saw the client as {seen}, but it is {client}: {text}")


def client_address(field: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address-literal of a Received field's TCP-info (RFC 5321 §4.4): `from name ([192.0.2.1]) by ...`."""
    literal = field.partition("([")[2].partition("])")[0]
    try:
        return ipaddress.ip_address(literal.removeprefix("IPv6:"))
    except ValueError:
        return None


def _wait(look: Callable[[], str], failure: str) -> str:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(_PAUSE_SECONDS)
    raise RoundTripError(f"the round trip failed: {failure} within {_DEADLINE_SECONDS:g} s")
