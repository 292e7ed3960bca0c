"""The result: build/bench.json for programs, a Markdown table for people."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.bench.rows import Row, Spread


def machine(data: Path) -> dict[str, str]:
    """What the figures depend on. `data`: where the servers keep their files."""
    model, memory = _entry("/proc/cpuinfo", "model name"), _entry("/proc/meminfo", "MemTotal")
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "processor": model,
        "memory": f"{int(memory.split()[0]) / 2**20:.1f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "filesystem": _said("stat", "--file-system", "--format=%T", str(data)),
        "postfix": _said("dpkg-query", "--show", "--showformat=${Version}", "postfix"),
        "dovecot": _said("dpkg-query", "--show", "--showformat=${Version}", "dovecot-core"),
    }


def _entry(path: str, name: str) -> str:
    """The value of the first line `name: value`."""
    lines = (line.partition(":") for line in Path(path).read_text().splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), "0")


def _said(*argv: str) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def as_json(rows: Sequence[Row], about: dict[str, str], remarks: Sequence[str]) -> str:
    """`rows` by key: ours, theirs, ratio, floor, goal, met ("goal", "floor", "no", or null where nothing is asked)."""
    keys = [row.key for row in rows]
    if len(set(keys)) != len(keys):
        raise ValueError(f"two rows with one key: {sorted(key for key in keys if keys.count(key) > 1)}")
    found = {row.key: _described(row) for row in rows}
    return json.dumps({"machine": about, "remarks": list(remarks), "rows": found}, indent=1) + "\n"


def _described(row: Row) -> dict[str, object]:
    return {
        "title": row.title,
        "unit": row.unit,
        "ours": row.ours.median,
        "ours_spread": [row.ours.least, row.ours.most],
        "theirs": row.theirs.median if row.theirs else None,
        "theirs_spread": [row.theirs.least, row.theirs.most] if row.theirs else None,
        "repetitions": row.ours.times,
        "ratio": row.ratio,
        "floor": row.floor,
        "goal": row.goal,
        "met": met(row),
    }


def met(row: Row) -> str | None:
    """ "goal", "floor" or "no"; None: nothing is asked of the row, or it was not compared."""
    if row.meets(row.goal):
        return "goal"
    reached = row.meets(row.floor)
    return None if reached is None else "floor" if reached else "no"


def as_markdown(rows: Sequence[Row], about: dict[str, str], remarks: Sequence[str]) -> str:
    """First the rows with a floor or goal, then all others."""
    asked = [row for row in rows if row.floor is not None or row.goal is not None]
    rest = [row for row in rows if row not in asked]
    text = "Machine: " + ", ".join(f"{name} {value}" for name, value in about.items() if value) + ".\n\n"
    text += "".join(f"{remark}\n\n" for remark in remarks)
    text += (
        "| measure | Paquebot | Postfix + Dovecot | ratio | floor | goal | met |\n|---|---:|---:|---:|---:|---:|---|\n"
    )
    for row in asked:
        limits = f"{_limit(row, row.floor)} | {_limit(row, row.goal)} | {met(row) or '–'}"
        text += f"| {_title(row)} | {_shown(row.ours)} | {_shown(row.theirs)} | {_ratio(row)} | {limits} |\n"
    text += "\nMedians; in brackets the least and the most of the repetitions.\n\n"
    text += "| measure | Paquebot | Postfix + Dovecot | ratio |\n|---|---:|---:|---:|\n"
    for row in rest:
        text += f"| {_title(row)} | {_shown(row.ours)} | {_shown(row.theirs)} | {_ratio(row)} |\n"
    return text


def _title(row: Row) -> str:
    return f"{row.title}, {row.unit}" if row.unit not in ("", "1/s") else row.title


def _ratio(row: Row) -> str:
    return f"{row.ratio:.2f}" if row.ratio is not None else "–"


def _limit(row: Row, limit: float | None) -> str:
    if limit is None:
        return "–"
    return f"{'≥' if row.higher_is_better else '≤'} {limit:,g}{'×' if row.relative else ''}"


def _shown(spread: Spread | None) -> str:
    if spread is None:
        return "–"
    text = _number(spread.median)
    return f"{text} ({_number(spread.least)}–{_number(spread.most)})" if spread.times > 1 else text


def _number(value: float) -> str:
    """Three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"
