"""The IMAP rows of the benchmark's table: their titles, and the floors and goals they are held to."""

from __future__ import annotations

from dataclasses import dataclass

from bench.imap_measures import Samples
from bench.rows import Row, Spread


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
    "imap_mixed_cpu_seconds_per_1000": _Kind(
        "CPU seconds per 1,000 of them, engines included", "s", higher_is_better=False
    ),
    "imap_mixed_long_commands_per_second": _Kind("the same with ten rounds in a session", "1/s"),
    "imap_mixed_long_cpu_seconds_per_1000": _Kind(
        "CPU seconds per 1,000 of them, engines included", "s", higher_is_better=False
    ),
    "imap_idle_append_p50_ms": _milliseconds("IDLE: from APPEND to EXISTS, p50"),
    "imap_idle_append_p99_ms": _milliseconds("IDLE: from APPEND to EXISTS, p99"),
    "imap_idle_smtp_p50_ms": _milliseconds("IDLE: from the end of DATA to EXISTS, p50"),
    "imap_idle_smtp_p99_ms": _milliseconds("IDLE: from the end of DATA to EXISTS, p99"),
    "imap_flags_seconds": _seconds("SELECT and FETCH FLAGS of {messages}", 1.0, 4.0),
    "imap_envelope_seconds": _seconds("FETCH ENVELOPE, INTERNALDATE, SIZE of {messages}", 0.25, 0.6),
    "imap_bodystructure_seconds": _seconds("FETCH BODYSTRUCTURE of {messages}", 0.2, 0.5),
    "imap_bodies_seconds": _seconds("bodies of {messages} × 4 KiB, delivered among other mail", 0.02, 0.035),
    "imap_bodies_compacted_seconds": _seconds("the same after compaction", 0.1, 0.3, "imap_bodies_seconds"),
    "imap_flags_again_seconds": _seconds("SELECT and FETCH FLAGS, once more"),
    "imap_envelope_again_seconds": _seconds("FETCH ENVELOPE, INTERNALDATE, SIZE, once more"),
    "imap_bodystructure_again_seconds": _seconds("FETCH BODYSTRUCTURE, once more"),
    "imap_bodies_again_seconds": _seconds("bodies, once more"),
    "imap_sync_cpu_seconds": _Kind(
        "CPU seconds of the four, first time, engines included", "s", higher_is_better=False
    ),
    "imap_sync_again_cpu_seconds": _cpu("CPU seconds of the four, once more"),
}


def rows(ours: Samples, theirs: Samples | None, messages: int) -> list[Row]:
    """A row for each key that was measured of ours. `messages`: of the large mailbox."""
    return [
        Row(
            key=key,
            title=kind.title.format(messages=f"{messages:,} messages"),
            unit=kind.unit,
            ours=Spread.of(ours.figures[key]),
            theirs=_spread(theirs, kind.against or key),
            floor=kind.floor,
            goal=kind.goal,
            higher_is_better=kind.higher_is_better,
            speed_of_seconds=kind.speed_of_seconds,
        )
        for key, kind in _KINDS.items()
        if key in ours.figures
    ]


def _spread(samples: Samples | None, key: str) -> Spread | None:
    values = samples.figures.get(key) if samples is not None else None
    return Spread.of(values) if values else None
