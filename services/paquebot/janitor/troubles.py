"""Upkeep skips failures: it names an account, a pack or a mailbox that it cannot process, and continues with the rest.
An outage of an engine is different: it ends the run, and the next run continues."""

import contextlib
import enum
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from paquebot.blobs import BlobsRefused, BlobsUnavailable
from paquebot.janitor.stores import Stores
from paquebot.mailstore.upkeep import troubles
from paquebot.mailstore.upkeep.troubles import Trouble
from paquebot.observability.log import Log
from paquebot.queue import QueueUnavailable
from paquebot.runtime.postgres.pool import PostgresTroubled, PostgresUnavailable

_log = Log("paquebot.janitor")

_MAX_FOUND = 1000  # that are stored; all are logged


class Stage(enum.Enum):
    """The stages of a run, with the values of `mailstore.upkeep.troubles.STAGES`."""

    SWEEP = "sweep"
    COMPACTION = "compaction"
    SNAPSHOT = "snapshot"


@dataclass(slots=True)
class Troubles:
    """What one stage skipped."""

    stage: Stage
    count: int = 0
    found: list[Trouble] = field(default_factory=list)

    def add(self, subject: str, error: Exception | str) -> None:
        """Count, log and keep what was skipped."""
        self.count += 1
        reason = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        if isinstance(error, str):
            _log.error("upkeep_row_bad", stage=self.stage.value, subject=subject, reason=reason)
        else:
            _log.exception("upkeep_skipped", stage=self.stage.value, subject=subject)
        if len(self.found) < _MAX_FOUND:
            self.found.append(Trouble(subject, reason))

    @contextlib.asynccontextmanager
    async def skipping(self, stores: Stores, subject: str) -> AsyncIterator[None]:
        """Skip what fails in the block, except in an outage. Raises PostgresUnavailable, BlobsUnavailable,
        QueueUnavailable."""
        try:
            yield
        except Exception as error:
            if await is_outage(stores, error):
                raise
            self.add(subject, error)

    async def save(self, stores: Stores) -> None:
        """Replace what the previous run stored; the metric reads it."""
        await troubles.replace(stores.postgres, self.stage.value, self.found)


async def is_outage(stores: Stores, error: Exception) -> bool:
    """Whether the error is an outage of an engine. S3 may also fail for one object alone, so probe the bucket."""
    if isinstance(error, BlobsUnavailable) and not isinstance(error, BlobsRefused):
        try:
            await stores.blobs.probe()
        except BlobsUnavailable:
            return True
        return False
    if isinstance(error, PostgresTroubled):
        return False
    return isinstance(error, PostgresUnavailable | QueueUnavailable)
