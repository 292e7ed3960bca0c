"""`paquebot verify`, `recover`, `janitor` and `migrate`: upkeep of what the engines hold."""

import asyncio
import dataclasses
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from paquebot.blobs import BadPack, BlobsUnavailable
from paquebot.cli.admin.connection import DataOption, client_environment, refuse_settings
from paquebot.cli.admin.presentation import JsonOption, Record, Value, print_record
from paquebot.cli.migrate import migrate_command
from paquebot.cli.waiting import GivenUp, NotYet, RetryUntil, WaitOption, duration
from paquebot.janitor.rebuild.rebuild import NotEmpty, rebuild
from paquebot.janitor.rebuild.restored import leap_over
from paquebot.janitor.recovery.recover import recover
from paquebot.janitor.run import Ran, run
from paquebot.janitor.snapshots.objects import BadSnapshot
from paquebot.janitor.snapshots.snapshot import BucketMismatch
from paquebot.janitor.stores import JanitorSettings, Stores, open_stores
from paquebot.janitor.verification.verify import Verified, verify
from paquebot.mailstore.snapshots.snapshots import UpkeepBusy
from paquebot.observability import log
from paquebot.queue import QueueUnavailable
from paquebot.runtime.postgres.pool import PostgresUnavailable
from paquebot.runtime.settings import SettingsError, load

T = TypeVar("T")

_AWAY = (BlobsUnavailable, QueueUnavailable, PostgresUnavailable, OSError)
_ORPHANS = "see paquebot recover --dry-run, then run paquebot recover"
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


def add_upkeep(app: typer.Typer) -> None:
    """Add the commands."""
    panel = "Upkeep"
    app.command("verify", rich_help_panel=panel)(_verify)
    app.command("recover", rich_help_panel=panel)(_recover)
    app.command("janitor", rich_help_panel=panel)(_janitor)
    app.command("migrate", rich_help_panel=panel)(migrate_command)


def _verify(
    quick: Annotated[bool, typer.Option("--quick", help="Read the packs' indexes, not every message.")] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="Copy damaged messages from other packs that hold them whole; tell those that none holds."
        ),
    ] = False,
    wait: WaitOption = "0s",  # type: ignore[assignment]
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Compare database, bucket and stream: every mailbox row's message exists and matches its hash.

    Changes nothing without --repair. Exit code 1 when something is wrong.
    """
    if quick and repair:
        raise typer.BadParameter("--repair must read every message, so it does not go with --quick")

    async def work(stores: Stores, settings: JanitorSettings) -> Verified:
        lease = settings.compaction.lease if repair else 0.0
        return await verify(stores, contents=not quick, mend=lease, say=_say)

    result = run_on_stores(data, work, wait)
    record = _record(result)
    if as_json:
        print_record(record, as_json=True)
    else:
        print_record({**record, "faults": len(result.faults)}, as_json=False)
        for fault in result.faults:
            typer.echo(fault)
    raise typer.Exit(1 if result.faults else 0)


def _recover(
    since: Annotated[
        float, typer.Option(parser=duration, metavar="TIME", help="How far back to look, such as 12h or 7d.")
    ] = "7d",  # type: ignore[assignment]
    rebuild_too: Annotated[
        bool,
        typer.Option(
            "--rebuild",
            help="PostgreSQL's mailstore is lost and the bucket kept: bring every message back to its account.",
        ),
    ] = False,
    restored: Annotated[
        bool,
        typer.Option(
            "--restored",
            help="PostgreSQL was restored from a backup: first leap over all UIDs that were given after it.",
        ),
    ] = False,
    merge: Annotated[
        bool, typer.Option("--merge", help="With --rebuild: add to a mailstore that holds mail already.")
    ] = False,
    settle: Annotated[
        float,
        typer.Option(
            parser=duration,
            metavar="TIME",
            help="How long jobs may be on their way to the stream; 0s when all services are stopped.",
        ),
    ] = "60s",  # type: ignore[assignment]
    refused: Annotated[
        bool,
        typer.Option(
            "--refused",
            help="Also what was refused: its senders were told to try again, so it will mostly arrive twice.",
        ),
    ] = False,
    dry_run: DryRun = False,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Queue again what recent packs hold and nobody delivered, relayed or queued: after a lost stream.

    With --dry-run each such message is told, with the time at which it came.

    With --restored: stop all services before it, for no UID may be given in between.
    With --rebuild: make a lost mailstore again, on migrated, empty tables. Folders, flags and UIDs are those of the
    newest snapshot that the janitor wrote; what came later goes to INBOX, and what was expunged later may come back.
    Nothing is relayed. Killed at any point, run it again.
    """
    if dry_run and (rebuild_too or restored):
        raise typer.BadParameter("--rebuild and --restored have no --dry-run")
    if rebuild_too and restored:
        raise typer.BadParameter("--rebuild makes a lost mailstore, --restored goes on with a restored one: give one")
    if rebuild_too:
        rebuilt = run_on_stores(data, lambda stores, _: rebuild(stores, merge=merge, say=_say, settle=settle))
        print_record(_record(rebuilt), as_json=as_json)
        raise typer.Exit(1 if rebuilt.failed_accounts else 0)

    async def work(stores: Stores, _: JanitorSettings) -> Record:
        leapt: dict[str, Value] = {}
        if restored:
            leap = await leap_over(stores)
            if leap.failed:
                _say(f"accounts {leap.failed} could not leap; nothing was queued: mend them, and run this again")
                raise typer.Exit(1)
            leapt = {name: value for name, value in _record(leap).items() if name != "failed"}
        found = _record(
            await recover(stores, since=since, settle=settle, refused_too=refused, dry_run=dry_run, say=_say)
        )
        return found | {f"leapt_{name}": value for name, value in leapt.items()}

    print_record(run_on_stores(data, work), as_json=as_json)


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _janitor(
    dry_run: DryRun = False,
    snapshot_only: Annotated[
        bool, typer.Option("--snapshot-only", help="Only write a snapshot of the mailstore's metadata.")
    ] = False,
    drop_orphans: Annotated[
        bool,
        typer.Option(
            "--drop-orphans",
            help="Give up accepted mail that nobody delivered or queued and that is older than a safe age.",
        ),
    ] = False,
    wait: WaitOption = "0s",  # type: ignore[assignment]
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Delete packs that nobody needs any more, and old records of deliveries and relays; then write the messages of
    accounts that lie scattered over many packs together, so that reading a mailbox takes few requests.

    Last, write a snapshot of all mailboxes and flags that changed into the bucket, for `paquebot recover --rebuild`.
    It may run at any time and beside itself, and may be killed at any time. PAQUEBOT_JANITOR_* settings bound what one
    run does. An account, a pack or a row that fails is named and passed over; then the exit code is 1, as it is when an
    engine is away. While an engine does not answer and --wait has not passed, it begins again.
    """
    if dry_run and snapshot_only:
        raise typer.BadParameter("--dry-run writes no snapshot, so nothing is left of --snapshot-only")

    async def work(stores: Stores, settings: JanitorSettings) -> Ran:
        ran = await run(
            stores,
            settings,
            snapshot_only=snapshot_only,
            drop_orphans=drop_orphans,
            dry_run=dry_run,
        )
        if wait and isinstance(ran.away, _AWAY):
            raise ran.away  # all of it is done again
        return ran

    ran = run_on_stores(data, work, wait)
    if orphans := ran.record.get("orphans_kept"):
        _say(f"{orphans} packs hold accepted mail that is neither served nor queued: {_ORPHANS}")
    for trouble in ran.troubles:
        _say(f"passed over: {trouble}")
    if ran.record or ran.troubles:
        print_record({**ran.record, "troubles": len(ran.troubles)}, as_json=as_json)
    if ran.away is not None:
        _guarded(ran.raise_away)
    raise typer.Exit(1 if ran.troubles else 0)


def run_on_stores(data: DataOption, work: Callable[[Stores, JanitorSettings], Awaitable[T]], wait: float = 0.0) -> T:
    """The result of `work` on the open engines; a failure is one sentence and exit code 1, or 2 for settings.

    For `wait` seconds `work` is begun again when an engine does not answer.
    """
    settings = _settings(data)

    async def opened() -> T:
        async with open_stores(settings) as stores:
            return await work(stores, settings)

    async def attempt() -> T:
        try:
            return await opened()
        except _AWAY as error:
            raise NotYet(_away(error)) from error

    async def patiently() -> T:
        return await RetryUntil(wait, _say).until_done("the engines", attempt)

    return _guarded(lambda: asyncio.run(patiently() if wait else opened()))


def _settings(data: DataOption) -> JanitorSettings:
    log.set_up("janitor", level="error", stream=sys.stderr)  # stdout is for the answer
    try:
        return load(JanitorSettings, client_environment(data, os.environ))
    except SettingsError as error:
        refuse_settings(data, error)


def _guarded(work: Callable[[], T]) -> T:
    """An engine that is away is one sentence and exit code 1."""
    try:
        return work()
    except _AWAY as error:
        typer.echo(f"paquebot: {_away(error)}; try again when it does", err=True)
    except BadPack as error:
        typer.echo(f"paquebot: S3 does not answer as it should ({error}); try again when it does", err=True)
    except GivenUp as error:
        typer.echo(f"paquebot: {error}", err=True)
    except BadSnapshot as error:
        typer.echo(f"paquebot: a snapshot in the bucket is damaged ({error}); see docs/backup.md", err=True)
    except BucketMismatch as error:
        typer.echo(
            f"paquebot: {error}; nothing was done. Was the mailstore lost? Then run paquebot recover --rebuild. "
            "Is the old mail not wanted? Then give this mailstore an empty bucket",
            err=True,
        )
    except NotEmpty as error:
        typer.echo(f"paquebot: {error}; nothing was done. To add the bucket's mail to it: --merge", err=True)
    except UpkeepBusy as error:
        typer.echo(f"paquebot: {error}; try again when it has ended", err=True)
    raise typer.Exit(1)


def _away(error: Exception) -> str:
    """Which engine an error of `_AWAY` is about, and what it says."""
    if isinstance(error, BlobsUnavailable):
        return f"S3 does not answer as it should ({error})"
    if isinstance(error, QueueUnavailable):
        return f"NATS does not answer as it should ({error})"
    return f"PostgreSQL does not answer ({error})"


def _record(result: object) -> dict[str, Value]:
    assert dataclasses.is_dataclass(result)
    assert not isinstance(result, type)
    return dataclasses.asdict(result)
