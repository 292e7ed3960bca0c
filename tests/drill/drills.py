"""Two drills on a whole platform: everything is destroyed and restored from a backup; the mailstore is lost and made
again from the bucket. Each verifies every message and prints recovery point and recovery time."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import asyncpg

from paquebot.cli.up.environment import DATABASE
from paquebot.cli.up.layout import SERVICES
from tests.drill import mail
from tests.drill.backup import Backup, Failed, paquebot
from tests.e2e.platforms import Platform, until

ENGINES = ("nats", "s3", "postgres")
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Result:
    """Times in seconds."""

    drill: str
    accepted: int
    restored: int
    lost: int
    """Accepted after the recovery point: what no backup has."""
    recovery_point: float
    """From the 250 of the last message that came back to the loss."""
    recovery_time: float
    """From the beginning of the restoration until the reader sees every message."""

    def line(self) -> str:
        return (
            f"{self.drill}: recovery point {self.recovery_point:.1f} s before the loss, recovery time"
            f" {self.recovery_time:.1f} s; of {self.accepted} accepted messages {self.restored} are there exactly once,"
            f" {self.lost} were accepted after the last copy"
        )

    def record(self) -> dict[str, object]:
        return asdict(self)


async def kill(platform: Platform, names: Iterable[str]) -> None:
    """As power failure would, and they stay away."""
    await asyncio.gather(*(platform.stack.supervisor.pause(name) for name in names))


async def resume(platform: Platform, names: Iterable[str]) -> None:
    await asyncio.gather(*(platform.stack.supervisor.resume(name) for name in names))


@contextlib.asynccontextmanager
async def without_services(platform: Platform) -> AsyncIterator[None]:
    """In the block only the engines run; after it the services are ready again."""
    yield
    await resume(platform, SERVICES)
    await asyncio.gather(*(platform.stack._wait_ready(service) for service in SERVICES))


async def arrived(platform: Platform, expected: Iterable[str]) -> None:
    """Returns when every expected message is there. Raises Failed for one that is there twice, or was never sent."""
    wanted = set(expected)
    found = await until(lambda: found if wanted <= (found := mail.found(platform)).keys() else None, "all mail")
    wrong = {name: count for name, count in found.items() if count != 1 or name not in {*wanted, "draft"}}
    if wrong:
        raise Failed(f"not exactly once: {wrong}")


async def prepare(platform: Platform, post: mail.Post, mark: str, count: int) -> str:
    """Mail that is read and filed, and that a snapshot knows; what the janitor said of that."""
    await asyncio.to_thread(post.send, platform, mark, count)
    await arrived(platform, post.accepted)
    await asyncio.to_thread(mail.file_some, platform)
    return (await paquebot(platform.plan, "janitor", "--snapshot-only")).rstrip()


async def verified(platform: Platform) -> None:
    """Raises Failed when database, bucket and stream do not agree."""
    await paquebot(platform.plan, "verify")


async def rebuild(platform: Platform, post: mail.Post, count: int, say: Say) -> Result:
    """PostgreSQL's mailstore is lost, the bucket is kept. `post` and the filed mail are known to a snapshot."""
    say(f"sending {count} messages after the snapshot")
    await asyncio.to_thread(post.send, platform, "unknown", count)
    await arrived(platform, post.accepted)
    before = await asyncio.to_thread(mail.state, platform, mail.FOLDER)
    say("dropping the mailstore")
    await kill(platform, SERVICES)
    lost_at = time.time()
    connection = await asyncpg.connect(platform.plan.postgres.dsn(DATABASE))
    await connection.execute("DROP SCHEMA mailstore CASCADE")
    await connection.close()

    began = time.perf_counter()
    async with without_services(platform):
        await platform.stack._prepare()  # `paquebot migrate`
        say((await paquebot(platform.plan, "recover", "--rebuild", "--settle", "0s")).rstrip())
    await arrived(platform, post.accepted)
    seconds = time.perf_counter() - began
    if await asyncio.to_thread(mail.state, platform, mail.FOLDER) != before:
        raise Failed("the folder is not what it was")
    await verified(platform)
    last = max(post.accepted.values())
    return Result("rebuild", len(post.accepted), len(post.accepted), 0, lost_at - last, seconds)


async def restore(platform: Platform, post: mail.Post, count: int, directory: Path, say: Say) -> Result:
    """Everything is destroyed but the backup and the secrets."""
    backup = Backup(directory)
    say("dumping PostgreSQL, then sending, then copying the bucket, then sending again")
    await backup.take_database(platform.plan)
    await asyncio.to_thread(post.send, platform, "after-the-dump", count)
    await arrived(platform, post.accepted)
    copied = await asyncio.to_thread(backup.copy_bucket, platform.plan)
    kept = dict(post.accepted)
    lost = await asyncio.to_thread(post.send, platform, "after-the-copy", count)
    before = await asyncio.to_thread(mail.state, platform, mail.FOLDER)
    say(f"destroying everything; the backup has {copied} objects")
    await kill(platform, (*SERVICES, *ENGINES))
    lost_at = time.time()
    for engine in ENGINES:
        shutil.rmtree(platform.plan.layout.data / engine)

    began = time.perf_counter()
    async with without_services(platform):
        await resume(platform, ENGINES)
        await platform.stack._prepare()
        await backup.restore_database(platform.plan)
        await asyncio.to_thread(backup.restore_bucket, platform.plan)
        await platform.stack._prepare()
        # The bucket's packs may be younger than a minute here, and no job of theirs is on its way.
        say((await paquebot(platform.plan, "recover", "--restored", "--settle", "0s")).rstrip())
    await arrived(platform, kept)
    seconds = time.perf_counter() - began
    if await asyncio.to_thread(mail.state, platform, mail.FOLDER) != before:
        raise Failed("the folder is not what it was")
    await verified(platform)
    return Result("restore", len(post.accepted), len(kept), len(lost), lost_at - max(kept.values()), seconds)
