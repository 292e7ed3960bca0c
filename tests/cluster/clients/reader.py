"""Python's own mail clients outside the cluster: one task each, its finding printed as JSON."""

from __future__ import annotations

import argparse
import contextlib
import imaplib
import json
import poplib
import socket
import ssl
from collections.abc import Callable
from typing import Any

TIMEOUT_SECONDS = 30.0
USER, FLAG = "bob@paquebot.test", "\\Flagged"


def _context(authority: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority)
    context.check_hostname = False  # the host is an address here; the chain still counts
    return context


def _imap(host: str, authority: str, password: str) -> imaplib.IMAP4:
    client = imaplib.IMAP4(host, 143, timeout=TIMEOUT_SECONDS)
    client.starttls(_context(authority))
    client.login(USER, password)
    client.select("INBOX")
    return client


def two_connections(arguments: argparse.Namespace) -> dict[str, Any]:
    """What one connection marks, the other sees; and the message with the wanted subject, whole."""
    with (
        _imap(arguments.host, arguments.authority, arguments.password) as one,
        _imap(arguments.host, arguments.authority, arguments.password) as other,
    ):
        uid = one.uid("SEARCH", "SUBJECT", arguments.subject)[1][0].decode()
        message = one.uid("FETCH", uid, "(BODY.PEEK[])")[1][0][1].decode()
        one.uid("STORE", uid, "+FLAGS", f"({FLAG})")
        other.noop()
        flags = other.uid("FETCH", uid, "(FLAGS)")[1][0].decode()
    return {"uid": uid, "message": message, "flags": flags}


def maildrop(arguments: argparse.Namespace) -> dict[str, Any]:
    """The subjects of all messages, by POP3 with STLS."""
    client = poplib.POP3(arguments.host, 110, timeout=TIMEOUT_SECONDS)
    client.stls(_context(arguments.authority))
    client.user(USER)
    client.pass_(arguments.password)
    subjects = []
    for number in range(1, client.stat()[0] + 1):
        lines = client.top(number, 0)[1]
        subjects += [line.decode().partition(":")[2].strip() for line in lines if line.lower().startswith(b"subject:")]
    client.quit()
    return {"subjects": subjects}


def untrusted_proxy(arguments: argparse.Namespace) -> dict[str, Any]:
    """All that the server says to a PROXY header (haproxy's proxy-protocol.txt §2.1) and to EHLO after it."""
    heard = b""
    with socket.create_connection((arguments.host, arguments.port), TIMEOUT_SECONDS) as connection:
        connection.sendall(f"PROXY TCP4 {arguments.claimed} 192.0.2.1 4711 25\r\nQUIT\r\n".encode())
        with contextlib.suppress(OSError):
            while part := connection.recv(4096):
                heard += part
    return {"heard": heard.decode(errors="replace")}


_TASKS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "two-connections": two_connections,
    "maildrop": maildrop,
    "untrusted-proxy": untrusted_proxy,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=_TASKS)
    parser.add_argument("host")
    parser.add_argument("--port", type=int, default=25)
    parser.add_argument("--authority", default="")
    parser.add_argument("--password", default="")
    parser.add_argument("--subject", default="")
    parser.add_argument("--claimed", default="", help="address in the PROXY header")
    arguments = parser.parse_args()
    print(json.dumps(_TASKS[arguments.task](arguments)))


if __name__ == "__main__":
    main()
