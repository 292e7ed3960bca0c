"""Compaction: writes an account's messages, scattered over many packs, together into its own packs, so that reading a
mailbox takes few requests; and moves live messages out of mostly dead packs.

Accounts for which a moved byte saves most requests come first. A run ends when nothing is worth moving or its budget
of bytes or time is spent; the next run continues. `CompactionRule` decides what counts as compact and is not moved.
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
_MEASURED_MESSAGES = 50_000  # in one statement, unless a single account has more
_MAX_ACCOUNTS = 10_000  # of a run


@dataclass(slots=True)
class CompactionResult:
    """The result of a compaction. In a dry run `compacted_*` and `written_packs` are those without a budget."""

    compacted_accounts: int = 0
    compacted_messages: int = 0
    compacted_bytes: int = 0
    source_packs: int = 0
    """Packs that messages were moved from, counted for each account."""
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
    """Accounts with messages to move: counts all, keeps the best."""

    rule: CompactionRule
    accounts: int = 0
    packs: int = 0
    written: int = 0
    messages: int = 0
    size: int = 0
    _best: list[tuple[float, int, Fragmentation]] = field(default_factory=list)

    def add(self, scattered: Fragmentation) -> None:
        if not scattered.packs:
            return
        written = self._count(scattered, 1)
        spared = (scattered.packs - written) / max(1, scattered.stored_size)
        heapq.heappush(self._best, (spared, scattered.account_id, scattered))
        if len(self._best) > _MAX_ACCOUNTS:
            heapq.heappop(self._best)

    def replace(self, old: Fragmentation, new: Fragmentation) -> None:
        """Count an account again after it was measured again."""
        self._count(old, -1)
        self._count(new, 1)

    def in_order(self) -> dict[int, Fragmentation]:
        """By account; those that save most requests per byte first."""
        return {account_id: scattered for _, account_id, scattered in sorted(self._best, reverse=True, key=_rank)}

    def _count(self, scattered: Fragmentation, sign: int) -> int:
        """Add to the totals, or subtract; returns the number of packs to write."""
        written = math.ceil(scattered.stored_size / self.rule.pack_bytes)
        self.accounts += sign * bool(scattered.packs)
        self.packs += sign * scattered.packs
        self.written += sign * written
        self.messages += sign * scattered.messages
        self.size += sign * scattered.stored_size
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
    """Skips an account that fails and names it in `troubles`. Raises BlobsUnavailable, PostgresUnavailable; messages
    moved before that stay moved, and none is moved in part."""
    troubles = troubles or Troubles(Stage.COMPACTION)
    started, requests, read = time.monotonic(), _total(REQUESTS), _total(READ_BYTES)
    by_account = await sparse.by_account(stores, troubles) if sparse else {}
    result = CompactionResult(sparse_packs=sparse.found if sparse else 0)
    before = ulid_at(int((time.time() - settings.compaction.age) * 1000))
    if settings.compaction.enabled:
        backlog = await _measured(stores, settings, before, troubles, record=not dry_run)
        if dry_run:
            _predict(result, backlog)
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
    """The candidates of every account."""
    rule = settings.compaction.rule()
    backlog = _Backlog(rule)

    async def measure(some: Sequence[CompactionCandidate]) -> list[Fragmentation]:
        return await stores.compactions.measure(rule, before, some, record=record)

    async for page in _candidates(stores, rule):
        for one in page:
            if one.known is not None:
                backlog.add(one.known)
        for group in _groups([one for one in page if one.known is None]):
            found = await one_by_one(
                measure, group, lambda one, error: troubles.add(f"account {one.account_id}", error)
            )
            for scattered in found:
                backlog.add(scattered)
    return backlog


async def _candidates(stores: Stores, rule: CompactionRule) -> AsyncIterator[list[CompactionCandidate]]:
    after = 0
    while page := await stores.compactions.candidates(rule, after, _PAGE):
        after = page[-1].account_id
        yield page


def _groups(candidates: Sequence[CompactionCandidate]) -> Iterator[list[CompactionCandidate]]:
    group: list[CompactionCandidate] = []
    messages = 0
    for one in candidates:
        if group and messages + one.stored > _MEASURED_MESSAGES:
            yield group
            group, messages = [], 0
        group.append(one)
        messages += one.stored
    if group:
        yield group


def _predict(result: CompactionResult, backlog: _Backlog) -> None:
    result.compacted_accounts = backlog.accounts
    result.compacted_messages = result.backlog_messages = backlog.messages
    result.compacted_bytes = result.backlog_bytes = backlog.size
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
    scattered = backlog.in_order()
    # Accounts in mostly dead packs first: such a pack can be deleted only when every account has left it.
    for account_id in dict.fromkeys((*by_account, *scattered)):
        if budget.is_spent(moved):
            _log.info("compaction_budget_spent", messages=moved.messages, bytes=moved.size)
            break
        async with troubles.skipping(stores, f"account {account_id}"):
            await rewriter.rewrite(account_id, by_account.get(account_id, ()), budget, moved)
            for left in await _measure_again(stores, backlog.rule, before, account_id):
                backlog.replace(scattered.get(account_id) or Fragmentation(account_id, 0, 0, 0), left)
    result.compacted_accounts, result.busy_accounts = moved.accounts, moved.busy_accounts
    result.compacted_messages, result.compacted_bytes = moved.messages, moved.size
    result.source_packs, result.written_packs = moved.source_packs, moved.new_packs
    result.unreadable_messages = moved.unreadable
    result.backlog_messages, result.backlog_bytes = backlog.messages, backlog.size


async def _measure_again(stores: Stores, rule: CompactionRule, before: str, account_id: int) -> list[Fragmentation]:
    page = await stores.compactions.candidates(rule, account_id - 1, 1)
    here = [one for one in page if one.account_id == account_id]
    return await stores.compactions.measure(rule, before, here, record=True) if here else []


async def _forget(stores: Stores, settings: JanitorSettings) -> None:
    safe = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=settings.min_age)
    await stores.compactions.forget(safe)


def _total(metric: Counter) -> float:
    """The sum of its series in this process."""
    return sum(
        sample.value for family in metric.collect() for sample in family.samples if sample.name.endswith("_total")
    )
