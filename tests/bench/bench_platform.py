"""Accepted and delivered messages a second of a whole platform on this machine, with Postfix's `smtp-source`.

    python tests/bench/bench_platform.py [--messages 4000] [--sessions 20,50] [--octets 4096]

Prints, for each number of sessions, messages accepted (250) and delivered (in the mailbox) a second, CPU seconds per
1,000 messages of each process, and packs; before that the memory of each process when idle. Needs `smtp-source`
(Debian's package postfix; its server need not run).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import asyncpg

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "e2e")]

from platforms import Platform, running  # noqa: E402

from paquebot.cli.engines.ports import LOOPBACK  # noqa: E402
from paquebot.cli.up.environment import DATABASE  # noqa: E402
from paquebot.cli.up.layout import SERVICES  # noqa: E402

NAMES = (*SERVICES, "nats", "s3", "postgres")
IDLE_SECONDS = 5.0
DEADLINE_SECONDS = 300.0
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """Of a process and its children."""

    cpu_seconds: float
    rss_mib: float
    pss_mib: float


def usage(pid: int) -> Usage:
    """CPU time so far (ended children included) and memory now."""
    cpu = rss = pss = 0.0
    for member in family(pid):
        try:
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(") ")[2].split()
            rollup = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        cpu += sum(int(fields[index]) for index in (11, 12)) / _TICK
        if member == pid:
            cpu += sum(int(fields[index]) for index in (13, 14)) / _TICK
        sizes = {line.split()[0]: int(line.split()[1]) / 1024 for line in rollup if line.endswith("kB")}
        rss, pss = rss + sizes["Rss:"], pss + sizes["Pss:"]
    return Usage(cpu, rss, pss)


def family(pid: int) -> list[int]:
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in path.read_text().split():
            found += family(int(child))
    return found


def usages(platform: Platform) -> dict[str, Usage]:
    return {name: usage(platform.stack.supervisor.pid(name)) for name in NAMES}


def packs(platform: Platform) -> float:
    """Commits of the ingress so far."""
    url = f"http://{LOOPBACK}:{platform.plan.ports.services.metrics('smtp_ingress')}/metrics"
    with urllib.request.urlopen(url) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("paquebot_spool_pack_messages_count "):
                return float(line.split()[1])
    return 0.0


async def flood(platform: Platform, sessions: int, messages: int, octets: int) -> None:
    connection = await asyncpg.connect(platform.plan.postgres.dsn(DATABASE))
    before = await connection.fetchval("SELECT count(*) FROM mailstore.messages")
    packed, used = packs(platform), usages(platform)
    start = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        "smtp-source",
        *("-s", str(sessions), "-m", str(messages), "-l", str(octets), "-f", "sender@example.org"),
        *("-t", platform.address("bob"), f"{LOOPBACK}:{platform.plan.ports.services.smtp}"),
    )
    if await process.wait() != 0:
        raise SystemExit("smtp-source failed")
    accepted = time.perf_counter() - start
    async with asyncio.timeout(DEADLINE_SECONDS):
        while await connection.fetchval("SELECT count(*) FROM mailstore.messages") < before + messages:
            await asyncio.sleep(0.01)
    delivered = time.perf_counter() - start
    await connection.close()
    after = usages(platform)
    cpu = {name: (after[name].cpu_seconds - used[name].cpu_seconds) * 1000 / messages for name in NAMES}
    print(
        f"{sessions:3} sessions, one message of {octets} octets per connection: "
        f"accepted {messages / accepted:,.0f}/s, delivered {messages / delivered:,.0f}/s, "
        f"{packs(platform) - packed:,.0f} packs for {messages:,} messages"
    )
    shown = " · ".join(f"{name} {seconds:.2f}" for name, seconds in cpu.items() if seconds >= 0.005)
    print(f"    CPU seconds per 1,000 messages: {shown} = {sum(cpu.values()):.2f}")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=4000)
    parser.add_argument("--sessions", default="20,50")
    parser.add_argument("--octets", type=int, default=4096)
    options = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin"
    if not shutil.which("smtp-source"):
        print("skipped: smtp-source is not installed (Debian: apt-get install postfix)")
        return
    with tempfile.TemporaryDirectory() as directory:
        async with running(Path(directory), "paquebot.test") as platform:
            await asyncio.sleep(IDLE_SECONDS)
            print("idle memory, MiB (RSS · PSS, children included):")
            for name, used in usages(platform).items():
                print(f"    {name:22} {used.rss_mib:6.0f} · {used.pss_mib:4.0f}")
            await flood(platform, 10, 200, options.octets)  # connections, prepared statements, caches
            for sessions in options.sessions.split(","):
                await flood(platform, int(sessions), options.messages, options.octets)


if __name__ == "__main__":
    asyncio.run(main())
