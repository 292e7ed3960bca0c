"""The IMAP side of the benchmark alone: our platform and, where it is installed, a private Postfix + Dovecot.

    python -m tests.bench.bench_imap [--repetitions 3] [--seconds 8] [--messages 10000] [--no-peers]
    python -m tests.bench.bench_imap --growth [--messages 100000] [--no-peers]

Prints a Markdown table of the rows that `make bench` writes into build/bench.json. With --growth it synchronises one
mailbox of 100 to 100,000 messages instead, and writes build/imap_growth.png when matplotlib is there. Exit code 1:
an answer was wrong, or a server failed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path

import uvloop

from tests.bench.imap_growth import SIZES, Growth, grow, plot
from tests.bench.imap_measures import Scale
from tests.bench.imap_rows import Part, rows
from tests.bench.ours import Ours, ours_running
from tests.bench.peers import Peers, lacking, peers_running
from tests.bench.rows import Row

DOMAIN = "bench.test"
BUILD = Path("build")


@contextlib.asynccontextmanager
async def _sides(*, peers: bool) -> AsyncIterator[tuple[Ours, Peers | None]]:
    async with contextlib.AsyncExitStack() as stack:
        base = _directory(stack)
        ours = await stack.enter_async_context(ours_running(base / "ours", DOMAIN))
        reason = lacking() if peers else "not asked for"
        if reason:
            print(f"without Postfix and Dovecot: {reason}")
            yield ours, None
        else:
            yield ours, await stack.enter_async_context(peers_running(base / "theirs", DOMAIN))


def _directory(stack: contextlib.AsyncExitStack) -> Path:
    base = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    base.chmod(0o755)  # the peers' processes have accounts of their own
    return base


def _say(text: str) -> None:
    print(f"    {text}", flush=True)


def _end_in_order() -> None:
    """SIGTERM, like Ctrl-C, still ends every server that was started."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def _table(measured: list[Row]) -> str:
    lines = ["| measure | ours | theirs | ratio | floor | goal |", "|---|---:|---:|---:|---:|---:|"]
    for row in measured:
        figures = [row.ours.median, row.theirs.median if row.theirs else None, row.ratio, row.floor, row.goal]
        shown = " | ".join("–" if figure is None else f"{figure:,.4g}" for figure in figures)
        lines.append(f"| {row.title} ({row.unit or 'count'}) | {shown} |")
    return "\n".join(lines)


async def _measure(options: argparse.Namespace) -> int:
    _end_in_order()
    scale = Scale(seconds=options.seconds, messages=options.messages)
    async with _sides(peers=options.peers) as (ours, theirs):
        parts = [Part(name) for name in options.parts]
        measured = await rows(ours, theirs, scale, options.repetitions, parts, _say)
    print(_table(measured))
    if options.json:
        await asyncio.to_thread(Path(options.json).write_text, json.dumps([asdict(row) for row in measured], indent=1))
    return int(any(row.ours.most for row in measured if row.key in ("imap_errors", "imap_wrong_answers")))


async def _grow(options: argparse.Namespace) -> int:
    _end_in_order()
    growths: dict[str, Growth] = {}
    async with _sides(peers=options.peers) as (ours, theirs):
        for side in (ours, theirs):
            if side is not None:
                growths[side.name] = await grow(side, [size for size in SIZES if size <= options.messages])
    for name, growth in growths.items():
        for size, found in growth.items():
            times = ", ".join(f"{step.value} {seconds:.3f} s" for step, seconds in found.seconds.items())
            print(f"{name}, {size:,} messages: {times}; {len(found.wrong)} wrong answers {found.wrong[:3] or ''}")
    print(plot(BUILD / "imap_growth.png", growths))
    return int(any(found.wrong for growth in growths.values() for found in growth.values()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [part.value for part in Part]
    parser.add_argument("--repetitions", type=int, default=3, help="of the mixed load on each side")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each mixed load")
    parser.add_argument("--messages", type=int, help="in the large mailbox; with --growth in the largest")
    parser.add_argument("--parts", nargs="+", choices=names, default=names, help="measure these alone")
    parser.add_argument("--no-peers", dest="peers", action="store_false", help="our platform alone")
    parser.add_argument("--growth", action="store_true", help="how the synchronisation grows with the mailbox")
    parser.add_argument("--json", help="write the rows there")
    options = parser.parse_args()
    options.messages = options.messages or (SIZES[-1] if options.growth else Scale().messages)
    return uvloop.run(_grow(options) if options.growth else _measure(options))


if __name__ == "__main__":
    sys.exit(main())
