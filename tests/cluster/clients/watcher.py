"""IMAP clients outside the cluster that keep INBOX in step, and look whether what they know stays true.

Run as a program until SIGTERM. Each connection of an account remembers UIDVALIDITY and, for each UID, the message's
X-Attempt. After each reconnect it reads the whole list again: a UID that now names another message, or a UID that is
gone, is a fault (no client expunges here). Each line of its log is an event:
{"event": "connected"|"lost"|"fault"|"end", ...}.
"""

from __future__ import annotations

import argparse
import contextlib
import imaplib
import json
import re
import signal
import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import TextIO

PAUSE_SECONDS = 0.5
_ATTEMPT = re.compile(rb"x-attempt:\s*([0-9a-f]+)", re.IGNORECASE)
_UID = re.compile(rb"\bUID (\d+)")
_FIELD = "(UID BODY.PEEK[HEADER.FIELDS (X-ATTEMPT)])"

imaplib._MAXLINE = 10_000_000  # type: ignore[attr-defined]


def known(client: imaplib.IMAP4, first: int = 1) -> dict[int, str]:
    """UID to X-Attempt (empty: it has none) of INBOX from `first` on."""
    found: dict[int, str] = {}
    status, parts = client.uid("FETCH", f"{first}:*", _FIELD)
    if status != "OK":
        raise imaplib.IMAP4.error(f"FETCH: {parts!r}")
    for part in parts:
        if isinstance(part, tuple) and (uid := _UID.search(part[0])):
            attempt = _ATTEMPT.search(part[1])
            found[int(uid[1])] = attempt[1].decode() if attempt else ""
    return {uid: attempt for uid, attempt in found.items() if uid >= first}


def open_inbox(host: str, authority: str, user: str, password: str) -> tuple[imaplib.IMAP4, int]:
    """A connection over STARTTLS with INBOX selected, and its UIDVALIDITY."""
    context = ssl.create_default_context(cafile=authority)
    context.check_hostname = False  # the host is an address here; the chain still counts
    client = imaplib.IMAP4(host, 143, timeout=30)
    try:
        client.starttls(context)
        client.login(user, password)
        status, said = client.select("INBOX")
        if status != "OK":
            raise imaplib.IMAP4.abort(f"SELECT: {said!r}")
    except BaseException:
        with contextlib.suppress(OSError):
            client.shutdown()
        raise
    return client, int(client.response("UIDVALIDITY")[1][0])


@dataclass(slots=True)
class Watcher:
    host: str
    authority: str
    user: str
    password: str
    log: TextIO
    lock: threading.Lock
    stop: threading.Event
    validity: int = 0
    seen: dict[int, str] = field(default_factory=dict)

    def write(self, event: str, **fields: object) -> None:
        with self.lock:
            self.log.write(json.dumps({"event": event, "user": self.user, "at": time.time(), **fields}) + "\n")
            self.log.flush()

    def run(self) -> None:
        lost_at = 0.0
        while not self.stop.is_set():
            try:
                client, validity = open_inbox(self.host, self.authority, self.user, self.password)
            except (OSError, imaplib.IMAP4.error) as error:
                self.write("refused", why=f"{type(error).__name__}: {error}")
                self.stop.wait(PAUSE_SECONDS)
                continue
            self.write("connected", away=round(time.time() - lost_at, 3) if lost_at else 0.0)
            try:
                self._compare(validity, known(client))
                self._follow(client)
            except (OSError, imaplib.IMAP4.error) as error:
                self.write("lost", why=f"{type(error).__name__}: {error}")
                lost_at = time.time()
            finally:
                with contextlib.suppress(OSError, imaplib.IMAP4.error):
                    client.logout()
        self.write("end", validity=self.validity, messages=len(self.seen))

    def _compare(self, validity: int, now: dict[int, str]) -> None:
        if self.validity and validity != self.validity:
            self.write("fault", why=f"UIDVALIDITY was {self.validity} and is {validity}")
        for uid, attempt in self.seen.items():
            if now.get(uid) != attempt:
                self.write("fault", why=f"UID {uid} was {attempt!r} and is {now.get(uid)!r}")
        self.validity = validity
        self.seen = now

    def _follow(self, client: imaplib.IMAP4) -> None:
        while not self.stop.wait(PAUSE_SECONDS):
            client.noop()
            self.seen |= known(client, max(self.seen, default=0) + 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("host")
    parser.add_argument("--authority", required=True)
    parser.add_argument("--password", required=True)
    parser.add_argument("--user", action="append", required=True)
    parser.add_argument("--connections", type=int, default=2, help="of each user")
    parser.add_argument("--log", required=True)
    parser.add_argument("--once", action="store_true", help="print UIDVALIDITY and all of INBOX as JSON, and end")
    arguments = parser.parse_args()
    if arguments.once:
        client, validity = open_inbox(arguments.host, arguments.authority, arguments.user[0], arguments.password)
        print(json.dumps({"validity": validity, "messages": known(client)}))
        client.logout()
        return

    stop, lock = threading.Event(), threading.Lock()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with open(arguments.log, "a", encoding="utf-8") as log:
        threads = [
            threading.Thread(
                target=Watcher(arguments.host, arguments.authority, user, arguments.password, log, lock, stop).run
            )
            for user in arguments.user
            for _ in range(arguments.connections)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
