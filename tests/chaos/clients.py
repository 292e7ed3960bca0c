"""Clients that send without end, as RFC 5321 §4.5.4 asks: what fails temporarily is tried again under a new number."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from paquebot.cli.demo.accounts import DEMO_PASSWORD
from tests.chaos.ledger import Attempt, End, Ledger, digest_of
from tests.chaos.place import Place
from tests.chaos.plans import REFUSED, Flavour, Message, message
from tests.chaos.smtp import Cut, Refused, Smtp

AGAIN_SECONDS = 0.3
PER_CONNECTION = 20


@dataclass(slots=True)
class Sender:
    """One client. With `account` it submits with a login as that account; without, it is another host's MX client."""

    name: str
    place: Place
    ledger: Ledger
    seed: str
    pace: float
    """Factor of the pauses between messages."""
    account: str = ""
    stopping: bool = False
    _client: Smtp | None = None
    _sent: int = 0
    _numbers: int = 0

    async def run(self) -> None:
        """Until `stopping`; the message that was begun is tried to its end."""
        number = 0
        while not self.stopping:
            number += 1
            plan = message(self.seed, self.name, number, self.place.cast, submits=bool(self.account))
            await self._deliver(plan)
            await asyncio.sleep(plan.pause * self.pace)
        if self._client is not None:
            await self._client.quit()

    async def _deliver(self, plan: Message) -> None:
        """Until each recipient has a final answer."""
        left = plan.recipients
        while left:
            left = await self._attempt(plan, left)
            if left and self.place.ending:
                return
            await asyncio.sleep(AGAIN_SECONDS if left else 0)

    async def _attempt(self, plan: Message, recipients: tuple[str, ...]) -> tuple[str, ...]:
        """The recipients to try again."""
        attempt, text = self._begin(plan)
        over: list[bool] = []
        try:
            later = await self._transaction(plan, attempt, text, recipients, over)
        except Refused as refused:
            self._unexpected(str(refused), refused.code)
            self._end(attempt, End.UNSENT, refused.code)
        except Cut:
            self._end(attempt, End.AMBIGUOUS if over else End.UNSENT, 0)
        else:
            return recipients if attempt.end is End.AMBIGUOUS else later
        self._drop()
        return recipients

    def _begin(self, plan: Message) -> tuple[Attempt, bytes]:
        self._numbers += 1
        number = f"{plan.name}-{self._numbers}"
        path = self._reverse_path()
        author = "someone@elsewhere.test" if plan.flavour is Flavour.FOREIGN_FROM else path
        text = plan.text(number, author, self.seed)
        attempt = Attempt(number, plan.name, path, digest_of(text), submitted=bool(self.account))
        self.ledger.attempts[number] = attempt
        return attempt, text

    async def _transaction(
        self, plan: Message, attempt: Attempt, text: bytes, recipients: tuple[str, ...], over: list[bool]
    ) -> tuple[str, ...]:
        """The recipients to try again, of those that were refused one by one. Raises Refused, Cut."""
        client = await self._connected()
        accepted, later = await self._envelope(client, plan, recipients)
        self._note(attempt, accepted)
        if not accepted:
            self._end(attempt, End.UNSENT, 0)
            return later
        code = await self._content(client, plan, text, over)
        self._end(attempt, _end_of(code), code)
        self._judge(plan, attempt)
        return later

    def _end(self, attempt: Attempt, end: End, code: int) -> None:
        self.ledger.ended(attempt, end, code, time.monotonic())

    def _judge(self, plan: Message, attempt: Attempt) -> None:
        if plan.flavour in REFUSED and attempt.end is End.ACCEPTED:
            self.ledger.find(f"{attempt.number}: a message with {plan.flavour.value} was accepted")
        if plan.flavour not in REFUSED and attempt.end is End.REFUSED:
            self.ledger.find(f"{attempt.number}: a good message was refused for good: {attempt.code}")

    async def _connected(self) -> Smtp:
        if self._client is not None and self._sent >= PER_CONNECTION:
            client, self._client = self._client, None
            await client.quit()
        if self._client is None:
            self._sent = 0
            ports = self.place.ports.services
            client = await Smtp.open(ports.submission if self.account else ports.smtp)
            try:
                if self.account:
                    await client.log_in(self.place.tls(), self.account, DEMO_PASSWORD)
            except BaseException:
                client.close()
                raise
            self._client = client
        self._sent += 1
        return self._client

    async def _envelope(
        self, client: Smtp, plan: Message, recipients: tuple[str, ...]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """MAIL and RCPT; the recipients that were accepted, and those to try again."""
        await client.command("RSET")
        await client.command(f"MAIL FROM:<{self._reverse_path()}>")
        accepted: list[str] = []
        later: list[str] = []
        for path in (*recipients, *plan.refused):
            try:
                await client.command(f"RCPT TO:<{path}>")
                accepted.append(path)
                if path in plan.refused:
                    self.ledger.find(f"{plan.name}: RCPT TO:<{path}> was accepted")
            except Refused as refused:
                if path not in plan.refused:
                    self._unexpected(str(refused), refused.code)
                    later.append(path)
        return tuple(accepted), tuple(later)

    async def _content(self, client: Smtp, plan: Message, text: bytes, over: list[bool]) -> int:
        """The message and the code of its reply. `over` has something once its end was on its way."""
        if plan.flavour is Flavour.CHUNKED:
            await client.chunk(text)
            last = b"BDAT 0 LAST\r\n"
        else:
            await client.data(text)
            last = b".\r\n"
        over.append(True)
        await client.end(last)
        began = time.monotonic()
        code, _ = await client.reply()
        self.ledger.longest_wait = max(self.ledger.longest_wait, time.monotonic() - began)
        return code

    def _note(self, attempt: Attempt, accepted: tuple[str, ...]) -> None:
        cast = self.place.cast
        local = [path for path in accepted if path.endswith("@" + cast.domain)]
        attempt.accounts = frozenset().union(*(cast.accounts(path) for path in local))
        attempt.remote = frozenset(accepted) - frozenset(local)

    def _unexpected(self, reply: str, code: int) -> None:
        """Invariant 8: what is wrong with an engine or a service is temporary for a client."""
        if code >= 500:
            self.ledger.find(f"{self.name}: a permanent refusal of something good: {reply}")

    def _reverse_path(self) -> str:
        return self.account or f"{self.name}@elsewhere.test"

    def _drop(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def _end_of(code: int) -> End:
    if 200 <= code < 300:
        return End.ACCEPTED
    return End.REFUSED if code >= 500 else End.AMBIGUOUS
