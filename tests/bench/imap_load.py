"""Runs the mixed load (`imap_mixed`) over a set of accounts, and says what came of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.bench.imap_accounts import final_state, prepare
from tests.bench.imap_client import Login, ServerFault
from tests.bench.imap_mixed import Findings, MixedClient
from tests.bench.imap_model import MailboxModel

_GRACE_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Mixed:
    """What a run of the mixed load found."""

    findings: Findings
    seconds: float
    client_cpu_seconds: float
    """Of this process, so that it can be seen whether the client was the limit."""

    @property
    def per_second(self) -> float:
        """Commands answered a second."""
        return self.findings.total / self.seconds


@dataclass(slots=True)
class MixedLoad:
    """`clients` clients spread evenly over `accounts`. Call `fill`, then `run` once or more, then `check`."""

    accounts: Sequence[Login]
    clients: int
    label: str
    _findings: Findings = field(default_factory=Findings)
    _models: list[MailboxModel] = field(init=False)
    _clients: list[MixedClient] = field(init=False)

    def __post_init__(self) -> None:
        self._models = [MailboxModel() for _ in self.accounts]
        self._clients = [self._client(number) for number in range(self.clients)]

    def _client(self, number: int) -> MixedClient:
        account = number % len(self.accounts)
        name = f"{self.label}-c{number}"
        return MixedClient(self.accounts[account], name, self._models[account], self._findings)

    async def fill(self) -> None:
        """Empty the mailboxes, then append what the clients keep. Raises ServerFault."""
        for login, model in zip(self.accounts, self._models, strict=True):
            await prepare(login, model)
        await asyncio.gather(*(client.fill() for client in self._clients))

    async def run(self, seconds: float, *, rounds: int = 1) -> Mixed:
        """All clients at once for `seconds`; rounds under way then are finished."""
        self._begin(rounds)
        begin, used = time.perf_counter(), time.process_time()
        async with asyncio.timeout(seconds + _GRACE_SECONDS):
            await asyncio.gather(*(client.run(begin + seconds) for client in self._clients))
        return Mixed(self._findings, time.perf_counter() - begin, time.process_time() - used)

    def _begin(self, rounds: int) -> None:
        self._findings = Findings()
        for client in self._clients:
            client.findings, client.rounds = self._findings, rounds

    async def check(self) -> list[str]:
        """What is wrong with the mailboxes now that no client changes them."""
        wrong: list[str] = []
        for login, model in zip(self.accounts, self._models, strict=True):
            try:
                wrong += [f"{login.user}: {text}" for text in await final_state(login, model)]
            except ServerFault as fault:
                wrong.append(f"{login.user}: {fault}")
        return wrong
