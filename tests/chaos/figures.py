"""The table of a run, and the same as JSON."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import asdict
from typing import Any

from tests.chaos.ledger import End
from tests.chaos.run import Run


def as_json(run: Run) -> dict[str, Any]:
    """Everything that a run counted."""
    return {
        "seed": run.order.seed,
        "seconds": round(run.figures.seconds, 1),
        "faults": [
            {"kind": kind, "fault": text, "again_s": round(again, 1)} for kind, text, again in run.figures.faults
        ],
        **dict(_rows(run)),
        "findings": run.ledger.findings,
    }


def _rows(run: Run) -> list[tuple[str, Any]]:
    ledger, verdict, recovered = run.ledger, run.figures.verdict, run.figures.recovered
    return [
        ("attempts", len(ledger.attempts)),
        *((f"ended {end.value}", ledger.ends[end]) for end in End),
        ("kept for a local mailbox", verdict.local),
        ("kept for a remote recipient", verdict.remote),
        ("lost", len(verdict.lost)),
        ("failures reported to the sender", verdict.reported),
        ("messages read in all mailboxes", run.figures.messages_in_mailboxes),
        ("relayed twice: the reply was lost", verdict.remote_twice),
        ("reported twice", verdict.reported_twice),
        ("ambiguous attempts that arrived", verdict.ambiguous_arrived),
        ("messages doubled by their sender's retry", verdict.doubled_by_retry),
        ("brought in by the last recover", asdict(recovered)["recipients"] if recovered else 0),
        ("flags stored", sum(watcher.stored for watcher in run.watchers)),
        ("drafts moved", sum(filer.moved for filer in run.filers)),
        ("mailboxes compared whole", sum(watcher.looks for watcher in run.watchers)),
        *((f"bodies compared: {way}", count) for way, count in sorted(ledger.compared.items())),
        *((f"of them while S3 lied: {way}", count) for way, count in sorted(ledger.compared_under_lies.items())),
        ("bodies with other bytes than were sent", ledger.wrong.total()),
        ("longest wait for the reply to a message, s", round(ledger.longest_wait, 1)),
        ("lies of S3", run.figures.lies),
        ("probes answered while an engine was away", sum(asked.answers for asked in run.figures.asked)),
        ("probes not judged, as this process did not get to run", sum(a.not_judged for a in run.figures.asked)),
        ("slowest answer to a probe, s", round(max((a.slowest for a in run.figures.asked), default=0.0), 1)),
        ("IMAP connections cut", sum(watcher.cuts for watcher in run.watchers)),
        ("IMAP commands refused temporarily", sum(watcher.refusals for watcher in run.watchers)),
        ("POP3 connections cut", sum(retriever.cuts for retriever in run.retrievers)),
        ("POP3 commands refused temporarily", sum(retriever.refusals for retriever in run.retrievers)),
    ]


def table(run: Run) -> str:
    """Faults by kind with the time until mail flowed again, then what became of the mail."""
    by_kind: dict[str, list[float]] = defaultdict(list)
    for kind, _, again in run.figures.faults:
        by_kind[kind].append(again)
    lines = ["", "| fault | times | mail again after, median s | most s |", "|---|---|---|---|"]
    for kind, seconds in sorted(by_kind.items()):
        lines.append(f"| {kind} | {len(seconds)} | {statistics.median(seconds):.1f} | {max(seconds):.1f} |")
    lines += ["", f"| seed {run.order.seed}, {run.figures.seconds:.0f} s | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in _rows(run)]
    return "\n".join(lines) + "\n"
