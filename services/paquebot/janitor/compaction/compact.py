"""Compaction: an account's messages that lie scattered over many packs are written together in packs of its own, so
that reading a mailbox takes few requests; and what lives in mostly dead packs is taken out of them.

The accounts for which most requests are spared per byte moved come first. A run ends when nothing is worth moving
or its budget of bytes or time is spent; the next goes on. Nothing is moved that is compact: see `CompactionRule`.
"""

import datetime
import heapq
import math
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import Counter

from paquebot.blobs.reading import READ_BYTES
from paquebot.blobs.requests import REQUESTS
from paquebot.blobs.stored import StoredEntries
from paquebot.janitor.compaction.rewriting import RewriteBudget, Rewriter, RewriteTotals
from paquebot.janitor.compaction.sparse import SparsePacks
from paquebot.janitor.settings import JanitorSettings
from paquebot.janitor.stores import Stores
from paquebot.janitor.troubles import Stage, Troubles
from paquebot.mailstore import CompactionCandidate, CompactionRule, Fragmentation
from paquebot.mailstore.bad_rows import one_by_one
from paquebot.observability.log import Log
from paquebot.runtime.ulid import ulid_at

_log = Log("paquebot.janitor")

_PAGE = 1000
_MEASURED_MESSAGES = 50_000  # in one statement, unless one account alone has more
_MOST_ACCOUNTS = 10_000  # of a run


@dataclass(slots=True)
class CompactionResult:
    """What a compaction did; in a dry run `compacted_*` and `rewritten_packs` say what it would do without a budget."""

    compacted_accounts: int = 0
    compacted_messages: int = 0
    compacted_bytes: int = 0
    source_packs: int = 0
    """From which messages were moved, counted for each account."""
    written_packs: int = 0
    sparse_packs: int = 0
    """Mostly dead packs that were found."""
    unreadable_messages: int = 0
    busy_accounts: int = 0
    backlog_messages: int = 0
    """Left to move."""
    backlog_bytes: int = 0
    compaction_requests: int = 0
    """To S3."""
    compaction_read_bytes: int = 0
    compaction_seconds: float = 0.0


@dataclass(slots=True)
class _Backlog:
    """Accounts with something to move: all counted, the best kept."""

    rule: CompactionRule
    accounts: int = 0
    packs: int = 0
    written: int = 0
    messages: int = 0
    octets: int = 0
    _best: list[tuple[float, int, Fragmentation]] = field(default_factory=list)

    def add(self, scattered: Fragmentation) -> None:
        if not scattered.packs:
            return
        written = self._count(scattered, 1)
        spared = (scattered.packs - written) / max(1, scattered.octets)
        heapq.heappush(self._best, (spared, scattered.account_id, scattered))
        if len(self._best) > _MOST_ACCOUNTS:
            heapq.heappop(self._best)

    def replace(self, old: Fragmentation, new: Fragmentation) -> None:
        """The account was looked at again."""
        self._count(old, -1)
        self._count(new, 1)

    def in_turn(self) -> dict[int, Fragmentation]:
        """By account, the most requests spared per byte first."""
        return {account_id: scattered for _, account_id, scattered in sorted(self._best, reverse=True, key=_rank)}

    def _count(self, scattered: Fragmentation, sign: int) -> int:
        """The packs to write."""
        written = math.ceil(scattered.octets / self.rule.pack_bytes)
        self.accounts += sign * bool(scattered.packs)
        self.packs += sign * scattered.packs
        self.written += sign * written
        self.messages += sign * scattered.messages
        self.octets += sign * scattered.octets
        return written


def _rank(item: tuple[float, int, Fragmentation]) -> tuple[float, int]:
    return item[:2]


async def compact(
    stores: Stores,
    settings: JanitorSettings,
    sparse: SparsePacks | None = None,
    *,
    dry_run: bool = False,
    troubles: Troubles | None = None,
) -> CompactionResult:
    """An account that fails is passed over, and named in `troubles`. Raises BlobsUnavailable, PostgresUnavailable: what
    was moved until then stays so, and nothing is half moved."""
    troubles = troubles or Troubles(Stage.COMPACTION)
    started, requests, read = time.monotonic(), _total(REQUESTS), _total(READ_BYTES)
    by_account = await sparse.by_account(stores, troubles) if sparse else {}
    result = CompactionResult(sparse_packs=sparse.found if sparse else 0)
    before = ulid_at(int((time.time() - settings.compaction.age) * 1000))
    if settings.compaction.enabled:
        backlog = await _measured(stores, settings, before, troubles, record=not dry_run)
        if dry_run:
            _would(result, backlog)
        else:
            await _run(stores, settings, before, backlog, by_account, result, troubles)
            await _forget(stores, settings)
    result.compaction_requests = int(_total(REQUESTS) - requests)
    result.compaction_read_bytes = int(_total(READ_BYTES) - read)
    result.compaction_seconds = round(time.monotonic() - started, 3)
    return result


async def _measured(
    stores: Stores, settings: JanitorSettings, before: str, troubles: Troubles, *, record: bool
) -> _Backlog:
    """What is to move of every account."""
    rule = settings.compaction.rule()
    backlog = _Backlog(rule)

    async def measure(some: Sequence[CompactionCandidate]) -> list[Fragmentation]:
        return await stores.mailstore.measure_compaction(rule, before, some, record=record)

    async for page in _standings(stores, rule):
        for one in page:
            if one.known is not None:
                backlog.add(one.known)
        for group in _groups([one for one in page if one.known is None]):
            found = await one_by_one(
                measure, group, lambda one, error: troubles.note(f"account {one.account_id}", error)
            )
            for scattered in found:
                backlog.add(scattered)
    return backlog


async def _standings(stores: Stores, rule: CompactionRule) -> AsyncIterator[list[CompactionCandidate]]:
    after = 0
    while page := await stores.mailstore.standings(rule, after, _PAGE):
        after = page[-1].account_id
        yield page


def _groups(standings: Sequence[CompactionCandidate]) -> Iterator[list[CompactionCandidate]]:
    group: list[CompactionCandidate] = []
    messages = 0
    for one in standings:
        if group and messages + one.stored > _MEASURED_MESSAGES:
            yield group
            group, messages = [], 0
        group.append(one)
        messages += one.stored
    if group:
        yield group


def _would(result: CompactionResult, backlog: _Backlog) -> None:
    result.compacted_accounts = backlog.accounts
    result.compacted_messages = result.backlog_messages = backlog.messages
    result.compacted_bytes = result.backlog_bytes = backlog.octets
    result.source_packs = backlog.packs
    result.written_packs = backlog.written


async def _run(
    stores: Stores,
    settings: JanitorSettings,
    before: str,
    backlog: _Backlog,
    by_account: Mapping[int, set[str]],
    result: CompactionResult,
    troubles: Troubles,
) -> None:
    limits, moved = settings.compaction, RewriteTotals()
    budget = RewriteBudget(time.monotonic() + limits.max_seconds, limits.max_bytes)
    rewriter = Rewriter(stores, limits, StoredEntries(stores.blobs), before)
    scattered = backlog.in_turn()
    # Those of mostly dead packs first: such a pack is free only when every account has left it.
    for account_id in dict.fromkeys((*by_account, *scattered)):
        if budget.spent(moved):
            _log.info("compaction_budget_spent", messages=moved.messages, octets=moved.octets)
            break
        async with troubles.apart(stores, f"account {account_id}"):
            await rewriter.rewrite(account_id, by_account.get(account_id, ()), budget, moved)
            for left in await _look_again(stores, backlog.rule, before, account_id):
                backlog.replace(scattered.get(account_id) or Fragmentation(account_id, 0, 0, 0), left)
    result.compacted_accounts, result.busy_accounts = moved.accounts, moved.busy_accounts
    result.compacted_messages, result.compacted_bytes = moved.messages, moved.octets
    result.source_packs, result.written_packs = moved.source_packs, moved.new_packs
    result.unreadable_messages = moved.unreadable
    result.backlog_messages, result.backlog_bytes = backlog.messages, backlog.octets


async def _look_again(stores: Stores, rule: CompactionRule, before: str, account_id: int) -> list[Fragmentation]:
    page = await stores.mailstore.standings(rule, account_id - 1, 1)
    here = [one for one in page if one.account_id == account_id]
    return await stores.mailstore.measure_compaction(rule, before, here, record=True) if here else []


async def _forget(stores: Stores, settings: JanitorSettings) -> None:
    safe = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=settings.min_age)
    await stores.mailstore.forget_compactions(safe)


def _total(metric: Counter) -> float:
    """Of all its series in this process."""
    return sum(
        sample.value for family in metric.collect() for sample in family.samples if sample.name.endswith("_total")
    )
