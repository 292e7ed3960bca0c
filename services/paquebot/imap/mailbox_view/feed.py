"""Changes of mailboxes, for all sessions of the process: hints in and out, and one query for many sessions.

A hint reports a change; PostgreSQL has the change itself (invariant 4). Sessions that a hint woke share one query for
the same mailbox and mod-sequence. Only sessions that were woken before a query began share it, so that none misses the
change that it was woken for.

PostgreSQL has answered what a session of this process changed itself. Every change takes the mailbox's next mod_seq
(`paquebot.mailstore`), so recent changes without a gap between them are all that happened: the other sessions take them
from memory. If one is missing (another process made it, or it was too large to keep) they ask PostgreSQL.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from paquebot.imap import metrics
from paquebot.imap.metrics import RefreshSource
from paquebot.mailstore import Changes, FlagRows, MailboxReader
from paquebot.observability import trace
from paquebot.observability.trace import Span
from paquebot.queue import Queue
from paquebot.runtime.process.tasks import background

_Key = tuple[int, int, int]  # account, mailbox, mod_seq
_MAX_SPANS = 16  # of hints that wait for one session's next refresh
_CHANGES = 32  # of one mailbox: sessions that fell behind further ask PostgreSQL
_MAILBOXES = 16  # of one account
_MESSAGES = 256  # of one change: sessions that need a larger one ask PostgreSQL
_HINT_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class MailboxChange:
    """All that one statement did to a mailbox, as PostgreSQL answered."""

    mailbox_id: int
    mod_seq: int
    rows: FlagRows = field(default_factory=FlagRows)
    """Messages that are new, each \\Recent in one session already, or have other flags."""
    expunged: Sequence[int] = ()


class RecentChanges:
    """Of one account; bounded."""

    __slots__ = ("_mailboxes",)

    def __init__(self) -> None:
        self._mailboxes: dict[int, dict[int, MailboxChange]] = {}

    def add(self, change: MailboxChange) -> bool:
        """False if it is too large."""
        if len(change.rows) + len(change.expunged) > _MESSAGES:
            return False
        changes = self._mailboxes.setdefault(change.mailbox_id, {})
        changes[change.mod_seq] = change
        if len(changes) > _CHANGES:
            del changes[min(changes)]
        if len(self._mailboxes) > _MAILBOXES:
            del self._mailboxes[next(iter(self._mailboxes))]
        return True

    def since(self, mailbox_id: int, mod_seq: int) -> list[MailboxChange]:
        """The changes that follow `mod_seq` without a gap."""
        changes = self._mailboxes.get(mailbox_id, {})
        found: list[MailboxChange] = []
        while (change := changes.get(mod_seq + len(found) + 1)) is not None:
            found.append(change)
        return found


@dataclass(slots=True, eq=False)
class Watch:
    """One session's interest in changes of its account.

    `dirty`: since it was last cleared, a change was hinted at that only PostgreSQL knows. `awaited`: all changes of the
    selected mailbox up to this mod_seq have happened. `wake`: wakes the session out of IDLE.
    """

    account_id: int
    wake: Callable[[], None]
    dirty: bool = False
    awaited: int = 0
    _mailbox_id: int | None = None
    _spans: list[Span] = field(default_factory=list)

    def select(self, mailbox_id: int | None) -> None:
        """From now on only known changes of this mailbox concern the session; None: those of any mailbox."""
        if mailbox_id != self._mailbox_id:
            self._mailbox_id = mailbox_id
            self.awaited = 0

    def on_hint(self, traceparent: str = "") -> None:
        """Something changed in the account."""
        if trace.is_sampled(traceparent) and len(self._spans) < _MAX_SPANS:
            self._spans.append(trace.span("imap", traceparent, kind=trace.Kind.CONSUMER, account_id=self.account_id))
        self.dirty = True
        self.wake()

    def on_change(self, change: MailboxChange) -> None:
        """Another session of this process changed a mailbox of the account."""
        if self._mailbox_id is None:
            self.dirty = True
        elif self._mailbox_id == change.mailbox_id:
            self.awaited = max(self.awaited, change.mod_seq)
            self.wake()

    def take_spans(self) -> list[Span]:
        """The spans of the hints so far, before the refresh that answers them; for `end_spans`."""
        spans, self._spans = self._spans, []
        return spans


def end_spans(spans: list[Span], *, arrived: bool = False) -> None:
    """The client was sent the changes that the hints announced; `arrived`: new messages among them."""
    for span in spans:
        if arrived:
            span.set(exists=True)
        span.end()


class HintPublisher:
    """Publishes hints to other processes: the first at once, then at most one for each account in `_HINT_SECONDS`.

    A busy mailbox changes hundreds of times a second, and one refresh answers many hints anyway. One for a process;
    `source` is its name, by which it recognises its own hints.
    """

    def __init__(self, queue: Queue, source: bytes) -> None:
        self._queue = queue
        self._source = source
        self._waiting: dict[int, str] = {}
        self._task: asyncio.Task[None] | None = None

    def publish(self, account_id: int) -> None:
        """Mailboxes of the account changed: publish a hint within `_HINT_SECONDS`."""
        self._waiting[account_id] = ""
        if self._task is None:
            self._task = background(self._publish_waiting(), "hints")

    async def close(self) -> None:
        """Publish what waits."""
        if self._task is not None:
            await self._task

    async def _publish_waiting(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, {}
            await self._queue.hint_mailboxes(waiting, source=self._source)
            await asyncio.sleep(_HINT_SECONDS)
        self._task = None


@dataclass(slots=True)
class _Account:
    """An account while sessions watch it."""

    watches: set[Watch] = field(default_factory=set)
    recent: RecentChanges = field(default_factory=RecentChanges)


class Feed:
    """One for a process."""

    def __init__(self, mailbox_reader: MailboxReader, queue: Queue) -> None:
        self._mailbox_reader = mailbox_reader
        self._queue = queue
        self._accounts: dict[int, _Account] = {}
        self._queries: dict[_Key, asyncio.Task[Changes]] = {}
        self._source = secrets.token_hex(8).encode()
        self._hints = HintPublisher(queue, self._source)

    async def close(self) -> None:
        """Publish the hints that wait."""
        await self._hints.close()

    async def watch(self, account_id: int, wake: Callable[[], None]) -> Watch:
        """Watch the account until `unwatch`."""
        watch = Watch(account_id, wake)
        account = self._accounts.setdefault(account_id, _Account())
        account.watches.add(watch)
        if len(account.watches) == 1:
            try:
                await self._queue.subscribe_mailbox(account_id, self._on_hint)
            except BaseException:
                self.unwatch(watch)
                raise
        return watch

    def unwatch(self, watch: Watch) -> None:
        """End a watch."""
        end_spans(watch.take_spans())
        watches = self._accounts[watch.account_id].watches
        watches.discard(watch)
        if not watches:
            del self._accounts[watch.account_id]
            self._queue.unsubscribe_mailbox(watch.account_id, self._on_hint)

    def sessions(self, account_id: int) -> int:
        """How many sessions of this process watch the account."""
        account = self._accounts.get(account_id)
        return len(account.watches) if account is not None else 0

    def announce(self, watch: Watch, change: MailboxChange | None) -> None:
        """The session of `watch` changed a mailbox of its account: let the others know, here and in other processes.

        `change`: all that it did; None: the others ask PostgreSQL.
        """
        account = self._accounts[watch.account_id]
        if change is None or not account.recent.add(change):
            self._wake(watch.account_id, but=watch)
        else:
            self._forget_queries(watch.account_id)
            for other in account.watches:
                if other is not watch:
                    other.on_change(change)
        self._hints.publish(watch.account_id)

    def recent_changes(self, watch: Watch, mailbox_id: int, mod_seq: int) -> list[MailboxChange] | None:
        """The changes after `mod_seq`, at least up to those that the watch awaits; None: ask PostgreSQL."""
        found = self._accounts[watch.account_id].recent.since(mailbox_id, mod_seq)
        if watch.dirty or watch.awaited > (found[-1].mod_seq if found else mod_seq):
            return None
        metrics.REFRESHES_BY_SOURCE[RefreshSource.CACHE].inc()
        return found

    async def changes(self, account_id: int, mailbox_id: int, mod_seq: int) -> Changes:
        """The changes after `mod_seq`, as of now."""
        metrics.REFRESHES_BY_SOURCE[RefreshSource.QUERY].inc()
        return await self._mailbox_reader.changes_since(account_id, mailbox_id, mod_seq)

    async def shared_changes(self, account_id: int, mailbox_id: int, mod_seq: int) -> Changes:
        """The changes after `mod_seq`, as of the last hint or later."""
        key = (account_id, mailbox_id, mod_seq)
        task = self._queries.get(key)
        metrics.REFRESHES_BY_SOURCE[RefreshSource.SHARED if task else RefreshSource.HINT].inc()
        if task is None:
            task = asyncio.create_task(self._mailbox_reader.changes_since(account_id, mailbox_id, mod_seq))
            self._queries[key] = task
            task.add_done_callback(lambda done: self._query_ended(key, done))
        return await asyncio.shield(task)

    def _query_ended(self, key: _Key, task: asyncio.Task[Changes]) -> None:
        if self._queries.get(key) is task:
            del self._queries[key]
        if not task.cancelled():
            task.exception()  # the sessions that wait raise it; if none waits, asyncio must not log it

    def _on_hint(self, account_id: int) -> None:
        metrics.HINTS.inc()
        if self._queue.hint_source == self._source:  # our own: `announce` woke the sessions here
            return
        self._wake(account_id, but=None, traceparent=self._queue.hint_trace)

    def _forget_queries(self, account_id: int) -> None:
        """The queries under way began before this change: sessions that are woken for it must not share them."""
        for key in [key for key in self._queries if key[0] == account_id]:
            del self._queries[key]

    def _wake(self, account_id: int, *, but: Watch | None, traceparent: str = "") -> None:
        self._forget_queries(account_id)
        account = self._accounts.get(account_id)
        for watch in account.watches if account is not None else ():
            if watch is not but:
                watch.on_hint(traceparent)
