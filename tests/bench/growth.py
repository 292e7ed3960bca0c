"""`make bench-growth`: how our figures grow with message size, accounts, messages in a mailbox and replicas.

Ours alone. Writes build/growth.json and one PNG for each curve. `--quick` leaves the largest points out.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.bench import backlog
from tests.bench.delivery_load import Load, Result, run_load
from tests.bench.flood import source_program
from tests.bench.letters import letter_files
from tests.bench.ours import Ours, ours_running
from tests.bench.plots import draw
from tests.bench.session import BUILD, DOMAIN, open_directory, run_to_end, say
from tests.bench.watch import Reader, watching

_KIB = 1024
_SIZES = (1 * _KIB, 4 * _KIB, 16 * _KIB, 64 * _KIB, 256 * _KIB, 1024 * _KIB, 5 * 1024 * _KIB, 25 * 1024 * _KIB)
_ACCOUNTS = (1, 10, 100, 1000)
_MAILBOXES = (100, 1_000, 10_000, 100_000)
_REPLICAS = (1, 2, 4)
_REPLICATED = ("smtp_ingress", "recipient_validation", "delivery")
_BYTES_OF_A_POINT = 96 * 1024 * _KIB
_MESSAGES_OF_A_POINT = 2000
_SESSIONS = 20
_BYTES_IN_FLIGHT = 128 * 1024 * _KIB
"""Of all sessions together: the ingress takes 256 MiB at a time, and refuses more with 452."""


@dataclass(slots=True)
class Curve:
    """Figures by name, each a list of (x, y)."""

    name: str
    x: str
    figures: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def add(self, x: float, **values: float) -> None:
        """A point of each figure; an underscore of a name is shown as a space."""
        for name, value in values.items():
            self.figures.setdefault(name.replace("_", " "), []).append((x, value))
        say(f"{self.name}: {self.x} {x:,.0f}: " + ", ".join(f"{name} {value:,.4g}" for name, value in values.items()))


@asynccontextmanager
async def _platform(accounts: int, workers: dict[str, int] | None = None) -> AsyncIterator[tuple[Ours, Path]]:
    with open_directory() as directory:
        settings = {"PAQUEBOT_IMAP_SESSIONS_PER_CLIENT": str(2 * accounts + 200)}  # a reader for each, all from here
        async with ours_running(directory / "ours", DOMAIN, accounts, workers, settings) as ours:
            yield ours, directory / "letters"


async def _deliver(ours: Ours, scratch: Path, messages: int, accounts: int, size: int) -> Result:
    letters = letter_files(scratch, ours.domain, accounts, size)
    async with watching(ours, accounts) as watch:
        sessions = max(1, min(_SESSIONS, _BYTES_IN_FLIGHT // size))
        return await run_load(ours, watch, Load(sessions, messages, False, tuple(letters), size))


async def message_size(quick: bool) -> Curve:
    curve = Curve("message size", "bytes")
    async with _platform(20) as (ours, scratch):
        await _deliver(ours, scratch, 1000, 20, 4 * _KIB)
        for size in _SIZES[: 6 if quick else None]:
            messages = min(_MESSAGES_OF_A_POINT, max(20, _BYTES_OF_A_POINT // size // 20 * 20))
            result = await _deliver(ours, scratch, messages, 20, size)
            curve.add(
                size,
                delivered_per_second=result.delivered,
                MiB_per_second=result.delivered * size / 2**20,
                CPU_seconds_per_1000=result.cpu_in_all,
            )
    return curve


async def accounts(quick: bool) -> Curve:
    curve = Curve("accounts", "accounts")
    numbers = _ACCOUNTS[: 3 if quick else None]
    async with _platform(max(numbers)) as (ours, scratch):
        await _deliver(ours, scratch, 1000, 1, 4 * _KIB)
        for number in numbers:
            # A load process for each account, and an IMAP session that watches it, are not to be most of the work.
            messages = max(_MESSAGES_OF_A_POINT, 10 * number)
            result = await _deliver(ours, scratch, messages, number, 4 * _KIB)
            curve.add(
                number,
                delivered_per_second=result.delivered,
                CPU_seconds_per_1000=result.cpu_in_all,
                CPU_seconds_per_1000_without_imap=result.cpu_in_all - result.cpu["imap"],
            )
    return curve


async def messages_in_mailbox(quick: bool) -> Curve:
    """Delivery to one mailbox that holds so many already, and a client's SELECT and FETCH FLAGS of all."""
    curve = Curve("messages in the mailbox", "messages")
    async with _platform(1) as (ours, scratch):
        held = 0
        for number in _MAILBOXES[: 3 if quick else None]:
            if number > held:
                await _deliver(ours, scratch, number - held, 1, 1 * _KIB)
                held = number
            result = await _deliver(ours, scratch, 1000, 1, 1 * _KIB)
            held += 1000
            reader = await Reader.open(ours, 0)
            start = time.perf_counter()
            await reader.ask("SELECT INBOX")
            selected = time.perf_counter() - start
            lines = await reader.ask("FETCH 1:* (FLAGS)")
            fetched = time.perf_counter() - start - selected
            await reader.close()
            assert sum(b" FETCH (" in line for line in lines) == held
            curve.add(
                held,
                delivered_per_second=result.delivered,
                CPU_seconds_per_1000=result.cpu_in_all,
                SELECT_milliseconds=selected * 1000,
                FETCH_FLAGS_microseconds_per_message=fetched / held * 1e6,
            )
    return curve


async def replicas(service: str) -> Curve:
    """Delivered a second, and for `delivery` the drain of a backlog, with so many workers on this machine."""
    curve = Curve(f"replicas of {service}", "processes")
    for number in _REPLICAS:
        async with _platform(100, {service: number}) as (ours, scratch):
            await _deliver(ours, scratch, 1000, 100, 4 * _KIB)
            result = await _deliver(ours, scratch, 4000, 100, 4 * _KIB)
            figures = {"delivered_per_second": result.delivered, "CPU_seconds_per_1000": result.cpu_in_all}
            if service == "delivery":
                rows = await backlog.rows(ours, 10_000, 100, scratch, say)
                figures["drained_per_second"] = rows[0].ours.median * backlog.workers(ours)
            curve.add(number, **figures)
    return curve


def _curves(quick: bool, only: Sequence[str]) -> list[Callable[[], Awaitable[Curve]]]:
    named: dict[str, Callable[[], Awaitable[Curve]]] = {
        "size": lambda: message_size(quick),
        "accounts": lambda: accounts(quick),
        "mailbox": lambda: messages_in_mailbox(quick),
    }
    for service in _REPLICATED:
        named[service] = lambda service=service: replicas(service)  # type: ignore[misc]
    return [make for name, make in named.items() if not only or name in only]


async def run(quick: bool, only: Sequence[str], output: Path) -> int:
    """Measure the curves one after the other; each is written when it is there."""
    found: list[Curve] = []
    for make in _curves(quick, only):
        found.append(await make())
        _write(found, output)
    return 0


def _write(found: Sequence[Curve], output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    (output / "growth.json").write_text(json.dumps([asdict(curve) for curve in found], indent=1) + "\n")
    curve = found[-1]
    path = output / f"growth-{curve.name.replace(' ', '-').replace('_', '-')}.png"
    draw(curve.name, curve.x, curve.figures, path)
    say(f"written: {path}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-growth", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="without the largest messages, accounts and mailboxes")
    names = ("size", "accounts", "mailbox", *_REPLICATED)
    parser.add_argument("--only", nargs="*", default=[], choices=names, help="these curves")
    parser.add_argument("--output", type=Path, default=BUILD, help="where the results go (build)")
    options = parser.parse_args()
    if source_program() is None:
        print("smtp-source, which makes the load, is not installed: run make bench-peers, as root", file=sys.stderr)
        return 2
    return run_to_end(run(options.quick, options.only, options.output))


if __name__ == "__main__":
    sys.exit(main())
