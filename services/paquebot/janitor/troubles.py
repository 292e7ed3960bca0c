"""Upkeep goes on past what is bad: an account, a pack or a mailbox that fails is named and passed over, and the rest is
done. What an engine that is away does to a run is no such thing: it ends the run, and the next goes on."""

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

_MOST = 1000  # that are kept; all are logged


class Stage(enum.Enum):
    """What a run of the janitor does: those of `mailstore.troubles.STAGES`."""

    SWEEP = "sweep"
    COMPACTION = "compaction"
    SNAPSHOT = "snapshot"


@dataclass(slots=True)
class Troubles:
    """What one stage passed over."""

    stage: Stage
    count: int = 0
    found: list[Trouble] = field(default_factory=list)

    def note(self, subject: str, error: Exception | str) -> None:
        """Name what was passed over."""
        self.count += 1
        reason = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        if isinstance(error, str):
            _log.error("bad_in_upkeep", stage=self.stage.value, subject=subject, reason=reason)
        else:
            _log.exception("passed_over", stage=self.stage.value, subject=subject)
        if len(self.found) < _MOST:
            self.found.append(Trouble(subject, reason))

    @contextlib.asynccontextmanager
    async def apart(self, stores: Stores, subject: str) -> AsyncIterator[None]:
        """What fails in the block is passed over, unless it is an engine that is away. Raises PostgresUnavailable,
        BlobsUnavailable, QueueUnavailable."""
        try:
            yield
        except Exception as error:
            if await is_away(stores, error):
                raise
            self.note(subject, error)

    async def keep(self, stores: Stores) -> None:
        """For the metric, in place of what the run before found."""
        await troubles.replace(stores.postgres, self.stage.value, self.found)


async def is_away(stores: Stores, error: Exception) -> bool:
    """Whether an engine is away. S3 may also refuse one object alone: the bucket tells."""
    if isinstance(error, BlobsUnavailable) and not isinstance(error, BlobsRefused):
        try:
            await stores.blobs.probe()
        except BlobsUnavailable:
            return True
        return False
    if isinstance(error, PostgresTroubled):
        return False
    return isinstance(error, PostgresUnavailable | QueueUnavailable)
