"""Recent changes of the sessions of a process, and the sessions that they wake."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from paquebot.imap.mailbox_view.feed import MailboxChange, RecentChanges, Watch
from paquebot.mailstore import FlagRows


def change(mod_seq: int, *, mailbox_id: int = 1) -> MailboxChange:
    return MailboxChange(mailbox_id, mod_seq, expunged=(mod_seq,))


def recent_of(mod_seqs: Iterable[int]) -> RecentChanges:
    recent = RecentChanges()
    for mod_seq in mod_seqs:
        assert recent.add(change(mod_seq))
    return recent


@given(st.sets(st.integers(1, 20)), st.integers(0, 20))
def test_changes_are_returned_up_to_the_first_gap(known: set[int], mod_seq: int) -> None:
    following = next(number for number in range(mod_seq + 1, 23) if number not in known)
    found = recent_of(known).since(1, mod_seq)
    assert [one.mod_seq for one in found] == list(range(mod_seq + 1, following))


def test_answers_may_come_in_any_order() -> None:
    assert [one.mod_seq for one in recent_of((4, 2, 3)).since(1, 1)] == [2, 3, 4]


def test_other_mailboxes_are_not_mixed_in() -> None:
    recent = recent_of((2,))
    recent.add(change(3, mailbox_id=2))
    assert [one.mod_seq for one in recent.since(1, 1)] == [2]
    assert [one.mod_seq for one in recent.since(2, 2)] == [3]


def test_memory_is_bounded() -> None:
    recent = recent_of(range(1, 1001))
    assert recent.since(1, 0) == []
    assert len(recent.since(1, 980)) == 20
    for mailbox_id in range(2, 100):
        recent.add(change(1, mailbox_id=mailbox_id))
    assert (len(recent.since(99, 0)), recent.since(1, 980)) == (1, [])
    many = array("I", range(1, 1001))
    rows = FlagRows(many, bytes(len(many)), array("Q", [7] * len(many)))
    assert not recent.add(MailboxChange(1, 7, rows))


def test_a_session_is_woken_for_its_own_mailbox_only() -> None:
    rung: list[None] = []
    watch = Watch(1, lambda: rung.append(None))
    watch.on_change(change(5))
    assert watch.dirty  # no mailbox is selected yet: the session may be opening this one
    watch.dirty = False
    watch.select(1)
    watch.on_change(change(7, mailbox_id=2))
    assert (watch.dirty, watch.awaited, rung) == (False, 0, [])
    watch.on_change(change(8))
    watch.on_change(change(7))
    assert (watch.dirty, watch.awaited, len(rung)) == (False, 8, 2)
    watch.select(2)
    assert watch.awaited == 0
