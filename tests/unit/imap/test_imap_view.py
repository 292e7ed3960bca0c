"""A session's view against a plain model of a mailbox, and of a client that applies the responses."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from paquebot.imap.mailbox_view import updates
from paquebot.imap.mailbox_view.view import NoSuchSequenceNumber, View
from paquebot.imap.reply import in_chunks
from paquebot.imap.states import LoggedInAccount, Selected
from paquebot.mailstore import Flag, FlagRows, RecentRange
from paquebot.wire.imap import SequenceSet
from paquebot.wire.imap.sequence_set import SeqRange, ranges_of, set_of


def rows(messages: Sequence[tuple[int, int, int]], keywords: dict[int, tuple[str, ...]] | None = None) -> FlagRows:
    """(uid, mod_seq, flags) in columns."""
    ordered = sorted(messages)
    return FlagRows(
        uids=array("I", (uid for uid, _, _ in ordered)),
        flags=bytes(flags for _, _, flags in ordered),
        mod_seqs=array("Q", (mod_seq for _, mod_seq, _ in ordered)),
        keywords=keywords or {},
    )


def view_of(*uids: int) -> View:
    return View(rows([(uid, 1, 0) for uid in uids]), 1)


@given(
    st.sets(st.integers(1, 30)),
    st.lists(st.tuples(st.integers(1, 35) | st.none(), st.integers(1, 35) | st.none()), min_size=1, max_size=4),
)
def test_a_view_knows_whether_it_has_all_of_a_set(uids: set[int], ranges: list[tuple[int, int]]) -> None:
    view = view_of(*sorted(uids))
    named = SequenceSet(tuple(SeqRange(*ends) for ends in ranges))
    if any(None in ends for ends in ranges):  # `*` may be a message that the view does not have yet
        assert not view.knows_all(named)
    else:
        wanted = {uid for first, last in ranges for uid in range(min(first, last), max(first, last) + 1)}
        assert view.knows_all(named) is (wanted <= uids)


class ClientAndMailbox(RuleBasedStateMachine):
    """The mailbox changes at random; the session refreshes and reports expunges when it may; the client applies EXISTS
    and EXPUNGE by the rules of RFC 3501 §7.3.1 and §7.4.1 and must agree on every number."""

    def __init__(self) -> None:
        super().__init__()
        self.mailbox: dict[int, tuple[int, int]] = {}  # uid: (mod_seq, flags)
        self.expunged: list[tuple[int, int]] = []  # (mod_seq, uid)
        self.uid_next = 1
        self.mod_seq = 1
        self.view = View(FlagRows(), 1)
        self.client: list[int] = []  # UIDs by sequence number, as the client knows them
        self.seen = 1  # the highest mod-sequence of a FETCH response

    @rule(count=st.integers(1, 40))
    def arrive(self, count: int) -> None:
        self.mod_seq += 1
        for _ in range(count):
            self.mailbox[self.uid_next] = (self.mod_seq, 0)
            self.uid_next += 1

    @rule(data=st.data(), flags=st.integers(0, 31))
    def change(self, data: st.DataObject, flags: int) -> None:
        if self.mailbox:
            uid = data.draw(st.sampled_from(sorted(self.mailbox)))
            self.mod_seq += 1
            self.mailbox[uid] = (self.mod_seq, flags)

    @rule(data=st.data(), flags=st.integers(0, 31))
    def change_by_this_session(self, data: st.DataObject, flags: int) -> None:
        known = [uid for uid in self.view.uids if uid in self.mailbox]
        if known:
            uid = data.draw(st.sampled_from(known))
            self.mod_seq += 1
            self.mailbox[uid] = (self.mod_seq, flags)
            self.view.apply(rows([(uid, self.mod_seq, flags)]), ())
            self.seen = self.mod_seq

    @rule(data=st.data())
    def expunge(self, data: st.DataObject) -> None:
        if self.mailbox:
            gone = data.draw(st.sets(st.sampled_from(sorted(self.mailbox)), min_size=1))
            self.mod_seq += 1
            for uid in gone:
                del self.mailbox[uid]
                self.expunged.append((self.mod_seq, uid))

    @rule()
    def look(self) -> None:
        since = self.view.mod_seq
        changed = [(uid, mod_seq, flags) for uid, (mod_seq, flags) in self.mailbox.items() if mod_seq > since]
        gone = sorted(uid for mod_seq, uid in self.expunged if mod_seq > since)
        self.seen = max([self.seen, *(mod_seq for _, mod_seq, _ in changed)])
        before = self.view.exists
        updates = self.view.apply(rows(changed), gone, self.mod_seq)
        assert updates.arrived == self.view.exists - before
        self.client.extend(self.view.uids[before:])
        assert len(self.client) == self.view.exists  # the number of EXISTS
        assert set(updates.changed) <= {uid for uid, _, _ in changed}
        there = [uid for uid in self.view.uids if not self.view.is_expunged(uid)]
        assert there == sorted(self.mailbox)

    @rule()
    def release(self) -> None:
        gone = [uid for uid in self.view.uids if self.view.is_expunged(uid)]
        released = self.view.release()
        for number in released.numbers:
            del self.client[number - 1]
        assert list(released.uids) == gone

    @invariant()
    def client_and_view_agree(self) -> None:
        assert self.client == list(self.view.uids)
        assert all(a < b for a, b in zip(self.client, self.client[1:], strict=False))

    @invariant()
    def numbers_and_uids_are_inverse(self) -> None:
        for number in range(1, self.view.exists + 1):
            assert self.view.number(self.view.uid(number)) == number

    @invariant()
    def flags_are_never_older_than_the_last_look(self) -> None:
        for number in range(1, self.view.exists + 1):
            found = self.mailbox.get(self.view.uid(number))
            if found is not None and found[0] <= self.view.mod_seq:
                assert self.view.flags(number) == Flag(found[1])

    @invariant()
    def a_client_that_resumes_from_the_reported_mod_seq_misses_nothing(self) -> None:
        reported = self.view.reported_mod_seq
        assert all(uid in self.client for uid, (mod_seq, _) in self.mailbox.items() if mod_seq <= reported)
        assert not any(uid in self.client for mod_seq, uid in self.expunged if mod_seq <= reported)
        for number in range(1, self.view.exists + 1):
            found = self.mailbox.get(self.view.uid(number))
            assert found is None or found[0] > reported or self.view.flags(number) == Flag(found[1])
        assert self.seen <= reported or self.view.client_may_be_ahead


TestClientAndMailbox = ClientAndMailbox.TestCase
TestClientAndMailbox.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_own_change_does_not_hide_an_earlier_change_of_another() -> None:
    view = view_of(1, 2)
    view.apply(rows([(1, 3, Flag.SEEN)]), ())  # our STORE got mod_seq 3
    updates = view.apply(rows([(1, 3, Flag.SEEN), (2, 2, Flag.FLAGGED)]), (), 3)  # another session's change got 2
    assert updates.changed == (2,)


def test_reported_mod_seq_is_behind_while_expunged_messages_wait() -> None:
    view = view_of(1, 2)
    assert (view.reported_mod_seq, view.client_may_be_ahead) == (1, False)
    view.apply(rows([(1, 3, Flag.SEEN)]), [2], 3)
    view.apply(rows([(1, 4, 0)]), (), 4)
    assert (view.reported_mod_seq, view.client_may_be_ahead) == (1, True)
    view.release()
    assert (view.reported_mod_seq, view.client_may_be_ahead) == (4, False)


def test_own_change_is_not_reported_again() -> None:
    view = view_of(1)
    view.apply(rows([(1, 2, Flag.SEEN)]), ())
    assert view.apply(rows([(1, 2, Flag.SEEN)]), (), 2).changed == ()


def test_message_expunged_before_its_report_is_never_reported() -> None:
    view = view_of(1)
    view.apply(FlagRows(), [2], 5)
    assert view.exists == 1
    assert view.release().numbers == ()


def test_keywords_are_added_and_removed() -> None:
    view = view_of(1)
    view.apply(rows([(1, 2, 0)], {1: ("$Forwarded",)}), ())
    assert view.keywords(1) == ("$Forwarded",)
    view.apply(rows([(1, 3, 0)]), ())
    assert view.keywords(1) == ()


def test_recent_ranges_join_and_count_only_existing_messages() -> None:
    view = view_of(1, 5, 9)
    view.claim(RecentRange(5, 7))
    view.claim(RecentRange(7, 12))
    view.claim(RecentRange(12, 12))
    assert view.recent == 2
    assert [view.is_recent(number) for number in (1, 2, 3)] == [False, True, True]


def test_first_unseen() -> None:
    view = View(rows([(1, 1, Flag.SEEN), (2, 1, Flag.FLAGGED), (3, 1, 0)]), 1)
    assert view.first_unseen() == 2
    assert View(FlagRows(), 1).first_unseen() is None


def sequence(*ranges: tuple[int | None, int | None]) -> SequenceSet:
    return SequenceSet(tuple(SeqRange(low, high) for low, high in ranges))


def test_numbers_above_exists_are_a_client_error() -> None:
    with pytest.raises(NoSuchSequenceNumber):
        view_of(1, 2).select(sequence((1, 3)), uid=False)


def test_star_in_an_empty_mailbox() -> None:
    assert view_of().select(sequence((1, None)), uid=False) == []
    assert view_of().select(sequence((1, None)), uid=True) == []
    assert view_of().select(sequence((None, None)), uid=False) == []
    for named in (sequence((1, 1)), sequence((1, None), (2, 2))):
        with pytest.raises(NoSuchSequenceNumber):
            view_of().select(named, uid=False)


def test_uid_range_above_the_last_contains_the_last() -> None:
    # RFC 3501 §6.4.8: 559:* always contains the last message
    assert view_of(3, 7).select(sequence((559, None)), uid=True) == [2]
    assert view_of(3, 7).select(sequence((559, 600)), uid=True) == []


@given(st.sets(st.integers(1, 300), max_size=60), st.lists(st.tuples(st.integers(1, 350), st.integers(1, 350))))
def test_uid_sets_agree_with_a_linear_scan(uids: set[int], ranges: list[tuple[int, int]]) -> None:
    ordered = sorted(uids)
    found = view_of(*ordered).select(sequence(*ranges), uid=True)
    wanted = [number for number, uid in enumerate(ordered, 1) if any(min(pair) <= uid <= max(pair) for pair in ranges)]
    assert found == wanted


@given(st.sets(st.integers(1, 2**32 - 1), max_size=80), st.data())
def test_release_of_any_share(uids: set[int], data: st.DataObject) -> None:
    ordered = sorted(uids)
    gone = data.draw(st.sets(st.sampled_from(ordered))) if ordered else set()
    view = view_of(*ordered)
    view.apply(FlagRows(), gone, 2)
    numbers = view.release().numbers
    assert list(numbers) == sorted(numbers, reverse=True)
    assert list(view.uids) == [uid for uid in ordered if uid not in gone]
    assert view.select(set_of(sorted(uids)), uid=True) == list(range(1, view.exists + 1))


@given(st.sets(st.integers(1, 40)), st.sets(st.integers(1, 45)))
def test_gaps_are_the_uids_of_no_message(uids: set[int], asked: set[int]) -> None:
    found = View(rows([(uid, 1, 0) for uid in sorted(uids)]), 1)
    gaps = [uid for low, high in found.gaps(ranges_of(sorted(asked))) for uid in range(low, high + 1)]
    assert gaps == sorted(asked - uids)


def large(count: int) -> Selected:
    view = View(FlagRows(array("I", range(1, count + 1)), bytes(count), array("Q", [1] * count)), 1)
    return Selected(LoggedInAccount(1, "a@imap.test", 0), frozenset(), 1, "INBOX", 1, read_only=False, view=view)


def test_flags_of_a_large_mailbox_are_written_in_chunks() -> None:
    """The lines for 100,000 changed messages are never in memory together."""
    count = 100_000
    state = large(count)
    lines = updates.flag_lines(state, state.view.uids)
    first = next(iter(lines))
    assert first.startswith(b"* 1 FETCH (FLAGS ())\r\n") and len(first) < 20_000
    assert sum(piece.count(b"\r\n") for piece in lines) + first.count(b"\r\n") == count


def test_expunged_messages_are_removed_together_and_reported_in_chunks() -> None:
    count = 10_000
    state = large(count)
    state.view.apply(FlagRows(), range(1, count + 1), 2)
    lines = updates.expunge_lines(state)
    assert state.view.exists == 0
    assert next(filter(None, in_chunks(lines))).startswith(b"* 10000 EXPUNGE\r\n* 9999 EXPUNGE\r\n")


def test_many_empty_lines_are_written_in_steps() -> None:
    assert list(in_chunks([b""] * 3500, b"a OK\r\n")) == [b"", b"", b"", b"a OK\r\n"]
