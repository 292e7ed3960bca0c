"""The mixed load: clients that share accounts, each in a loop over the commands of a short session, every answer
judged by a model of what the mailbox must contain (`imap_model`).

One session: LOGIN, LIST, STATUS, then `rounds` times SELECT, FETCH of all flags, FETCH of bodies, STORE, APPEND, STORE
\\Deleted, EXPUNGE, then LOGOUT. STATUS comes first: it is not for the selected mailbox (RFC 3501 §6.3.10).
Each client owns the messages it appended: no other client changes their flags.
"""

from __future__ import annotations

import collections
import math
import random
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

from tests.bench import imap_mail
from tests.bench.imap_accounts import MAILBOXES, number
from tests.bench.imap_client import Answer, ImapClient, Login, Refused, ServerFault, log_in
from tests.bench.imap_model import NEVER, Flags, MailboxModel, Message
from tests.bench.imap_response import BadResponse, Fetched, Value, values
from tests.bench.imap_view import View

KEPT = 10
"""Messages that a client keeps in the mailbox; each session adds one and removes the oldest."""
BODIES = 5
"""Messages whose bodies a session reads."""
_TOGGLED = (b"\\Flagged", b"\\Answered", b"$Bench")


@dataclass(slots=True)
class Findings:
    """Of all clients of a run."""

    commands: collections.Counter[str] = field(default_factory=collections.Counter)
    seconds: dict[str, float] = field(default_factory=lambda: collections.defaultdict(float))
    """Waited for answers, by command, summed over all clients."""
    errors: list[str] = field(default_factory=list)
    """Refusals, lost connections, no answer in time."""
    wrong: list[str] = field(default_factory=list)
    """Answers that cannot be right."""
    sessions: int = 0

    @property
    def total(self) -> int:
        """Commands answered."""
        return sum(self.commands.values())


@dataclass(slots=True)
class MixedClient:
    """One client. `model` is shared by the clients of its account, `findings` by all."""

    login: Login
    name: str
    model: MailboxModel
    findings: Findings
    rounds: int = 1
    own: collections.deque[Message] = field(default_factory=collections.deque)
    choice: random.Random = field(default_factory=lambda: random.Random(0))
    _number: int = 0
    _until: float = math.inf

    def __post_init__(self) -> None:
        self.choice = random.Random(self.name)

    async def run(self, until: float) -> None:
        """Sessions one after another until that time.perf_counter(); a failed one is noted, and the next begins. The
        last one is finished after its round."""
        self._until = until
        while time.perf_counter() < until:
            await self.noted(self.session)

    async def fill(self) -> None:
        """The messages that this client keeps."""
        client = await self._logged_in()
        try:
            while len(self.own) < KEPT:
                await self._append(client, None)
            await client.ask(b"LOGOUT")
        finally:
            client.close()

    async def noted(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do it; a fault of the server becomes a finding."""
        try:
            await work()
        except ServerFault as fault:
            self.findings.errors.append(f"{self.name}: {fault}")
        except BadResponse as fault:
            self._wrong(str(fault))

    # --- one session -------------------------------------------------------------------------------------

    async def session(self) -> None:
        """All commands once. Raises ServerFault."""
        client = await self._logged_in()
        try:
            await self._list(client)
            await self._status(client)
            for done in range(self.rounds):
                if done and time.perf_counter() > self._until:
                    break
                await self._round(client)
            await self._log_out(client)
            self.findings.sessions += 1
        finally:
            client.close()

    async def _round(self, client: ImapClient) -> None:
        with self.model.looking() as asked:
            view = await self._select(client, asked)
            await self._fetch_flags(client, view, asked)
            await self._fetch_bodies(client, view)
            await self._store(client, view)
            await self._append(client, view)
            await self._remove(client, view)

    async def _logged_in(self) -> ImapClient:
        begin = time.perf_counter()
        client = await log_in(self.login)
        self._count("LOGIN", begin)
        return client

    async def _log_out(self, client: ImapClient) -> None:
        answer = await self._ask(client, "LOGOUT", b"LOGOUT")
        if not any(one.text.startswith(b"* BYE") for one in answer.untagged):
            self._wrong("LOGOUT without BYE")  # RFC 3501 §6.1.3

    async def _list(self, client: ImapClient) -> None:
        answer = await self._ask(client, "LIST", b'LIST "" "*"')
        names = [values(one, 7)[-1] for one in answer.untagged if one.text.startswith(b"* LIST ")]
        if sorted(map(str, names)) != sorted(map(str, MAILBOXES)):
            self._wrong(f"LIST shows {names}")

    async def _status(self, client: ImapClient) -> None:
        with self.model.looking() as asked:
            least = self.model.highest_uid
            answer = await self._ask(client, "STATUS", b"STATUS INBOX (MESSAGES UIDNEXT UIDVALIDITY UNSEEN)")
            found = _status_values(answer)
            for name, unseen in ((b"MESSAGES", False), (b"UNSEEN", True)):
                bounds = self.model.count(asked, unseen=unseen)
                if not bounds.hold(found.get(name, -1)):
                    self._wrong(f"STATUS {name.decode()} {found.get(name)} is not within {bounds}")
            if found.get(b"UIDNEXT", 0) <= least:
                self._wrong(f"UIDNEXT {found.get(b'UIDNEXT')} is not above UID {least}")
            self._check_validity(found.get(b"UIDVALIDITY", 0))

    async def _select(self, client: ImapClient, asked: int) -> View:
        least = self.model.highest_uid
        answer = await self._ask(client, "SELECT", b"SELECT INBOX")
        view = View()
        view.apply(b"SELECT", answer)
        if not (bounds := self.model.count(asked)).hold(len(view.uids)):
            self._wrong(f"SELECT: {len(view.uids)} EXISTS is not within {bounds}")
        self._check_validity(number(answer, b"UIDVALIDITY"))
        if (following := number(answer, b"UIDNEXT")) <= least:
            self._wrong(f"SELECT: UIDNEXT {following} is not above UID {least}")
        if answer.code(b"READ-WRITE") is None:
            self._wrong("SELECT without READ-WRITE")
        return view

    async def _fetch_flags(self, client: ImapClient, view: View, asked: int) -> None:
        """The answer has every message of the view; all are known, none is missing, and the flags are right."""
        size = len(view.uids)
        answer = await self._ask(client, "FETCH FLAGS", b"FETCH 1:* (UID FLAGS)", expunge_issued=True)
        shown = view.apply(b"FETCH", answer)
        view.check_order()
        whole = {one.number for one in shown if one.uid and one.flags is not None}
        missing = size - len(whole & set(range(1, size + 1)))
        if missing > sum(message.doomed < NEVER for message in self.model.messages):
            self._wrong(f"FETCH 1:* leaves out {missing} of {size} messages")
        self._check_known(view, asked)
        for message in self.model.certain(asked):
            if message.uid not in view.uids:
                self._wrong(f"UID {message.uid} was kept and is not in the mailbox")
        for one in shown:
            self._check_flags(one, asked)

    async def _fetch_bodies(self, client: ImapClient, view: View) -> None:
        """A few messages, own ones among them, whole."""
        kept = [uid for uid in view.uids if uid in self.model.by_uid]
        wanted = {message.uid for message in list(self.own)[-2:]}
        wanted.update(self.choice.sample(kept, min(len(kept), BODIES - len(wanted))))
        line = b"UID FETCH %s (BODY.PEEK[])" % _set(wanted)
        shown = view.apply(b"UID FETCH", await self._ask(client, "FETCH BODY[]", line, expunge_issued=True))
        bodies = {one.uid: one.value(b"BODY[]") for one in shown if b"BODY[]" in one.items}
        for uid in wanted:
            message, body = self.model.by_uid[uid], bodies.pop(uid, None)
            if body is None:
                if message.doomed == NEVER:
                    self._wrong(f"UID FETCH leaves out the body of UID {uid}")
            elif not imap_mail.same(body) or imap_mail.name_of(body) != message.name:
                self._wrong(f"UID {uid} is not the message {message.name}: {body[:60]!r}")
        if bodies:
            self._wrong(f"UID FETCH has bodies that were not asked for: {sorted(bodies)}")

    async def _store(self, client: ImapClient, view: View) -> None:
        """Change a flag of an own message; the answer has all its flags (RFC 3501 §6.4.6)."""
        message, flag = self.choice.choice(list(self.own)[1:]), self.choice.choice(_TOGGLED)
        sign = b"-" if flag in message.flags else b"+"
        shown = await self._flag(client, view, message, sign + b"FLAGS", flag)
        if not any(one.uid == message.uid and one.flags == message.flags for one in shown):
            flags = [one.flags for one in shown if one.uid == message.uid]
            self._wrong(f"STORE of UID {message.uid} shows {flags}, not {sorted(message.flags)}")

    async def _append(self, client: ImapClient, view: View | None) -> None:
        self._number += 1
        name = f"{self.name}-{self._number}"
        flags: Flags = frozenset({b"\\Seen"}) if self._number % 2 else frozenset()
        message, floor = self.model.appending(name, flags), self.model.highest_uid
        line = b"APPEND INBOX (%s)" % b" ".join(flags)
        answer = await self._ask(client, "APPEND", line, imap_mail.message(name))
        if view is not None:
            view.apply(b"APPEND", answer)
        code = answer.code(b"APPENDUID") or []
        if len(code) != 2:
            raise Refused(f"APPEND without APPENDUID: {answer.text!r}")
        self._check_validity(int(code[0]))
        if wrong := self.model.appended(message, int(code[1]), floor):
            self._wrong(wrong)
        self.own.append(message)

    async def _remove(self, client: ImapClient, view: View) -> None:
        """The oldest own message: marked without an answer, then expunged, perhaps by another client."""
        message = self.own[0]
        await self._flag(client, view, message, b"+FLAGS.SILENT", b"\\Deleted")
        view.apply(b"EXPUNGE", await self._ask(client, "EXPUNGE", b"EXPUNGE"))
        self.model.expunged(message)
        self.own.popleft()
        if message.uid in view.uids:  # another session was faster; then it may be shown now, but must be
            view.apply(b"NOOP", await self._ask(client, "NOOP", b"NOOP"))
        if message.uid in view.uids:
            self._wrong(f"no session showed the EXPUNGE of UID {message.uid}")
        self._wrong(*view.taken())

    async def _flag(self, client: ImapClient, view: View, message: Message, item: bytes, flag: bytes) -> list[Fetched]:
        after = message.flags | {flag} if item.startswith(b"+") else message.flags - {flag}
        self.model.flagging(message, after)
        answer = await self._ask(client, "STORE", b"UID STORE %d %s (%s)" % (message.uid, item, flag))
        self.model.flagged(message)
        return view.apply(b"UID STORE", answer)

    # --- judging -----------------------------------------------------------------------------------------

    def _check_known(self, view: View, asked: int) -> None:
        """A UID that no answer showed can only be of an APPEND that is not answered yet."""
        by_uid = self.model.by_uid
        unknown = [uid for uid in view.uids if uid and (uid not in by_uid or by_uid[uid].gone < asked)]
        if len(unknown) > self.model.in_flight():
            self._wrong(f"UIDs {unknown[:20]} are of no message, {self.model.in_flight()} are on their way")

    def _check_flags(self, one: Fetched, asked: int) -> None:
        message = self.model.by_uid.get(one.uid)
        if message is None or one.flags is None:
            return
        if message in self.own:
            if one.flags not in (right := message.flags_since(NEVER - 1)):  # one, unless a STORE was not answered
                self._wrong(f"own UID {one.uid} has flags {sorted(one.flags)}, not {list(map(sorted, right))}")
        elif one.flags not in (right := message.flags_since(asked)):
            self._wrong(f"UID {one.uid} has flags {sorted(one.flags)}, not one of {list(map(sorted, right))}")

    def _check_validity(self, uid_validity: int) -> None:
        if uid_validity != self.model.uid_validity:
            self._wrong(f"UIDVALIDITY {uid_validity}, before {self.model.uid_validity}")

    def _wrong(self, *texts: str) -> None:
        self.findings.wrong += [f"{self.name}: {text}" for text in texts]

    async def _ask(
        self, client: ImapClient, name: str, line: bytes, literal: bytes | None = None, *, expunge_issued: bool = False
    ) -> Answer:
        """Ask and count. Raises Refused, but not where a message was expunged by another session (RFC 2180 §4.1)."""
        begin = time.perf_counter()
        answer = await client.command(line, literal)
        self._count(name, begin)
        if answer.status == b"OK" or (expunge_issued and answer.status == b"NO" and b"[EXPUNGEISSUED]" in answer.text):
            return answer
        raise Refused(f"{name}: {answer.status!r} {answer.text[:200]!r}")

    def _count(self, name: str, begin: float) -> None:
        self.findings.commands[name] += 1
        self.findings.seconds[name] += time.perf_counter() - begin


def _status_values(answer: Answer) -> dict[bytes, int]:
    for one in answer.untagged:
        if one.text.startswith(b"* STATUS "):
            pairs: Value = values(one, 9)[-1]
            if isinstance(pairs, list):
                return {bytes(name): int(value) for name, value in zip(pairs[::2], pairs[1::2], strict=True)}  # type: ignore[arg-type]
    return {}


def _set(uids: Collection[int]) -> bytes:
    return b",".join(b"%d" % uid for uid in sorted(uids))
