"""How ordinary clients fare while another attacks: `make attack`.

    python -m tests.attack.measure [--seconds 10] [--only WORDS] [--checks]
    python -m tests.attack.measure --random 10 [--seed N]       # minutes of attacks drawn at random, some together

Starts a platform whose services have no more memory than the chart gives their pods, and lets one ordinary client of
each kind work without a pause: mail from another host, submission, IMAP and POP3 from connect to goodbye, mail for
another domain until its host has it, and NOOP after NOOP in an open IMAP session. First alone, then under each attack.

Prints p99 of each, the clients that failed, the peak memory of each service, and CPU; writes build/attack.json. An
attack is resisted when no client failed, no p99 is above both 250 ms and three times what it is in peace, and no
service ended or needed more memory than its limit. Then come checks of what is not about load
(tests/attack/checks.py), with --only or --random if --checks is given. Exit code 1: an attack was not resisted, or a
check found a fault.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import imaplib
import itertools
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it logs each handshake of a refused stranger

from tests.attack import checks
from tests.attack.attacks import ATTACKS, Attack, prepared, under
from tests.attack.clients import DEADLINE_SECONDS, KINDS, NOOP, submission, working
from tests.attack.field import SECRET, Field, field_of
from tests.attack.finding import Finding
from tests.bench.processes import cpu_seconds

SHOWN = ("smtp_ingress", "relay", "imap", "pop3")
BOUND_MS, TIMES_PEACE = 250.0, 3.0
_RAMP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Figures:
    """Under one attack. Milliseconds (p50, p99) by kind of ordinary client, MiB by service, CPU seconds a second."""

    attack: str
    rounds: int
    ms: dict[str, tuple[float, float]]
    failures: dict[str, list[str]]
    peaks_mib: dict[str, float]
    broken: list[str]
    cpu: float

    @property
    def failed(self) -> int:
        return sum(map(len, self.failures.values()))

    def faults(self, peace: Figures) -> list[str]:
        """Why the attack was not resisted, by what ordinary clients saw in peace; empty: it was."""
        slow = [
            f"{kind} p99 {p99:.0f} ms"
            for kind, (_, p99) in self.ms.items()
            if p99 > max(BOUND_MS, TIMES_PEACE * peace.ms[kind][1])
        ]
        return (
            self.broken + slow + [f"{kind} failed {len(why)}: {why[0]}" for kind, why in self.failures.items() if why]
        )


async def observed(place: Field, attacks: Sequence[Attack], seconds: float) -> Figures:
    """Ordinary clients for so long, under the attacks if there are any, which have begun before them."""
    for attack in attacks:
        await prepared(attack, place.victim)
    place.limits.begin()
    roots = place.limits.pids()
    used, began = _cpu(roots), time.monotonic()
    async with contextlib.AsyncExitStack() as ordinary:
        async with under(attacks, place.victim) as rounds:
            await asyncio.sleep(min(seconds / 2, _RAMP_SECONDS))
            seen = await ordinary.enter_async_context(working(place))
            await asyncio.sleep(seconds)
        peaks, broken = place.limits.peaks(), place.limits.broken()
        cpu = 0.0 if broken else (_cpu(roots) - used) / (time.monotonic() - began)
    return Figures(
        " + ".join(attack.name for attack in attacks) or "none",
        rounds[0],
        {name: (one.quantile(0.5) * 1000, one.quantile(0.99) * 1000) for name, one in seen.items()},
        {name: one.failures for name, one in seen.items()},
        peaks,
        broken,
        cpu,
    )


def _cpu(roots: Mapping[str, int]) -> float:
    """Seconds; 0.0 while a service that was ended is started again."""
    with contextlib.suppress(RuntimeError):
        return sum(cpu_seconds(roots).values())
    return 0.0


async def first_message(place: Field) -> None:
    """For ordinary readers."""

    def send() -> None:
        with place.platform.mx() as client:
            client.sendmail("a@ordinary.test", [place.oscar], b"Subject: first\r\n\r\n" + b"x\r\n" * 1000)

    def arrived() -> bool:
        client = imaplib.IMAP4_SSL("127.0.0.1", place.ports.imaps, ssl_context=place.tls)
        client.login(place.oscar, SECRET)
        _, [count] = client.select("INBOX")
        client.logout()
        return int(count or 0) > 0

    await asyncio.to_thread(send)
    await submission(place)
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await asyncio.to_thread(arrived):
            await asyncio.sleep(0.05)


def head() -> str:
    columns = (
        "attack",
        "rounds",
        *(f"{name} p99 ms" for name in (*KINDS, NOOP)),
        "failed",
        *SHOWN,
        "CPU s/s",
        "resisted",
    )
    return f"| {' | '.join(columns)} |\n|---|{'---:|' * (len(columns) - 2)}---|"


def row(one: Figures, peace: Figures) -> str:
    times = [f"{p99:.0f}" for _, p99 in one.ms.values()]
    peaks = [f"{one.peaks_mib[name]:.0f}" for name in SHOWN]
    verdict = "yes" if not (faults := one.faults(peace)) else "NO: " + "; ".join(faults)
    cells = (one.attack, str(one.rounds), *times, str(one.failed), *peaks, f"{one.cpu:.2f}", verdict)
    return f"| {' | '.join(cells)} |"


Round = tuple[Sequence[Attack], float]
"""Attacks at once, and for how many seconds."""


def at_random(attacks: Sequence[Attack], minutes: float, seed: str) -> Iterator[Round]:
    """One to three attacks together for some seconds, then others, for so long in all."""
    chance, left = random.Random(seed), minutes * 60
    while left > 0:
        seconds = round(min(left, chance.uniform(4, 15)), 1)
        yield chance.sample(attacks, min(len(attacks), chance.choice((1, 1, 2, 3)))), seconds
        left -= seconds


async def every_round(
    rounds: Iterable[Round], seconds: float, then: Sequence[checks.Check]
) -> tuple[list[Figures], list[Finding]]:
    """Peace first, for twice so many seconds, and last. Printed as they come."""
    with tempfile.TemporaryDirectory() as directory:
        async with field_of(Path(directory)) as place:
            how = "held to" if place.limits.enforced else "compared with"
            print(f"Memory is {how} the chart's limits. Columns of services: the most resident memory, MiB.\n")
            await first_message(place)
            await observed(place, (), 2)  # caches, connections
            print(head(), flush=True)
            found: list[Figures] = []
            for attacks, duration in itertools.chain([((), 2 * seconds)], rounds, [((), seconds)]):
                found.append(await observed(place, attacks, duration))
                print(row(found[-1], found[0]), flush=True)
            return found, await _checked(place, then)


async def _checked(place: Field, then: Sequence[checks.Check]) -> list[Finding]:
    if then:
        print(f"\n{checks.HEAD}")
    findings: list[Finding] = []
    async for one in checks.findings(place, then):
        findings.append(one)
        print(checks.row(one), flush=True)
    return findings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each attack")
    parser.add_argument("--only", default="", help="attacks whose name has one of these words, with commas between")
    parser.add_argument(
        "--random", type=float, default=0.0, metavar="MINUTES", help="draw attacks at random for so long"
    )
    parser.add_argument("--seed", default="", help="of --random; default: a new one")
    parser.add_argument("--checks", action="store_true", help="with --only or --random: the checks too")
    options = parser.parse_args()
    words = [word.strip() for word in options.only.split(",") if word.strip()]
    attacks = [attack for attack in ATTACKS if not words or any(word in attack.name for word in words)]
    rounds: Iterable[Round] = (([attack], options.seconds) for attack in attacks)
    if options.random:
        seed = options.seed or str(random.SystemRandom().randrange(1_000_000))
        print(f"seed {seed}: --seed {seed} draws the same attacks", flush=True)
        rounds = at_random(attacks, options.random, seed)
    then = checks.CHECKS if options.checks or not (words or options.random) else ()
    found, findings = asyncio.run(every_round(rounds, options.seconds, then))
    path = Path("build/attack.json")
    path.parent.mkdir(exist_ok=True)
    figures = {"attacks": [asdict(one) for one in found], "checks": [asdict(one) for one in findings]}
    path.write_text(json.dumps(figures, indent=1))
    return int(any(one.faults(found[0]) for one in found) or any(one.fault for one in findings))


if __name__ == "__main__":
    sys.exit(main())
