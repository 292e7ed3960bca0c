"""Changes of mailboxes, for all sessions of the process: hints in and out, and one query for many.

A hint says "look again"; PostgreSQL says what happened (invariant 4). Sessions that a hint woke share one query
for the same mailbox and the same point in time; a query is shared only by those who were woken before it began,
so none of them can miss what it was woken for. What a session of this process did itself, PostgreSQL has answered
already: the other sessions take it from memory when nothing else happened in between.
"""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from paquebot.imap import metrics
from paquebot.imap.mailbox_view.changes import MailboxChange, RecentChanges
from paquebot.imap.mailbox_view.hint_publisher import HintPublisher
from paquebot.imap.metrics import RefreshSource
from paquebot.mailstore import Changes, MailboxReader
from paquebot.observability import trace
from paquebot.observability.trace import Span
from paquebot.queue import Queue

_Key = tuple[int, int, int]  # account, mailbox, mod_seq
_MAX_SPANS = 16  # of hints that wait for one session's next look


@dataclass(slots=True, eq=False)
class Watch:
    """One session's interest in its account.

    `dirty`: a change was hinted at since it was last cleared, and only PostgreSQL knows which. `awaited`: of the
    selected mailbox all changes up to this mod_seq have happened.
    """

    account_id: int
    ring: Callable[[], None]
    dirty: bool = False
    awaited: int = 0
    _mailbox_id: int | None = None
    _spans: list[Span] = field(default_factory=list)

    def selects(self, mailbox_id: int | None) -> None:
        """From now on known changes of this mailbox alone concern the session; None: it is not known which."""
        if mailbox_id != self._mailbox_id:
            self._mailbox_id = mailbox_id
            self.awaited = 0

    def hinted(self, traceparent: str = "") -> None:
        """Something changed in the account."""
        if trace.is_sampled(traceparent) and len(self._spans) < _MAX_SPANS:
            self._spans.append(trace.span("imap", traceparent, kind=trace.Kind.CONSUMER, account_id=self.account_id))
        self.dirty = True
        self.ring()

    def changed(self, change: MailboxChange) -> None:
        """Another session of this process changed a mailbox of the account."""
        if self._mailbox_id is None:
            self.dirty = True
        elif self._mailbox_id == change.mailbox_id:
            self.awaited = max(self.awaited, change.mod_seq)
            self.ring()

    def take_spans(self) -> list[Span]:
        """Of the hints so far, before the look that answers them; for `end_spans`."""
        spans, self._spans = self._spans, []
        return spans


def end_spans(spans: list[Span], *, arrived: bool = False) -> None:
    """The news were written to the client, messages among them or not: the hints are answered."""
    for span in spans:
        if arrived:
            span.set(exists=True)
        span.end()


@dataclass(slots=True)
class _Account:
    """What is known of an account while sessions watch it."""

    watches: set[Watch] = field(default_factory=set)
    recent: RecentChanges = field(default_factory=RecentChanges)


class Feed:
    """One for a process."""

    def __init__(self, mailbox_reader: MailboxReader, queue: Queue) -> None:
        self._mailbox_reader = mailbox_reader
        self._queue = queue
        self._accounts: dict[int, _Account] = {}
        self._under_way: dict[_Key, asyncio.Task[Changes]] = {}
        self._source = secrets.token_hex(8).encode()
        self._telling = HintPublisher(queue, self._source)

    async def close(self) -> None:
        """Tell what is still to be told."""
        await self._telling.close()

    async def watch(self, account_id: int, ring: Callable[[], None]) -> Watch:
        """Hear of changes in the account until `ignore`."""
        watch = Watch(account_id, ring)
        account = self._accounts.setdefault(account_id, _Account())
        account.watches.add(watch)
        if len(account.watches) == 1:
            try:
                await self._queue.subscribe_mailbox(account_id, self._hinted)
            except BaseException:
                self.ignore(watch)
                raise
        return watch

    def ignore(self, watch: Watch) -> None:
        """End a watch."""
        end_spans(watch.take_spans())
        watches = self._accounts[watch.account_id].watches
        watches.discard(watch)
        if not watches:
            del self._accounts[watch.account_id]
            self._queue.unsubscribe_mailbox(watch.account_id, self._hinted)

    def sessions(self, account_id: int) -> int:
        """How many sessions of this process watch the account."""
        account = self._accounts.get(account_id)
        return len(account.watches) if account is not None else 0

    def changed(self, watch: Watch, change: MailboxChange | None) -> None:
        """The session of `watch` changed a mailbox of its account: tell the others, here and elsewhere. `change`: all
        that it did; None: that is to be looked up."""
        account = self._accounts[watch.account_id]
        if change is None or not account.recent.remember(change):
            self._wake(watch.account_id, but=watch)
        else:
            self._outdate(watch.account_id)
            for other in account.watches:
                if other is not watch:
                    other.changed(change)
        self._telling.changed(watch.account_id)

    def remembered(self, watch: Watch, mailbox_id: int, mod_seq: int) -> list[MailboxChange] | None:
        """What happened after `mod_seq` up to what the watch awaits or later; None: that is to be looked up."""
        found = self._accounts[watch.account_id].recent.since(mailbox_id, mod_seq)
        if watch.dirty or watch.awaited > (found[-1].mod_seq if found else mod_seq):
            return None
        metrics.REFRESHED[RefreshSource.REMEMBERED].inc()
        return found

    async def changes(self, account_id: int, mailbox_id: int, mod_seq: int) -> Changes:
        """What happened after `mod_seq`, as of now."""
        metrics.REFRESHED[RefreshSource.OWN].inc()
        return await self._mailbox_reader.changes_since(account_id, mailbox_id, mod_seq)

    async def shared_changes(self, account_id: int, mailbox_id: int, mod_seq: int) -> Changes:
        """What happened after `mod_seq`, as of the last hint or later."""
        key = (account_id, mailbox_id, mod_seq)
        task = self._under_way.get(key)
        metrics.REFRESHED[RefreshSource.SHARED if task else RefreshSource.HINTED].inc()
        if task is None:
            task = asyncio.create_task(self._mailbox_reader.changes_since(account_id, mailbox_id, mod_seq))
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(task)

    def _ended(self, key: _Key, task: asyncio.Task[Changes]) -> None:
        if self._under_way.get(key) is task:
            del self._under_way[key]
        if not task.cancelled():
            task.exception()  # those who wait have it; when none is left, it is no news

    def _hinted(self, account_id: int) -> None:
        metrics.HINTS.inc()
        if self._queue.hint_source == self._source:  # our own: `changed` woke whom it concerns here
            return
        self._wake(account_id, but=None, traceparent=self._queue.hint_trace)

    def _outdate(self, account_id: int) -> None:
        """The queries under way began before what is told now: whoever is woken must not join them."""
        for key in [key for key in self._under_way if key[0] == account_id]:
            del self._under_way[key]

    def _wake(self, account_id: int, *, but: Watch | None, traceparent: str = "") -> None:
        self._outdate(account_id)
        account = self._accounts.get(account_id)
        for watch in account.watches if account is not None else ():
            if watch is not but:
                watch.hinted(traceparent)
