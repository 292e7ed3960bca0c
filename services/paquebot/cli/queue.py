"""`paquebot queue`: list, retry, hold, release and drop the jobs of delivery and relay."""

import datetime
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated

import typer

from paquebot.cli.admin.connection import DataOption
from paquebot.cli.admin.presentation import JsonOption, Record, YesOption, print_record, print_records
from paquebot.cli.upkeep import run_on_stores
from paquebot.janitor.stores import Stores
from paquebot.queue import backlog
from paquebot.queue.backlog import QueuedDestination, QueuedJob
from paquebot.spool import outcomes
from paquebot.v1.queue_pb2 import RelayJob

queue_app = typer.Typer(
    help="List the jobs that wait for delivery and relay; retry, hold, release or drop them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Numbers = Annotated[list[int] | None, typer.Argument(metavar="NUMBER...", help="As `list --jobs` prints them.")]
Domain = Annotated[str, typer.Option(metavar="DOMAIN", help="Only jobs for this destination.")]
All = Annotated[bool, typer.Option("--all", help="All jobs.")]

_DESTINATION_COLUMNS = ("state", "kind", "domain", "jobs", "recipients", "oldest", "next_attempt", "last_reply")
_JOB_COLUMNS = ("number", "state", "kind", "domain", "recipients", "age", "attempts", "next_attempt", "last_reply")


@queue_app.command("list")
def list_(
    domain: Domain = "",
    jobs: Annotated[bool, typer.Option("--jobs", help="Print a line for each job, not for each destination.")] = False,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Count waiting jobs by destination and state, with the age of the oldest message."""
    if jobs:
        items = run_on_stores(data, lambda stores, _: _read(stores, domain))
        print_records([_job(item) for item in items], _JOB_COLUMNS, as_json=as_json)
        return
    found = run_on_stores(
        data, lambda stores, _: backlog.count_destinations(backlog.list_jobs(stores.queue, domain=domain))
    )
    print_records([_destination(item) for item in found], _DESTINATION_COLUMNS, as_json=as_json)
    if not found and not as_json:
        typer.echo("the queue is empty")


@queue_app.command("show")
def show(
    number: Annotated[
        int, typer.Argument(metavar="NUMBER", help="As `queue list --jobs` prints it.", show_default=False)
    ],
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Show one job: sender, recipients, attempts and the last reply."""
    items = run_on_stores(data, lambda stores, _: backlog.find_jobs(stores.queue, [number]))
    if not items:
        _gone(number)
    print_record(_details(items[0]), as_json=as_json)


@queue_app.command("retry")
def retry(numbers: Numbers = None, domain: Domain = "", every: All = False, data: DataOption = None) -> None:
    """Try deferred jobs now, before their next attempt is due."""
    count = _change(data, numbers, domain, "later", lambda s, items: backlog.release(s.queue, items), every=every)
    typer.echo(f"{count} jobs will be tried now")


@queue_app.command("hold")
def hold(numbers: Numbers = None, domain: Domain = "", every: All = False, data: DataOption = None) -> None:
    """Hold jobs until they are released. A service may still finish a job that it has claimed."""
    count = _change(data, numbers, domain, "", lambda s, items: backlog.hold(s.queue, items), every=every)
    typer.echo(f"{count} jobs are held")


@queue_app.command("release")
def release(numbers: Numbers = None, domain: Domain = "", every: All = False, data: DataOption = None) -> None:
    """Queue held jobs again."""
    count = _change(data, numbers, domain, "held", lambda s, items: backlog.release(s.queue, items), every=every)
    typer.echo(f"{count} jobs are queued again")


@queue_app.command("drop")
def drop(
    numbers: Numbers = None, domain: Domain = "", every: All = False, yes: YesOption = False, data: DataOption = None
) -> None:
    """Delete jobs. Their messages are not delivered, and no notification is sent."""
    _selected(numbers, domain, every=every)
    if not yes:
        typer.confirm("These messages will not be delivered, and no notification is sent. Continue?", abort=True)
    count = _change(data, numbers, domain, "", _drop, every=every)
    typer.echo(f"{count} jobs are dropped")


async def _drop(stores: Stores, items: list[QueuedJob]) -> int:
    return await backlog.drop(stores.queue, items, partial(outcomes.record_dropped, stores.postgres))


def _selected(numbers: list[int] | None, domain: str, *, every: bool) -> None:
    if sum((bool(numbers), bool(domain), every)) != 1:
        raise typer.BadParameter("give NUMBERs, or one destination with --domain, or --all")


def _change(
    data: DataOption,
    numbers: list[int] | None,
    domain: str,
    state: str,
    change: Callable[[Stores, list[QueuedJob]], Awaitable[int]],
    *,
    every: bool,
) -> int:
    _selected(numbers, domain, every=every)

    async def work(stores: Stores) -> int:
        if numbers:
            return await change(stores, await backlog.find_jobs(stores.queue, numbers))
        return await change(stores, await _read(stores, domain, state))

    return run_on_stores(data, lambda stores, _: work(stores))


async def _read(stores: Stores, domain: str, state: str = "") -> list[QueuedJob]:
    return [item async for item in backlog.list_jobs(stores.queue, domain=domain, state=state)]


def _gone(number: int) -> None:
    typer.echo(f"paquebot: there is no job {number} in the queue", err=True)
    raise typer.Exit(1)


def _destination(item: QueuedDestination) -> Record:
    return {
        "state": item.state,
        "kind": item.kind,
        "domain": item.domain,
        "jobs": item.jobs,
        "recipients": item.recipients,
        "oldest": age_text(item.age()),
        "oldest_seconds": int(item.age()),
        "next_attempt": item.next_at,
        "last_reply": item.last_reply,
    }


def _job(item: QueuedJob) -> Record:
    age = datetime.datetime.now(datetime.UTC).timestamp() - item.accepted_at
    return {
        "number": item.number,
        "state": item.state,
        "kind": item.kind,
        "domain": item.job.domain,
        "recipients": len(item.recipients()),
        "age": age_text(age),
        "age_seconds": int(age),
        "attempts": item.job.attempt if isinstance(item.job, RelayJob) else 0,
        "next_attempt": item.stored.scheduled_for,
        "last_reply": item.reason,
    }


def _details(item: QueuedJob) -> Record:
    job = item.job
    senders = {job.reverse_path} if isinstance(job, RelayJob) else {entry.reverse_path for entry in job.entries}
    return {
        **_job(item),
        "queue_ids": sorted({queue_id for queue_id, _ in item.recipients()}),
        "senders": sorted(f"<{sender}>" for sender in senders),
        "recipients": [forward_path for _, forward_path in item.recipients()],
    }


def age_text(seconds: float) -> str:
    """`4000` → `1 h 6 min`."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{int(seconds)} s"
