"""The judge of a chaos run: it sees each way in which the promise can be broken, and takes physics for what it is."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.chaos.judgement import Held, Verdict, judge
from tests.chaos.ledger import Attempt, End, Ledger, digest_of
from tests.chaos.schedule import deck, faults

BOB, REMOTE = "bob@chaos.test", "r1@remote.test"


def judged(
    end: End, *, copies: int = 0, arrivals: int = 0, reports: int = 0, to: str = BOB
) -> tuple[Verdict, list[str]]:
    """One attempt to one recipient, and what is where."""
    ledger, held = Ledger(), Held()
    local = frozenset({to}) - {REMOTE}
    ledger.attempts["n"] = Attempt("n", "m", "alice@chaos.test", b"", local, frozenset({to}) - local, end)
    held.copies.update({(BOB, "n"): copies} if copies else {})
    held.reports.update({("alice@chaos.test", "n", REMOTE): reports} if reports else {})
    verdict = judge(ledger, held, Counter({("n", REMOTE): arrivals} if arrivals else {}))
    return verdict, ledger.findings


@pytest.mark.parametrize(
    ("end", "copies", "fault"),
    [
        (End.ACCEPTED, 0, "LOST"),
        (End.ACCEPTED, 2, "2 times"),
        (End.REFUSED, 1, "ended refused"),
        (End.UNSENT, 1, "ended unsent"),
        (End.AMBIGUOUS, 2, "2 times"),
    ],
)
def test_a_broken_promise_is_found_in_a_mailbox(end: End, copies: int, fault: str) -> None:
    _, findings = judged(end, copies=copies)
    assert [fault in finding for finding in findings] == [True], findings


@pytest.mark.parametrize(
    ("end", "copies"), [(End.ACCEPTED, 1), (End.REFUSED, 0), (End.UNSENT, 0), (End.AMBIGUOUS, 0), (End.AMBIGUOUS, 1)]
)
def test_a_kept_promise_is_none(end: End, copies: int) -> None:
    assert judged(end, copies=copies)[1] == []


@pytest.mark.parametrize(
    ("end", "arrivals", "reports", "fault"),
    [
        (End.ACCEPTED, 0, 0, "LOST"),
        (End.ACCEPTED, 1, 1, "got a report that it was not"),
        (End.UNSENT, 1, 0, "was relayed"),
        (End.REFUSED, 0, 1, "was relayed"),
    ],
)
def test_a_broken_promise_is_found_at_the_remote_host(end: End, arrivals: int, reports: int, fault: str) -> None:
    _, findings = judged(end, arrivals=arrivals, reports=reports, to=REMOTE)
    assert [fault in finding for finding in findings] == [True], findings


def test_what_physics_doubles_is_counted() -> None:
    verdict, findings = judged(End.ACCEPTED, arrivals=3, to=REMOTE)
    assert (verdict.remote_twice, findings) == (2, [])
    verdict, findings = judged(End.ACCEPTED, reports=2, to=REMOTE)
    assert (verdict.reported, verdict.reported_twice, findings) == (1, 1, [])


def test_what_was_accepted_for_nobody_there_is_found() -> None:
    _, findings = judged(End.ACCEPTED, copies=1, arrivals=1, to=REMOTE)
    assert findings == [f"{BOB}: n was never accepted for this account"]


def test_a_retry_beside_its_ambiguous_attempt_is_a_double_of_the_sender() -> None:
    ledger, held = Ledger(), Held(Counter({(BOB, "n1"): 1, (BOB, "n2"): 1}))
    for number, end in (("n1", End.AMBIGUOUS), ("n2", End.ACCEPTED)):
        ledger.attempts[number] = Attempt(number, "m", "alice@chaos.test", b"", frozenset({BOB}), end=end)
    verdict = judge(ledger, held, Counter())
    assert (verdict.ambiguous_arrived, verdict.doubled_by_retry, ledger.findings) == (1, 1, [])


SENT = b"X-Chaos: n\r\nSubject: n\r\n\r\ntext\r\n"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"Received: by somebody\r\n" + SENT, ""),
        (SENT.replace(b"text", b"tezt"), "other bytes"),
        (SENT.replace(b": n\r\nS", b": m\r\nS"), "no client sent"),
        (SENT[:-3], "other bytes"),
        (b"", "no client sent"),
        (b"Subject: n\r\n\r\n" + SENT, "no client sent"),
    ],
)
def test_what_a_reader_is_given_is_what_was_sent(content: bytes, fault: str) -> None:
    ledger = Ledger(under_lies=True)
    ledger.attempts["n"] = Attempt("n", "m", "alice@chaos.test", digest_of(SENT))
    ledger.compare("IMAP", "bob INBOX UID 1", content)
    assert [fault in finding for finding in ledger.findings] == ([True] if fault else [])
    assert ledger.wrong["IMAP"] == bool(fault)
    assert ledger.compared["IMAP"] == ledger.compared_under_lies["IMAP"] == 1


def test_a_report_is_known_to_nobody_before() -> None:
    ledger = Ledger()
    ledger.compare("POP3", "bob", b"Content-Type: multipart/report\r\n\r\n" + SENT)
    assert (ledger.findings, ledger.compared.total()) == ([], 0)


def test_a_seed_gives_the_same_faults_again() -> None:
    first, second, other = (faults(seed, disks=True) for seed in ("1", "1", "2"))
    seen = [next(first) for _ in range(150)]
    assert seen == [next(second) for _ in range(150)]
    assert seen != [next(other) for _ in range(150)]


def test_full_disks_are_only_in_a_deck_with_disks() -> None:
    with_disks, without = (deck(random.Random(1), disks=disks) for disks in (True, False))
    assert len(with_disks) == len(without) + 3
