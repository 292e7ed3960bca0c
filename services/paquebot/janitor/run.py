"""One run of the janitor: sweep, compaction, snapshot. A failure in one stage does not stop the next."""

import dataclasses
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from paquebot.janitor.compaction.compact import compact
from paquebot.janitor.compaction.sparse import SparsePacks
from paquebot.janitor.settings import JanitorSettings
from paquebot.janitor.snapshots.snapshot import BucketMismatch, snapshot
from paquebot.janitor.stores import Stores
from paquebot.janitor.sweep import sweep
from paquebot.janitor.troubles import Stage, Troubles, is_outage
from paquebot.mailstore.snapshots.snapshots import UpkeepBusy
from paquebot.observability.log import Log

_log = Log("paquebot.janitor")


@dataclass(slots=True)
class RunResult:
    """The result of a run, and what it skipped."""

    record: dict[str, Any] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)
    away: Exception | None = None
    """Why the first stage ended early: an outage, or another janitor at the same work."""

    def raise_away(self) -> None:
        if self.away is not None:
            raise self.away


async def run(
    stores: Stores, settings: JanitorSettings, *, snapshot_only: bool, drop_orphans: bool, dry_run: bool
) -> RunResult:
    """Raises BucketMismatch, before it changes anything."""
    ran, sparse = RunResult(), SparsePacks(settings.compaction.live_share)

    async def run_sweep(troubles: Troubles) -> Any:
        return await sweep(
            stores, settings, sparse=sparse, drop_orphans=drop_orphans, dry_run=dry_run, troubles=troubles
        )

    async def run_compaction(troubles: Troubles) -> Any:
        return await compact(stores, settings, sparse, dry_run=dry_run, troubles=troubles)

    async def run_snapshot(troubles: Troubles) -> Any:
        return await snapshot(stores, settings, troubles)

    if not snapshot_only:
        await _stage(stores, ran, Stage.SWEEP, run_sweep, dry_run=dry_run)
        await _stage(stores, ran, Stage.COMPACTION, run_compaction, dry_run=dry_run)
    if not dry_run and settings.snapshot:
        await _stage(stores, ran, Stage.SNAPSHOT, run_snapshot, dry_run=False, prefix="snapshot_")
    return ran


async def _stage(
    stores: Stores,
    ran: RunResult,
    stage: Stage,
    work: Callable[[Troubles], Awaitable[Any]],
    *,
    dry_run: bool,
    prefix: str = "",
) -> None:
    troubles = Troubles(stage)
    try:
        done = await work(troubles)
    except BucketMismatch:
        raise
    except Exception as error:  # noqa: BLE001 - the other stages run all the same
        if isinstance(error, UpkeepBusy) or await is_outage(stores, error):
            _log.warning("stage_abandoned", stage=stage.value, reason=f"{type(error).__name__}: {error}")
            ran.away = ran.away or error
            return
        troubles.add("the whole stage", error)
    else:
        ran.record |= {prefix + name: value for name, value in dataclasses.asdict(done).items()}
    ran.troubles += [f"{stage.value}: {one.subject}: {one.reason}" for one in troubles.found]
    if not dry_run:
        await _save(stores, troubles)


async def _save(stores: Stores, troubles: Troubles) -> None:
    try:
        await troubles.save(stores)
    except Exception:  # noqa: BLE001 - the log has them
        _log.exception("upkeep_failures_not_saved")
