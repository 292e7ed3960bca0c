"""`paquebot queue`, `verify`, `recover`, `janitor` and `migrate` as an operator runs them, on the real engines."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from paquebot.blobs import BlobStore
from paquebot.queue import Publication, Queue, backlog, stream
from paquebot.runtime.engine_settings import NatsSettings, PostgresSettings, S3Settings
from paquebot.runtime.postgres.pool import Postgres
from paquebot.spool import Spool, outcomes
from paquebot.v1.mail_pb2 import Envelope, RemoteRecipient
from tests.support.bad_rows import spoil
from tests.support.loopback import free_port
from tests.support.mailstore_fixtures import new_message
from tests.support.mailstores import Mailstore
from tests.support.slow_proxy import SlowProxy

RAW = b"From: a@example.org\r\nTo: x@example.net\r\nSubject: hello\r\n\r\nHow do you do?\r\n"
COMMAND_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class CommandLine:
    """`paquebot` with the settings of the test's engines."""

    environ: Mapping[str, str]

    async def __call__(self, *words: str, **environ: str) -> tuple[int, str, str]:
        """(exit code, stdout, stderr)"""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "paquebot", *words),
            env={**self.environ, **environ},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(COMMAND_SECONDS):
            output, errors = await process.communicate()
        return process.returncode or 0, output.decode(), errors.decode()

    async def json(self, *words: str) -> object:
        code, output, errors = await self(*words, "--json")
        assert code == 0, errors
        return json.loads(output)


@pytest.fixture
def paquebot(nats_settings: NatsSettings, s3_settings: S3Settings, postgres_settings: PostgresSettings) -> CommandLine:
    return CommandLine(
        {
            "PATH": os.environ["PATH"],
            "COLUMNS": "200",
            "PAQUEBOT_NATS_URL": nats_settings.url[0],
            "PAQUEBOT_NATS_USER": nats_settings.user,
            "PAQUEBOT_NATS_PASSWORD": str(nats_settings.password),
            "PAQUEBOT_NATS_TIMEOUT": "2s",
            "PAQUEBOT_S3_ENDPOINT": s3_settings.endpoint,
            "PAQUEBOT_S3_BUCKET": s3_settings.bucket,
            "PAQUEBOT_S3_ACCESS_KEY": s3_settings.access_key,
            "PAQUEBOT_S3_SECRET_KEY": str(s3_settings.secret_key),
            "PAQUEBOT_POSTGRES_DSN": str(postgres_settings.dsn),
        }
    )


def to(*paths: str) -> Envelope:
    remote = [RemoteRecipient(forward_path=path, domain=path.partition("@")[2]) for path in paths]
    return Envelope(reverse_path="a@example.org", remote=remote)


async def numbers(queue: Queue, state: str = "") -> list[int]:
    return [item.number async for item in backlog.list_jobs(queue, state=state)]


async def test_queue_list_and_show(paquebot: CommandLine, spool: Spool, migrated: Postgres) -> None:
    _, output, _ = await paquebot("queue", "list")
    assert "the queue is empty" in output
    queue_id = await spool.accept(to("x@example.net", "y@example.net", "z@example.com"), RAW)

    _, output, _ = await paquebot("queue", "list")
    assert "example.net" in output
    found = await paquebot.json("queue", "list")
    assert isinstance(found, list)
    assert {(row["domain"], row["state"], row["kind"], row["jobs"], row["recipients"]) for row in found} == {
        ("example.net", "ready", "relay", 1, 2),
        ("example.com", "ready", "relay", 1, 1),
    }
    jobs = await paquebot.json("queue", "list", "--jobs", "--domain", "example.net")
    assert isinstance(jobs, list)
    shown = await paquebot.json("queue", "show", str(jobs[0]["number"]))
    assert isinstance(shown, dict)
    assert shown["recipients"] == ["x@example.net", "y@example.net"]
    assert shown["queue_ids"] == [queue_id]
    assert shown["senders"] == ["<a@example.org>"]

    code, _, errors = await paquebot("queue", "show", "999999")
    assert (code, errors) == (1, "paquebot: there is no job 999999 in the queue\n")


async def test_queue_hold_release_retry_drop(
    paquebot: CommandLine, spool: Spool, queue: Queue, migrated: Postgres
) -> None:
    queue_id = await spool.accept(to("x@example.net"), RAW)
    [number] = await numbers(queue)
    assert (await paquebot("queue", "hold", str(number)))[1] == "1 jobs are held\n"
    assert len(await numbers(queue, "held")) == 1
    assert (await paquebot("queue", "release", "--all"))[1] == "1 jobs are queued again\n"

    [item] = [item async for item in backlog.list_jobs(queue)]
    later = Publication(item.subject, item.payload, later_subject="relay.later.1", at=time.time() + 3600)
    await stream.move(queue, item.stored, later)
    assert (await paquebot("queue", "retry", "--domain", "example.net"))[1] == "1 jobs will be tried now\n"
    assert len(await numbers(queue, "ready")) == 1

    code, _, errors = await paquebot("queue", "drop")
    assert code == 2
    assert "give NUMBERs" in errors
    assert (await paquebot("queue", "drop", "--all", "--yes"))[1] == "1 jobs are dropped\n"
    assert await numbers(queue) == []
    assert await outcomes.finished_recipients(migrated, [queue_id]) == {(queue_id, "x@example.net")}


async def test_young_packs_are_left_alone_and_a_lost_stream_is_created(
    paquebot: CommandLine, spool: Spool, queue: Queue, blobs: BlobStore, migrated: Postgres
) -> None:
    await spool.accept(to("x@example.net"), RAW)
    assert (await paquebot("verify"))[0] == 0
    [pack] = [info.pack async for info in blobs.list_packs()]
    await blobs.delete([pack])
    code, output, _ = await paquebot("verify", PAQUEBOT_S3_TIMEOUT="2s")
    assert code == 0, output  # the job of such a young pack may be newer than the list

    await stream.delete_stream(queue)
    recovered = await paquebot.json("recover", "--since", "1h")
    assert isinstance(recovered, dict)
    assert recovered["messages"] == 0
    assert (await stream.counts(queue)).total() == 0  # the stream is there again
    swept = await paquebot.json("janitor")
    assert isinstance(swept, dict)
    assert (swept["deleted_packs"], swept["compacted_messages"], swept["backlog_messages"]) == (0, 0, 0)


async def test_the_janitor_names_bad_rows_and_exits_with_1(
    paquebot: CommandLine, queue: Queue, blobs: BlobStore, migrated: Postgres
) -> None:
    mailstore = Mailstore.of(migrated)
    await mailstore.accounts.ensure(1)
    await mailstore.messages.append(1, 1, [new_message(), new_message()], quota_bytes=0)
    await spoil(migrated, 1, 1, "internal_date = '-infinity'")
    code, output, errors = await paquebot("janitor")
    assert (code, "snapshot accounts" in output.replace("_", " ")) == (1, True), errors
    assert "skipped: snapshot: account 1, mailbox 1, UID 1: " in errors
    assert (await paquebot("janitor"))[0] == 0, "it mended the date"


async def test_migrate_is_safe_to_repeat(paquebot: CommandLine, queue: Queue, migrated: Postgres) -> None:
    await stream.delete_stream(queue)
    for _ in range(2):
        code, output, errors = await paquebot("migrate")
        assert code == 0, errors
        assert "schema mailstore is at version" in output
    assert (await stream.counts(queue)).total() == 0


@pytest.mark.parametrize(
    ("words", "away", "named"),
    [
        (("queue", "list"), {"PAQUEBOT_NATS_URL": "nats://127.0.0.1:1"}, "NATS"),
        (("verify",), {"PAQUEBOT_S3_ENDPOINT": "http://127.0.0.1:1"}, "S3"),
        (("janitor",), {"PAQUEBOT_POSTGRES_DSN": "postgresql://nobody@127.0.0.1:1/none"}, "PostgreSQL"),
    ],
)
async def test_an_outage_is_one_sentence(
    paquebot: CommandLine,
    queue: Queue,
    migrated: Postgres,
    words: tuple[str, ...],
    away: dict[str, str],
    named: str,
) -> None:
    code, output, errors = await paquebot(*words, **away, PAQUEBOT_S3_TIMEOUT="2s")
    assert code == 1
    assert "Traceback" not in output + errors
    assert errors.splitlines()[-1].startswith(f"paquebot: {named} does not answer")
    assert len(errors.splitlines()) == 1
    assert output == ""


async def test_upkeep_of_the_wrong_mailstore_is_refused_until_it_is_rebuilt(
    paquebot: CommandLine, queue: Queue, blobs: BlobStore, migrated: Postgres
) -> None:
    first = await paquebot.json("janitor", "--snapshot-only")
    assert isinstance(first, dict)
    await migrated.execute("test", "UPDATE mailstore.identity SET name = 'made anew'")
    code, output, errors = await paquebot("janitor")
    assert (code, output) == (1, "")
    assert errors.startswith("paquebot: the bucket holds the mail of another mailstore; nothing was done.")

    rebuilt = await paquebot.json("recover", "--rebuild", "--settle", "0s")
    assert isinstance(rebuilt, dict)
    assert rebuilt["snapshot"] == first["snapshot_run"]
    assert (await paquebot("janitor"))[0] == 0
    code, _, errors = await paquebot("recover", "--rebuild", "--restored")
    assert code == 2
    assert "not both" in errors


async def test_the_janitor_waits_for_engines_that_do_not_answer_yet(
    paquebot: CommandLine, queue: Queue, blobs: BlobStore, migrated: Postgres
) -> None:
    """S3 begins to answer only after the janitor has printed that it waits for it."""
    endpoint = paquebot.environ["PAQUEBOT_S3_ENDPOINT"].removeprefix("http://")
    host, _, port = endpoint.partition(":")
    late = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "paquebot", "janitor", "--wait", "1m"),
        env={**paquebot.environ, "PAQUEBOT_S3_ENDPOINT": f"http://127.0.0.1:{late}", "PAQUEBOT_S3_TIMEOUT": "2s"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    async with asyncio.timeout(COMMAND_SECONDS):
        line = await process.stderr.readline()
        assert line.startswith(b"waiting for the engines (")
        assert b"S3 does not answer correctly" in line
        async with SlowProxy(host, int(port), at=late):
            _, errors = await process.communicate()
    assert process.returncode == 0, errors


async def test_the_janitor_gives_up_with_the_last_reason(paquebot: CommandLine, migrated: Postgres) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    code, _, errors = await paquebot("janitor", "--wait", "1s", PAQUEBOT_S3_ENDPOINT=nowhere)
    assert code == 1
    assert "paquebot: the engines: not within 1s: S3 does not answer correctly" in errors
