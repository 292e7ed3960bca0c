"""The upkeep commands: `paquebot verify`, `recover`, `janitor` and `migrate`."""

import asyncio
import dataclasses
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from paquebot.blobs import BadPack, BlobsUnavailable
from paquebot.cli.admin.connection import DataOption, client_environment, exit_for_settings
from paquebot.cli.admin.presentation import JsonOption, Record, Value, print_record
from paquebot.cli.migrate import migrate_command
from paquebot.cli.waiting import CommandFailed, RetryUntil, TemporaryFailure, WaitOption, parse_duration
from paquebot.janitor.rebuild.counters import advance_all_counters
from paquebot.janitor.rebuild.rebuild import MailstoreNotEmpty, rebuild
from paquebot.janitor.recovery.recover import recover
from paquebot.janitor.run import RunResult, run
from paquebot.janitor.settings import JanitorSettings
from paquebot.janitor.snapshots.objects import BadSnapshot
from paquebot.janitor.snapshots.snapshot import BucketMismatch
from paquebot.janitor.stores import Stores, open_stores
from paquebot.janitor.verification.verify import VerificationResult, verify
from paquebot.mailstore.snapshots.snapshots import UpkeepBusy
from paquebot.observability import log
from paquebot.queue import QueueUnavailable
from paquebot.runtime.errors import EngineUnavailable
from paquebot.runtime.settings import SettingsError, load

T = TypeVar("T")

_AWAY = (EngineUnavailable, OSError)
_ORPHANS = "see paquebot recover --dry-run, then run paquebot recover"
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be done; change nothing.")]


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
            "--repair", help="Restore damaged messages from other packs that hold them; list those that none holds."
        ),
    ] = False,
    wait: WaitOption = "0s",  # type: ignore[assignment]
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Check that database, bucket and stream agree: the message of every mailbox row exists and matches its hash.

    Changes nothing without --repair. The exit code is 1 when something is wrong.
    """
    if quick and repair:
        raise typer.BadParameter("--repair must read every message, so it cannot be used with --quick")

    async def work(stores: Stores, settings: JanitorSettings) -> VerificationResult:
        lease = settings.compaction.lease if repair else 0.0
        return await verify(stores, contents=not quick, mend=lease, say=_print_progress)

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
        float, typer.Option(parser=parse_duration, metavar="TIME", help="How far back to look, such as 12h or 7d.")
    ] = "7d",  # type: ignore[assignment]
    rebuild_too: Annotated[
        bool,
        typer.Option(
            "--rebuild",
            help="Rebuild a lost mailstore from the bucket: bring every message back to its account.",
        ),
    ] = False,
    restored: Annotated[
        bool,
        typer.Option(
            "--restored",
            help="After restoring PostgreSQL from a backup: first advance past all UIDs that were assigned since.",
        ),
    ] = False,
    merge: Annotated[
        bool, typer.Option("--merge", help="With --rebuild: add to a mailstore that already holds mail.")
    ] = False,
    settle: Annotated[
        float,
        typer.Option(
            parser=parse_duration,
            metavar="TIME",
            help="Maximum time that a job needs to reach the stream; 0s when all services are stopped.",
        ),
    ] = "60s",  # type: ignore[assignment]
    refused: Annotated[
        bool,
        typer.Option(
            "--refused",
            help="Also queue refused messages. Their senders got a 451 and try again, so most will arrive twice.",
        ),
    ] = False,
    dry_run: DryRun = False,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Queue again the messages of recent packs that are not delivered, relayed or queued: after a lost stream.

    With --dry-run: print each such message and the time of its arrival.

    With --restored: stop all services first, because no UID may be assigned in between.

    With --rebuild: rebuild a lost mailstore in migrated, empty tables. Folders, flags and UIDs are those of the
    newest snapshot that the janitor wrote. Later messages go to INBOX, and messages that were expunged later may come
    back. Nothing is relayed. If it is killed, run it again.
    """
    if dry_run and (rebuild_too or restored):
        raise typer.BadParameter("--dry-run cannot be used with --rebuild or --restored")
    if rebuild_too and restored:
        raise typer.BadParameter("give --rebuild for a lost mailstore or --restored for a restored one, not both")
    if rebuild_too:
        rebuilt = run_on_stores(
            data, lambda stores, _: rebuild(stores, merge=merge, say=_print_progress, settle=settle)
        )
        print_record(_record(rebuilt), as_json=as_json)
        raise typer.Exit(1 if rebuilt.failed_accounts else 0)

    async def work(stores: Stores, _: JanitorSettings) -> Record:
        advanced: dict[str, Value] = {}
        if restored:
            counters = await advance_all_counters(stores)
            if counters.failed:
                _print_progress(
                    f"the counters of accounts {counters.failed} could not be advanced; nothing was queued: "
                    "repair the accounts and run this again"
                )
                raise typer.Exit(1)
            advanced = {name: value for name, value in _record(counters).items() if name != "failed"}
        found = await recover(
            stores, since=since, settle=settle, refused_too=refused, dry_run=dry_run, say=_print_progress
        )
        return _record(found) | {f"advanced_{name}": value for name, value in advanced.items()}

    print_record(run_on_stores(data, work), as_json=as_json)


def _print_progress(line: str) -> None:
    typer.echo(line, err=True)


def _janitor(
    dry_run: DryRun = False,
    snapshot_only: Annotated[
        bool, typer.Option("--snapshot-only", help="Write a snapshot of the mailstore's metadata and do nothing else.")
    ] = False,
    drop_orphans: Annotated[
        bool,
        typer.Option(
            "--drop-orphans",
            help="Delete mail that is neither delivered nor queued and older than PAQUEBOT_JANITOR_ORPHAN_AGE.",
        ),
    ] = False,
    wait: WaitOption = "0s",  # type: ignore[assignment]
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Delete unused packs and old records, compact the packs of scattered accounts, and write a snapshot.

    Compaction writes an account's messages together, so that reading a mailbox takes few requests. The snapshot, of
    all mailboxes and flags that changed, goes to the bucket for `paquebot recover --rebuild`.

    The janitor may run at any time, several at once, and may be killed at any time. PAQUEBOT_JANITOR_* settings limit
    what one run does. It skips an account, a pack or a row that fails and prints it; the exit code is then 1, as when
    an engine does not answer. With --wait it starts again until the engine answers.
    """
    if dry_run and snapshot_only:
        raise typer.BadParameter("--dry-run writes no snapshot, so it cannot be used with --snapshot-only")

    async def work(stores: Stores, settings: JanitorSettings) -> RunResult:
        ran = await run(
            stores,
            settings,
            snapshot_only=snapshot_only,
            drop_orphans=drop_orphans,
            dry_run=dry_run,
        )
        if wait and isinstance(ran.away, _AWAY):
            raise ran.away  # the whole run is repeated
        return ran

    ran = run_on_stores(data, work, wait)
    if orphans := ran.record.get("orphans_kept"):
        _print_progress(f"{orphans} packs hold accepted mail that is neither delivered nor queued: {_ORPHANS}")
    for trouble in ran.troubles:
        _print_progress(f"skipped: {trouble}")
    if ran.record or ran.troubles:
        print_record({**ran.record, "troubles": len(ran.troubles)}, as_json=as_json)
    if ran.away is not None:
        _exit_on_failure(ran.raise_away)
    raise typer.Exit(1 if ran.troubles else 0)


def run_on_stores(data: DataOption, work: Callable[[Stores, JanitorSettings], Awaitable[T]], wait: float = 0.0) -> T:
    """The result of `work` on the open engines. A failure prints one sentence and exits with 1, or 2 for settings.

    When an engine does not answer, `work` starts again for `wait` seconds.
    """
    settings = _settings(data)

    async def opened() -> T:
        async with open_stores(settings) as stores:
            return await work(stores, settings)

    async def attempt() -> T:
        try:
            return await opened()
        except _AWAY as error:
            raise TemporaryFailure(_outage(error)) from error

    async def until_done() -> T:
        return await RetryUntil(wait, _print_progress).call("the engines", attempt)

    return _exit_on_failure(lambda: asyncio.run(until_done() if wait else opened()))


def _settings(data: DataOption) -> JanitorSettings:
    log.set_up("janitor", level="error", stream=sys.stderr)  # stdout is for the result
    try:
        return load(JanitorSettings, client_environment(data, os.environ))
    except SettingsError as error:
        exit_for_settings(data, error)


def _exit_on_failure(work: Callable[[], T]) -> T:
    """The result of `work`. An outage, a damaged bucket or another's lease prints one sentence and exits with 1."""
    try:
        return work()
    except _AWAY as error:
        typer.echo(f"paquebot: {_outage(error)}; try again when the platform runs", err=True)
    except BadPack as error:
        typer.echo(f"paquebot: S3 does not answer correctly ({error}); try again when the platform runs", err=True)
    except CommandFailed as error:
        typer.echo(f"paquebot: {error}", err=True)
    except BadSnapshot as error:
        typer.echo(f"paquebot: a snapshot in the bucket is damaged ({error}); see docs/backup.md", err=True)
    except BucketMismatch as error:
        typer.echo(
            f"paquebot: {error}; nothing was done. If the mailstore was lost, run paquebot recover --rebuild. "
            "If the old mail is not needed, give this mailstore an empty bucket",
            err=True,
        )
    except MailstoreNotEmpty as error:
        typer.echo(f"paquebot: {error}; nothing was done. Add the bucket's mail to it with --merge", err=True)
    except UpkeepBusy as error:
        typer.echo(f"paquebot: {error}; try again when it has finished", err=True)
    raise typer.Exit(1)


def _outage(error: Exception) -> str:
    """Which engine failed with an error of `_AWAY`, and how."""
    if isinstance(error, BlobsUnavailable):
        return f"S3 does not answer correctly ({error})"
    if isinstance(error, QueueUnavailable):
        return f"NATS does not answer correctly ({error})"
    return f"PostgreSQL does not answer ({error})"


def _record(result: object) -> dict[str, Value]:
    assert dataclasses.is_dataclass(result)
    assert not isinstance(result, type)
    return dataclasses.asdict(result)
