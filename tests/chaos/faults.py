"""Doing it: each fault is done to the platform, lasts its time, and is healed when `do` returns."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import asyncpg

from paquebot.cli.engines.engine import EngineError
from paquebot.cli.up.environment import DATABASE
from paquebot.janitor.recovery.recover import RecoveryResult, recover
from paquebot.janitor.settings import JanitorSettings
from paquebot.janitor.stores import open_stores
from paquebot.queue import QueueUnavailable
from paquebot.runtime.settings import load
from tests.attack.attacks import ATTACKS, prepared, under
from tests.chaos.place import ENGINES, PROCESSES, Place
from tests.chaos.probes import Probed, asking
from tests.chaos.processes import family
from tests.chaos.proxy import Way
from tests.chaos.schedule import Fault, Kind, lie_of
from tests.chaos.target import Mood
from tests.support.lying_s3 import READS, Lie

_SEVERAL = 4  # services whose connections a take-over finds
_SERVICES = "SELECT pid, usename FROM pg_stat_activity WHERE usename LIKE 'paquebot%'"
_END_WRITERS = f"SELECT pg_terminate_backend(pid) FROM ({_SERVICES}) AS found"
_PROBED = (Kind.FREEZE, Kind.AWAY, Kind.FULL_DISK, Kind.PROXY, Kind.TAKE_OVER, Kind.LIE)
"""Kinds during which services must go on to answer probes, where they are done to an engine."""
_RESTART_SECONDS = 90.0
_RECOVER_SECONDS = 300.0  # it reads the index of every pack of the run


async def do(place: Place, fault: Fault, chance: random.Random) -> str:
    """Returns what there is to say about it, or nothing."""
    doer = _DOERS[fault.kind]
    if fault.target not in ENGINES or fault.kind not in _PROBED:
        return await doer(place, fault, chance) or ""
    probed = [Probed(name, place.health_port(name), place.pid(name)) for name in PROCESSES]
    async with asking(probed, place.target.ledger, str(fault)) as asked:
        note = await doer(place, fault, chance)
    place.asked.append(asked)
    return "; ".join(filter(None, (note, str(asked))))


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


async def _signal_and_wait(place: Place, names: Iterable[str], number: signal.Signals) -> None:
    """Returns when each of them has been started again."""
    before = {name: place.pid(name) for name in names}
    _signal(before.values(), number)
    async with asyncio.timeout(_RESTART_SECONDS):
        while any(place.pid(name) == pid for name, pid in before.items()):
            await asyncio.sleep(0.05)


async def _kill(place: Place, fault: Fault, _: random.Random) -> None:
    await _signal_and_wait(place, fault.target.split(" and "), signal.SIGKILL)


async def _kill_all(place: Place, _: Fault, __: random.Random) -> None:
    await _signal_and_wait(place, (*PROCESSES, *ENGINES), signal.SIGKILL)


async def _end(place: Place, fault: Fault, _: random.Random) -> None:
    await _signal_and_wait(place, (fault.target,), signal.SIGTERM)


async def _kill_backend(place: Place, _: Fault, chance: random.Random) -> str:
    connection = await asyncpg.connect(place.plan.postgres.dsn())
    try:
        rows = await connection.fetch(
            "SELECT pid, usename FROM pg_stat_activity WHERE usename LIKE 'paquebot%' ORDER BY backend_start"
        )
    finally:
        await connection.close()
    if not rows:
        return "there was none"
    row = chance.choice(rows)
    _signal((row["pid"],), signal.SIGKILL)
    return f"of {row['usename']}"


async def _kill_worker(place: Place, fault: Fault, chance: random.Random) -> str:
    """One of the processes that share the service's ports, or the front that answers for them."""
    parent = place.pid(fault.target)
    before = family(parent)[1:]
    victim = chance.choice(before)
    _signal((victim,), signal.SIGKILL)
    async with asyncio.timeout(_RESTART_SECONDS):
        while victim in (now := family(parent)[1:]) or len(now) < len(before):
            await asyncio.sleep(0.05)
    return "" if place.pid(fault.target) == parent else "the whole service was started again"


async def _freeze(place: Place, fault: Fault, _: random.Random) -> None:
    pids = family(place.pid(fault.target))
    _signal(pids, signal.SIGSTOP)
    try:
        await asyncio.sleep(fault.seconds)
    finally:
        _signal(pids, signal.SIGCONT)


async def _away(place: Place, fault: Fault, _: random.Random) -> None:
    await place.stack.supervisor.pause(fault.target)
    await asyncio.sleep(fault.seconds)
    await place.stack.supervisor.resume(fault.target)


async def _full_disk(place: Place, fault: Fault, _: random.Random) -> None:
    place.resize(fault.target, full=True)
    try:
        await asyncio.sleep(fault.seconds)
    finally:
        place.resize(fault.target, full=False)


async def _proxy(place: Place, fault: Fault, chance: random.Random) -> None:
    proxy, way = place.proxies[fault.target], Way(fault.way)
    await proxy.turn(way)
    until = time.monotonic() + fault.seconds
    while (left := until - time.monotonic()) > 0:
        await asyncio.sleep(min(left, chance.uniform(0.1, 0.8) if way is Way.CUT else left))
        if way is Way.CUT:
            proxy.cut()
    await proxy.turn(Way.OPEN)


async def _remote(place: Place, fault: Fault, _: random.Random) -> None:
    place.target.mood = Mood(fault.way)
    await asyncio.sleep(fault.seconds)
    place.target.mood = Mood.FAIR


async def _lose_stream(place: Place, fault: Fault, chance: random.Random) -> str:
    """The store is lost while the server is away; `recover` then looks at all packs from before."""
    supervisor = place.stack.supervisor
    await supervisor.pause("nats")
    lost_at = time.time()
    store = place.plan.layout.data / "nats" / "jetstream"
    note = ""
    if fault.way == "corrupted":
        note = _corrupt(store, chance)
    else:
        shutil.rmtree(store, ignore_errors=True)
    try:
        await supervisor.resume("nats")
    except EngineError:
        note += ", the server did not start with it: deleted"
        shutil.rmtree(store, ignore_errors=True)
        await supervisor.resume("nats")
    found = await recover_lost(place, before=lost_at)
    return f"{note}{'; ' if note else ''}recovered {found.messages} messages, {found.recipients} recipients"


def _corrupt(store: Path, chance: random.Random) -> str:
    """Bytes changed, and the end cut off, of files in the store."""
    files = sorted(path for path in store.rglob("*") if path.is_file() and path.stat().st_size)
    hit = chance.sample(files, min(len(files), 3))
    for path in hit:
        data = bytearray(path.read_bytes())
        for _ in range(8):
            data[chance.randrange(len(data))] ^= 0xFF
        path.write_bytes(bytes(data[: chance.randrange(len(data)) + 1]))
    return "hit " + ", ".join(path.name for path in hit)


async def _take_over(place: Place, _: Fault, __: random.Random) -> str:
    """As behind a proxy that leads new connections to another server and keeps the old ones: those there are refuse
    every write from now on, new ones take them. It is not healed: mail must flow again while the old ones are there."""
    connection = await asyncpg.connect(place.plan.postgres.dsn(DATABASE))
    try:
        await connection.execute("SET default_transaction_read_only = off")
        # What an earlier take-over left: its new connections must be old ones now.
        await connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
        await connection.execute(f"ALTER DATABASE {DATABASE} RESET default_transaction_read_only")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.execute(_END_WRITERS)
        old: list[asyncpg.Record] = []
        async with asyncio.timeout(_RESTART_SECONDS):
            while len({row["usename"] for row in old}) < _SEVERAL:
                await asyncio.sleep(0.05)
                old = await connection.fetch(_SERVICES)
        # Sessions take a value of the database at their start only, and it outranks the one of the server.
        await connection.execute(f"ALTER DATABASE {DATABASE} SET default_transaction_read_only = off")
        await connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()
    return f"{len(old)} connections were kept"


async def _attack(place: Place, fault: Fault, _: random.Random) -> None:
    """Hostile clients beside ours, which are neither to be lost nor refused for good."""
    attacks = [attack for attack in ATTACKS if attack.name in fault.target.split(" and ")]
    for attack in attacks:
        await prepared(attack, place.victim)
    place.target.attacked = True
    try:
        async with under(attacks, place.victim):
            await asyncio.sleep(fault.seconds)
    finally:
        place.target.attacked = False


async def _lie(place: Place, fault: Fault, chance: random.Random) -> str:
    """Lies about what is read come in bursts: some are mended by reading again, some are not."""
    lie, ledger, told = lie_of(fault.way), place.target.ledger, place.s3.lies
    compared = ledger.compared.total()
    ledger.under_lies = True
    until = time.monotonic() + fault.seconds
    try:
        while (left := until - time.monotonic()) > 0:
            if lie in READS:
                place.s3.set_lie(lie, chance.choice((1, 3, 10, 1000)))
                await asyncio.sleep(min(left, chance.uniform(0.2, 1.0)))
            else:
                place.s3.set_lie(lie)
                await asyncio.sleep(left)
    finally:
        place.s3.set_lie(Lie.NONE)
        ledger.under_lies = False
    return f"{place.s3.lies - told} lies, {ledger.compared.total() - compared} bodies compared meanwhile"


async def recover_lost(place: Place, *, before: float) -> RecoveryResult:
    """`paquebot recover` for packs from before that time (Unix seconds)."""
    async with open_stores(load(JanitorSettings, place.plan.client_environment())) as stores:
        async with asyncio.timeout(_RECOVER_SECONDS):
            while True:
                try:
                    return await recover(stores, since=86400.0, settle=max(0.0, time.time() - before))
                except QueueUnavailable:  # a server that just started
                    await asyncio.sleep(0.5)


_DOERS: dict[Kind, Callable[[Place, Fault, random.Random], Awaitable[str | None]]] = {
    Kind.KILL: _kill,
    Kind.KILL_TWO: _kill,
    Kind.KILL_BACKEND: _kill_backend,
    Kind.KILL_WORKER: _kill_worker,
    Kind.KILL_ALL: _kill_all,
    Kind.END: _end,
    Kind.FREEZE: _freeze,
    Kind.AWAY: _away,
    Kind.FULL_DISK: _full_disk,
    Kind.PROXY: _proxy,
    Kind.REMOTE: _remote,
    Kind.LOSE_STREAM: _lose_stream,
    Kind.TAKE_OVER: _take_over,
    Kind.ATTACK: _attack,
    Kind.LIE: _lie,
}
