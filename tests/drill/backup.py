"""The backup that docs/backup.md describes, for one machine: a dump of PostgreSQL, then a copy of the bucket."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from paquebot.cli.engines.binaries import postgres_directory
from paquebot.cli.up.environment import BUCKET, DATABASE, PlatformPlan

COMMAND_SECONDS = 120.0


class Failed(Exception):
    """A step of the drill did not do what it should."""


async def run(*argv: str) -> str:
    """Its output. Raises Failed with what it said."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "COLUMNS": "200"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(COMMAND_SECONDS):
        output, errors = await process.communicate()
    if process.returncode:
        raise Failed(f"{' '.join(argv)}: {errors.decode()}{output.decode()}")
    return output.decode()


async def paquebot(plan: PlatformPlan, *words: str) -> str:
    """A command of the operator. Raises Failed."""
    return await run(sys.executable, "-m", "paquebot", *words, "--data", str(plan.layout.data))


@dataclass(frozen=True, slots=True)
class Backup:
    """What is kept elsewhere."""

    directory: Path

    @property
    def dump(self) -> Path:
        return self.directory / "paquebot.dump"

    @property
    def bucket(self) -> Path:
        return self.directory / "bucket"

    async def take_database(self, plan: PlatformPlan) -> None:
        """PostgreSQL first: what it names is in the bucket already."""
        self.directory.mkdir(parents=True, exist_ok=True)
        program = str(postgres_directory() / "pg_dump")
        await run(program, "--format=custom", f"--file={self.dump}", f"--dbname={plan.postgres.dsn(DATABASE)}")

    async def restore_database(self, plan: PlatformPlan) -> None:
        """Into a new cluster whose roles are made: the whole database, with owners and rights."""
        connection = await asyncpg.connect(plan.postgres.dsn())
        try:
            await connection.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        finally:
            await connection.close()
        program = str(postgres_directory() / "pg_restore")
        await run(program, "--create", "--exit-on-error", f"--dbname={plan.postgres.dsn()}", str(self.dump))

    def copy_bucket(self, plan: PlatformPlan) -> int:
        """Objects that are not copied yet: all are immutable, so a later copy brings only new ones. Their number."""
        client, copied = plan.s3.client(), 0
        for item in client.list_objects(BUCKET, recursive=True):
            target = self.bucket / str(item.object_name)
            if not target.exists():
                client.fget_object(BUCKET, str(item.object_name), str(target))
                copied += 1
        return copied

    def restore_bucket(self, plan: PlatformPlan) -> int:
        client = plan.s3.client()
        paths = [path for path in sorted(self.bucket.rglob("*")) if path.is_file()]
        for path in paths:
            client.fput_object(BUCKET, str(path.relative_to(self.bucket)), str(path))
        return len(paths)
