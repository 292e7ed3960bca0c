"""kill -9 of each process, one after another, while mail flows: what was answered with 250 arrives, once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from paquebot.cli.up.layout import SERVICES
from tests.e2e.platforms import Platform, until
from tests.e2e.senders import Sender, arrivals, sending

ENGINES = ("nats", "s3", "postgres")
ACCEPTED_BETWEEN_KILLS = 10


async def kill(platform: Platform, name: str, senders: list[Sender]) -> None:
    """Kill a process in the midst of mail, and wait until mail flows again everywhere."""
    before = [sender.count() for sender in senders]
    for sender, count in zip(senders, before, strict=True):
        await until(lambda: sender.count() > count, f"mail before {name} is killed")  # noqa: B023
    pid = platform.stack.supervisor.pid(name)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: platform.stack.supervisor.pid(name) != pid, f"{name} started again")
    after = [sender.count() + ACCEPTED_BETWEEN_KILLS for sender in senders]
    for sender, count in zip(senders, after, strict=True):
        await until(lambda: sender.count() >= count, f"mail after {name} was killed", timeout=60)  # noqa: B023


async def test_no_kill_loses_or_doubles_a_message(platforms: tuple[Platform, Platform]) -> None:
    here, there = platforms
    local = Sender(here, here.address("bob"), "kill-local")
    remote = Sender(here, there.address("bob"), "kill-remote")
    async with sending(local, remote):
        for name in (*SERVICES, *ENGINES):
            await kill(here, name, [local, remote])
    for sender in (local, remote):
        assert set(sender.refused) <= {421, 451, 454}, "only temporary refusals"

    delivered = await arrivals(here, "bob", local)
    assert set(delivered.values()) == {1}
    relayed = await arrivals(there, "bob", remote)
    # The relay was killed once: what it was sending at that moment may have gone twice (RFC 1047), nothing else.
    doubled = [mark for mark, count in relayed.items() if count > 1]
    assert max(relayed.values()) <= 2
    assert len(doubled) <= 10


def workers(platform: Platform, name: str) -> list[int]:
    """Process ids of a service's workers; the first child of the parent is its front."""
    pid = platform.stack.supervisor.pid(name)
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()][1:]


async def test_a_killed_worker_comes_back_and_loses_nothing(platforms: tuple[Platform, Platform]) -> None:
    _, there = platforms
    local = Sender(there, there.address("bob"), "kill-worker")
    async with sending(local):
        for name in SERVICES:
            if name == "recipient_validation":  # its UNIX socket has one process; integration/test_grpc_process.py
                continue
            before = workers(there, name)
            assert len(before) == 2, name
            os.kill(before[0], signal.SIGKILL)
            await until(lambda: len(set(workers(there, name)) - set(before)) == 1, f"another worker of {name}")  # noqa: B023
            count = local.count() + ACCEPTED_BETWEEN_KILLS
            await until(lambda: local.count() >= count, f"mail after a worker of {name} was killed", timeout=60)  # noqa: B023
    found = await arrivals(there, "bob", local)
    assert set(found.values()) == {1}


async def test_a_killed_platform_keeps_everything(platforms: tuple[Platform, Platform]) -> None:
    """Every process of a platform at once, engines included."""
    _, there = platforms
    local = Sender(there, there.address("alice"), "kill-all")
    async with sending(local):
        await until(lambda: local.count() >= 20, "some mail")
        names = (*SERVICES, *ENGINES)
        before = {name: there.stack.supervisor.pid(name) for name in names}
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        count = local.count()
        await until(
            lambda: all(there.stack.supervisor.pid(name) != pid for name, pid in before.items()), "all started again"
        )
        await until(lambda: local.count() > count + 20, "mail flows again", timeout=60)
    found = await arrivals(there, "alice", local)
    assert set(found.values()) == {1}
