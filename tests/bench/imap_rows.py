"""The IMAP rows of the benchmark's table: their titles, and the floors and goals they are held to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from enum import Enum
from functools import partial

from tests.bench import imap_measures
from tests.bench.imap_compaction import Compaction, compact
from tests.bench.imap_measures import LargeMailboxes, Samples, Scale
from tests.bench.ours import Ours
from tests.bench.peers import Peers
from tests.bench.rows import Row, Side, Spread


@dataclass(frozen=True, slots=True)
class _Kind:
    title: str
    unit: str
    floor: float | None = None
    goal: float | None = None
    higher_is_better: bool = True
    speed_of_seconds: bool = False
    against: str = ""
    """The other side's key, where it is another one."""


def _seconds(title: str, floor: float | None = None, goal: float | None = None, against: str = "") -> _Kind:
    return _Kind(title, "s", floor, goal, speed_of_seconds=True, against=against)


def _cpu(title: str) -> _Kind:
    return _Kind(title, "s", higher_is_better=False)


def _milliseconds(title: str) -> _Kind:
    return _Kind(title, "ms", higher_is_better=False)


_KINDS = {
    "imap_mixed_commands_per_second": _Kind("mixed IMAP commands per second, 20 clients", "1/s", 1.2, 2.0),
    "imap_mixed_cpu_seconds_per_1000": _cpu("CPU seconds per 1,000 of them, engines included"),
    "imap_mixed_long_commands_per_second": _Kind("the same with ten rounds in a session", "1/s"),
    "imap_mixed_long_cpu_seconds_per_1000": _cpu("CPU seconds per 1,000 in long sessions, engines included"),
    "imap_idle_append_p50_ms": _milliseconds("IDLE: from APPEND to EXISTS, p50"),
    "imap_idle_append_p99_ms": _milliseconds("IDLE: from APPEND to EXISTS, p99"),
    "imap_idle_smtp_p50_ms": _milliseconds("IDLE: from the end of DATA to EXISTS, p50"),
    "imap_idle_smtp_p99_ms": _milliseconds("IDLE: from the end of DATA to EXISTS, p99"),
    "imap_flags_seconds": _seconds("SELECT and FETCH FLAGS of {messages}", 1.0, 4.0),
    "imap_envelope_seconds": _seconds("FETCH ENVELOPE, INTERNALDATE, SIZE of {messages}", 0.25, 0.6),
    "imap_bodystructure_seconds": _seconds("FETCH BODYSTRUCTURE of {messages}", 0.2, 0.5),
    "imap_bodies_seconds": _seconds("bodies of {messages} × 4 KiB, delivered among other mail", 0.02, 0.035),
    "imap_bodies_compacted_seconds": _seconds("the same after compaction", 0.1, 0.3, "imap_bodies_seconds"),
    "compaction_requests_per_1000": _Kind("compaction: S3 requests per 1,000 messages", "", higher_is_better=False),
    "compaction_mib_per_1000": _Kind("compaction: MiB written per 1,000 messages", "MiB", higher_is_better=False),
    "compaction_cpu_seconds_per_1000": _cpu("compaction: CPU seconds per 1,000 messages, engines included"),
    "imap_flags_again_seconds": _seconds("SELECT and FETCH FLAGS, once more"),
    "imap_envelope_again_seconds": _seconds("FETCH ENVELOPE, INTERNALDATE, SIZE, once more"),
    "imap_bodystructure_again_seconds": _seconds("FETCH BODYSTRUCTURE, once more"),
    "imap_bodies_again_seconds": _seconds("bodies, once more (ours from its cache)"),
    "imap_sync_cpu_seconds": _cpu("CPU seconds of the four, first time, engines included"),
    "imap_sync_again_cpu_seconds": _cpu("CPU seconds of the four, once more"),
}


Say = Callable[[str], object]


class Part(Enum):
    """What can be measured by itself."""

    MIXED = "mixed"
    IDLE = "idle"
    LARGE = "large"


async def rows(
    ours: Ours,
    theirs: Peers | None,
    scale: Scale | None = None,
    repetitions: int = 3,
    parts: Collection[Part] = tuple(Part),
    say: Say = print,
) -> list[Row]:
    """Every IMAP row; both servers run, and are loaded one after the other, in turns. What there is to read beside the
    figures, faults above all, goes to `say` as it is found. Raises ServerFault."""
    scale = scale or Scale()
    mine, other = Samples(), Samples()
    sides: list[tuple[Side, Samples]] = [(ours, mine), *([(theirs, other)] if theirs is not None else [])]
    for _ in range(repetitions if Part.MIXED in parts else 0):
        for side, samples in sides:
            await imap_measures.mixed(side, scale, samples)
            _tell(side, samples, say)
    for side, samples in sides if Part.IDLE in parts else []:
        await imap_measures.idle(side, scale, samples)
        _tell(side, samples, say)
    if Part.LARGE in parts:
        await _large(ours, _OURS_LARGE, scale, mine, say, partial(compact, ours))
        if theirs is not None:
            await _large(theirs, 1, scale, other, say)
    return [*_measured(mine, other, scale.messages), *_faults(mine, other if theirs is not None else None)]


def _tell(side: Side, samples: Samples, say: Say) -> None:
    for text in samples.notes:
        say(f"{side.name}: {text}")
    samples.notes.clear()


_OURS_LARGE = 3
"""Accounts with a large mailbox, each one's mail among the others'. Theirs has one: where a file of a Maildir lies is
the same whatever arrived beside it."""


async def _large(
    side: Side,
    count: int,
    scale: Scale,
    samples: Samples,
    say: Say,
    compaction: Callable[[], Awaitable[Compaction | str]] | None = None,
) -> None:
    large = LargeMailboxes(side, count, scale, samples)
    await large.fill()
    _tell(side, samples, say)
    await large.synchronise()
    _tell(side, samples, say)
    if compaction is None:
        return
    done = await compaction()
    if isinstance(done, str) or not done.messages:
        samples.notes.append(f"no row after compaction: {done}")
        _tell(side, samples, say)
        return
    await large.compacted()
    for key, value in (
        ("requests", done.requests),
        ("mib", done.moved_bytes / 2**20),
        ("cpu_seconds", done.cpu_seconds),
    ):
        samples.add(f"compaction_{key}_per_1000", value * 1000 / done.messages)
    samples.notes.append(f"compaction of {done.messages:,} messages took {done.wall_seconds:.1f} s")
    _tell(side, samples, say)


def _measured(ours: Samples, theirs: Samples, messages: int) -> list[Row]:
    """A row for each key that was measured of ours."""
    return [
        Row(
            key=key,
            title=kind.title.format(messages=f"{messages:,} messages"),
            unit=kind.unit,
            ours=Spread.of(ours.figures[key]),
            theirs=_spread(theirs.figures.get(kind.against or key)),
            floor=kind.floor,
            goal=kind.goal,
            higher_is_better=kind.higher_is_better,
            speed_of_seconds=kind.speed_of_seconds,
        )
        for key, kind in _KINDS.items()
        if key in ours.figures
    ]


def _faults(ours: Samples, theirs: Samples | None) -> list[Row]:
    """Errors and wrong answers of all the above: none is allowed."""

    def row(key: str, title: str, mine: list[str], other: list[str] | None) -> Row:
        counted = Spread.of([float(len(other))]) if other is not None else None
        spread = Spread.of([float(len(mine))])
        return Row(key, title, "", spread, counted, 0.0, 0.0, higher_is_better=False, relative=False)

    return [
        row("imap_errors", "errors in all of it", ours.errors, theirs.errors if theirs is not None else None),
        row("imap_wrong_answers", "wrong answers", ours.wrong, theirs.wrong if theirs is not None else None),
    ]


def _spread(values: list[float] | None) -> Spread | None:
    return Spread.of(values) if values else None
