"""At the end: what each mailbox and the remote host hold, against the replies to each sender."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.chaos.imap import Imap
from tests.chaos.ledger import Attempt, End, Ledger, is_report, number_of
from tests.chaos.place import Place

_MAILBOX = re.compile(rb'^\* LIST \(([^)]*)\) "[^"]" (.+)\r\n\Z')
_FINAL = re.compile(rb"^Final-Recipient: *rfc822; *(\S+)\r\n", re.IGNORECASE | re.MULTILINE)
_GROUP = 500


@dataclass(slots=True)
class Held:
    """What all mailboxes hold. `copies` counts by (account, number); `reports` by (account, number, forward-path)."""

    copies: Counter[tuple[str, str]] = field(default_factory=Counter)
    reports: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    messages: int = 0


async def read(place: Place, ledger: Ledger) -> Held:
    """Every message of every mailbox of every account."""
    held = Held()
    for name in place.cast.names:
        account = place.cast.address(name)
        async with Imap.session(place.ports.services.imaps, place.tls(), account) as client:
            for mailbox in await _mailboxes(client):
                selected = await client.select(mailbox)
                for first in range(1, selected.uid_next, _GROUP):
                    for one in await client.fetch(f"{first}:{first + _GROUP - 1}", "UID FLAGS MODSEQ BODY.PEEK[]"):
                        if one.content is not None:
                            _count(held, ledger, account, f"{mailbox} UID {one.uid}", one.content)
    return held


async def _mailboxes(client: Imap) -> list[str]:
    found = [_MAILBOX.match(line) for line in await client.command('LIST "" "*"')]
    return [match[2].decode() for match in found if match and b"\\Noselect" not in match[1]]


def _count(held: Held, ledger: Ledger, account: str, where: str, content: bytes) -> None:
    held.messages += 1
    ledger.compare("IMAP at the end", f"{account} {where}", content)
    number = number_of(content)
    if is_report(content):
        for path in _FINAL.findall(content):
            held.reports[account, number, path.decode()] += 1
    elif number in ledger.attempts:
        held.copies[account, number] += 1


@dataclass(slots=True)
class Verdict:
    """What came out, for the table. `lost` and what the ledger found are faults, the rest is physics."""

    local: int = 0
    remote: int = 0
    lost: list[str] = field(default_factory=list)
    remote_twice: int = 0
    reported: int = 0
    reported_twice: int = 0
    ambiguous: int = 0
    ambiguous_arrived: int = 0
    doubled_by_retry: int = 0


def judge(ledger: Ledger, held: Held, arrivals: Counter[tuple[str, str]]) -> Verdict:
    """Sentences on every broken promise go to the ledger. `arrivals`: what the remote host took, by (number,
    forward-path)."""
    verdict = Verdict()
    for attempt in ledger.attempts.values():
        _judge_local(ledger, held, verdict, attempt)
        _judge_remote(ledger, held, verdict, attempt, arrivals)
        if attempt.end is End.AMBIGUOUS:
            verdict.ambiguous += 1
            verdict.ambiguous_arrived += _arrived(attempt, held, arrivals)
    verdict.doubled_by_retry = _doubled(ledger.attempts.values(), held, arrivals)
    known = {(account, attempt.number) for attempt in ledger.attempts.values() for account in attempt.accounts}
    for account, number in held.copies.keys() - known:
        ledger.find(f"{account}: {number} was never accepted for this account")
    remote = {(attempt.number, path) for attempt in ledger.attempts.values() for path in attempt.remote}
    for number, path in arrivals.keys() - remote:
        ledger.find(f"{path}: {number} was relayed but never accepted for it")
    return verdict


def _judge_local(ledger: Ledger, held: Held, verdict: Verdict, attempt: Attempt) -> None:
    """Exactly once, at most once, or never."""
    for account in attempt.accounts:
        copies = held.copies[account, attempt.number]
        if attempt.end is End.ACCEPTED:
            verdict.local += 1
            if copies == 0:
                verdict.lost.append(f"{attempt.number} for {account}")
                ledger.find(f"LOST: {attempt.number} got 250 and is not in a mailbox of {account}")
        elif copies and attempt.end is not End.AMBIGUOUS:
            ledger.find(f"{attempt.number} ended {attempt.end.value} ({attempt.code}) but is in a mailbox of {account}")
        if copies > 1:
            ledger.find(f"{attempt.number} is {copies} times in the mailboxes of {account}")


def _judge_remote(
    ledger: Ledger, held: Held, verdict: Verdict, attempt: Attempt, arrivals: Counter[tuple[str, str]]
) -> None:
    """At least once or a DSN, never both."""
    for path in attempt.remote:
        copies = arrivals[attempt.number, path]
        reports = held.reports[attempt.reverse_path, attempt.number, path]
        if attempt.end is End.ACCEPTED:
            verdict.remote += 1
            if not copies and not reports:
                verdict.lost.append(f"{attempt.number} for {path}")
                ledger.find(f"LOST: {attempt.number} got 250, was not taken for {path}, and its sender got no report")
        elif (copies or reports) and attempt.end is not End.AMBIGUOUS:
            ledger.find(f"{attempt.number} ended {attempt.end.value} ({attempt.code}) but was relayed to {path}")
        if copies and reports:
            ledger.find(f"{attempt.number} was taken for {path}, and its sender got a report that it was not")
        verdict.remote_twice += max(0, copies - 1)
        verdict.reported += bool(reports)
        verdict.reported_twice += max(0, reports - 1)


def _arrived(attempt: Attempt, held: Held, arrivals: Counter[tuple[str, str]]) -> bool:
    local = any(held.copies[account, attempt.number] for account in attempt.accounts)
    return local or any(arrivals[attempt.number, path] for path in attempt.remote)


def _doubled(attempts: Iterable[Attempt], held: Held, arrivals: Counter[tuple[str, str]]) -> int:
    """Messages of which more than one attempt arrived at one place: an ambiguous one and its retry."""
    places: dict[tuple[str, str], int] = defaultdict(int)
    for attempt in attempts:
        for account in attempt.accounts:
            places[attempt.message, account] += bool(held.copies[account, attempt.number])
        for path in attempt.remote:
            places[attempt.message, path] += bool(arrivals[attempt.number, path])
    return len({message for (message, _), count in places.items() if count > 1})
