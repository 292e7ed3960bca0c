"""A large mailbox as a client meets it that synchronises for the first time: SELECT and all flags, all envelopes, all
structures, all bodies; each timed by itself, each answer checked whole after its time was taken.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from tests.bench import imap_mail
from tests.bench.imap_client import Answer, ImapClient, Login, log_in
from tests.bench.imap_response import Fetched, Value

_FETCH_SECONDS = 300.0
_INTERNAL_DATE = re.compile(rb"[ 0-3]\d-[A-Z][a-z]{2}-\d{4} \d{2}:\d{2}:\d{2} [+-]\d{4}")


class Step(Enum):
    """What a client asks for, in this order."""

    FLAGS = "flags"
    """SELECT and FETCH FLAGS."""
    ENVELOPE = "envelope"
    BODYSTRUCTURE = "bodystructure"
    BODIES = "bodies"


_ITEMS = {
    Step.FLAGS: b"UID FLAGS",
    Step.ENVELOPE: b"UID ENVELOPE INTERNALDATE RFC822.SIZE",
    Step.BODYSTRUCTURE: b"UID BODYSTRUCTURE",
    Step.BODIES: b"UID BODY.PEEK[]",
}


@dataclass(slots=True)
class Synchronised:
    """Seconds by step, CPU seconds of the server by step, and what was wrong with the answers."""

    seconds: dict[Step, float] = field(default_factory=dict)
    cpu_seconds: dict[Step, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Mailbox:
    """A mailbox that holds exactly the messages of `names`, in any order."""

    login: Login
    names: Sequence[str]
    size: int = imap_mail.BYTES
    cpu: Callable[[], float] = lambda: 0.0
    """CPU seconds that the server's processes have used so far."""
    _names: dict[int, str] = field(default_factory=dict)
    _sizes: dict[int, int] = field(default_factory=dict)
    _found: Synchronised = field(default_factory=Synchronised)

    async def synchronise(self, steps: Sequence[Step] = tuple(Step)) -> Synchronised:
        """Do the steps over one new connection. Raises ServerFault."""
        self._found, self._names, self._sizes = Synchronised(), {}, {}
        client = await log_in(self.login)
        try:
            exists = 0 if Step.FLAGS in steps else await self._select(client)
            for step in steps:
                used, begin = self.cpu(), time.perf_counter()
                if step is Step.FLAGS:
                    exists = await self._select(client)
                line = b"FETCH 1:* (%s)" % _ITEMS[step]
                answer = await client.ask(line, seconds=_FETCH_SECONDS)
                self._found.seconds[step] = time.perf_counter() - begin
                self._found.cpu_seconds[step] = self.cpu() - used
                self._check(step, answer, exists)
            await client.ask(b"LOGOUT")
        finally:
            client.close()
        return self._found

    async def _select(self, client: ImapClient) -> int:
        shown = (await client.ask(b"SELECT INBOX", seconds=_FETCH_SECONDS)).numbers(b"EXISTS")
        if shown != [len(self.names)]:
            self._wrong(f"SELECT announces {shown} EXISTS of {len(self.names)}")
        return shown[-1] if shown else 0

    def _check(self, step: Step, answer: Answer, exists: int) -> None:
        shown = answer.fetched()
        if [one.number for one in shown] != list(range(1, exists + 1)):
            self._wrong(f"{step.value}: {len(shown)} FETCH responses of {exists}, not one for each message in order")
        uids = [one.uid for one in shown]
        if any(left >= right for left, right in zip([0, *uids], uids, strict=False)):
            self._wrong(f"{step.value}: UIDs do not ascend")
        check = {
            Step.FLAGS: self._flags,
            Step.ENVELOPE: self._envelope,
            Step.BODYSTRUCTURE: self._body_structure,
            Step.BODIES: self._body,
        }[step]
        for one in shown:
            if fault := check(one):
                self._wrong(f"{step.value} of UID {one.uid}: {fault}")
        if step in (Step.ENVELOPE, Step.BODIES) and sorted(self._names.values()) != sorted(self.names):
            self._wrong(f"{step.value}: not each message once")

    # --- one message: what is wrong, or nothing ---------------------------------------------------------

    def _flags(self, one: Fetched) -> str:
        return "" if one.flags == frozenset() else f"{one.flags}"

    def _envelope(self, one: Fetched) -> str:
        envelope = one.items.get(b"ENVELOPE")
        if not isinstance(envelope, list) or len(envelope) != 10 or not isinstance(envelope[1], bytes):
            return f"{envelope!r}"
        name = envelope[1].decode("ascii", "replace").rpartition(" ")[2]
        self._names[one.uid] = name
        self._sizes[one.uid] = int(one.value(b"RFC822.SIZE") or 0)
        if not _INTERNAL_DATE.fullmatch(one.value(b"INTERNALDATE") or b""):
            return f"INTERNALDATE {one.value(b'INTERNALDATE')!r}"
        return "" if envelope == _right_envelope(name) else f"{envelope!r}"

    def _body_structure(self, one: Fetched) -> str:
        structure = one.items.get(b"BODYSTRUCTURE")
        name = self._names.get(one.uid)
        if not isinstance(structure, list) or len(structure) < 8:
            return f"{structure!r}"
        media, parameters, encoding = structure[:2], structure[2], structure[5]
        shown = [*media, *(parameters if isinstance(parameters, list) else []), encoding]
        if [_upper(value) for value in shown] != [b"TEXT", b"PLAIN", b"CHARSET", b"ISO-8859-1", b"8BIT"]:
            return f"{structure!r}"
        if name is not None:
            body = imap_mail.message(name, self.size).partition(b"\r\n\r\n")[2]
            if structure[6:8] != [b"%d" % len(body), b"%d" % body.count(b"\n")]:
                return f"{structure[6:8]} bytes and lines"
        return ""

    def _body(self, one: Fetched) -> str:
        body = one.value(b"BODY[]") or b""
        name = imap_mail.name_of(body)
        if name is None or not imap_mail.same(body, self.size):
            return f"not what was sent: {body[:60]!r}"
        if self._names.setdefault(one.uid, name) != name:
            return f"is {name}, its envelope said {self._names[one.uid]}"
        size = self._sizes.get(one.uid, len(body))
        return "" if size == len(body) else f"{len(body)} bytes, RFC822.SIZE said {size}"

    def _wrong(self, text: str) -> None:
        if len(self._found.wrong) < 100:
            self._found.wrong.append(f"{self.login.user}: {text}")


def _right_envelope(name: str) -> list[Value]:
    """RFC 3501 §7.4.2: date, subject, from, sender, reply-to, to, cc, bcc, in-reply-to, message-id"""
    sender: list[Value] = [[b"Bench Sender", None, b"sender", b"example.org"]]
    reader: list[Value] = [[b"Bench Reader", None, b"reader", b"example.org"]]
    date = b"Mon, 23 Nov 2026 10:20:54 +0100"
    subject, message_id = imap_mail.subject(name).encode(), imap_mail.message_id(name).encode()
    return [date, subject, sender, sender, sender, reader, None, None, None, message_id]


def _upper(value: Value) -> Value:
    return value.upper() if isinstance(value, bytes) else value
