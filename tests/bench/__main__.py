"""`make bench`: measure our platform, and Postfix + Dovecot beside it when they are installed and root runs this."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from tests.bench import backlog, imap_rows, smtp_rows
from tests.bench.flood import source_program
from tests.bench.ours import Ours, ours_running
from tests.bench.peers import Peers, lacking, peers_running
from tests.bench.report import as_json, as_markdown, machine
from tests.bench.rows import Row
from tests.bench.session import BUILD, DOMAIN, open_directory, run_to_end, say

Measure = Callable[[Ours, "Peers | None", argparse.Namespace, Path], Awaitable[list[Row]]]
"""Some of the rows. The two servers have just been started for it; the path is a directory for its own files."""


async def _smtp(ours: Ours, theirs: Peers | None, options: argparse.Namespace, scratch: Path) -> list[Row]:
    plan = smtp_rows.Plan(
        sessions=tuple(int(number) for number in options.sessions.split(",")),
        messages=options.messages,
        repetitions=options.repetitions,
        probed=min(smtp_rows.Plan().probed, options.repetitions),
        warm_up=min(smtp_rows.Plan().warm_up, options.messages),
    )
    rows, remarks = await smtp_rows.measure(ours, theirs, plan, scratch, say)
    options.remarks += remarks
    if options.backlog:
        rows += await backlog.rows(ours, options.backlog, plan.mailboxes, scratch, say)
    return rows


async def _imap(ours: Ours, theirs: Peers | None, _options: argparse.Namespace, _scratch: Path) -> list[Row]:
    return await imap_rows.rows(ours, theirs, say=say)


PARTS: dict[str, Measure] = {"smtp": _smtp, "imap": _imap}
"""In the order of the table."""


async def run(options: argparse.Namespace) -> int:
    """Start both for each part, measure, write the results; returns the exit code."""
    reason = lacking()
    if reason:
        say(f"without Postfix and Dovecot, so without ratios: {reason}")
    options.remarks, rows = [], list[Row]()
    with open_directory(options.data) as directory:
        for name in options.parts:
            rows += await _measured(PARTS[name], directory / name, options, peers=not reason)
        about = machine(directory)
    _write(rows, about, options.remarks, options.output)
    return 0


async def _measured(measure: Measure, directory: Path, options: argparse.Namespace, *, peers: bool) -> list[Row]:
    accounts = smtp_rows.Plan().mailboxes + 1
    async with AsyncExitStack() as stack:
        theirs = None
        if peers:
            theirs = await stack.enter_async_context(peers_running(directory / "peers", DOMAIN, accounts))
        ours = await stack.enter_async_context(ours_running(directory / "ours", DOMAIN, accounts))
        say("both run" if theirs else "our platform runs")
        return await measure(ours, theirs, options, directory / "letters")


def _write(rows: Sequence[Row], about: dict[str, str], remarks: Sequence[str], output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    text = as_markdown(rows, about, remarks)
    (output / "bench.json").write_text(as_json(rows, about, remarks))
    (output / "bench.md").write_text(text)
    print(text)
    say(f"written: {output / 'bench.json'}, {output / 'bench.md'}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "--messages", type=int, default=4000, help="of each repetition, a multiple of 100 (%(default)s)"
    )
    parser.add_argument("--repetitions", type=int, default=5, help="of each load on each side (%(default)s)")
    parser.add_argument("--sessions", default="20,50", help="numbers of sessions, with commas (%(default)s)")
    parser.add_argument(
        "--backlog", type=int, default=50_000, help="messages that wait for delivery, a multiple of 100; 0: none"
    )
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="measure these alone")
    parser.add_argument("--data", type=Path, help="the directory for the servers' files (the system's for such files)")
    parser.add_argument("--output", type=Path, default=BUILD, help="where the results go (build)")
    return parser.parse_args()


def main() -> int:
    options = _options()
    if source_program() is None:
        print("smtp-source, which makes the load, is not installed: run make bench-peers, as root", file=sys.stderr)
        return 2
    return run_to_end(run(options))


if __name__ == "__main__":
    sys.exit(main())
