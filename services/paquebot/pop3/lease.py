"""A session's lease on its maildrop: acquired at login, renewed while the session lives, released at its end.

The lease is a row in the mailstore that expires, so a process that died does not keep a maildrop locked. This process
may be wrong about its lease, so the mailstore compares the owner in the database transaction that deletes. The renewal
here keeps other sessions out, and ends a session whose maildrop went to another.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from paquebot.mailstore import Expunged, Maildrop, Maildrops
from paquebot.mailstore.errors import MaildropLocked, MaildropLost
from paquebot.observability.log import Log
from paquebot.pop3 import metrics
from paquebot.runtime.postgres.pool import PostgresUnavailable
from paquebot.runtime.process.tasks import background

_log = Log("paquebot.pop3.lease")
_RENEWALS = 3  # within the time of a lease, so that one may fail


class Lease:
    """`lost` is called when another session has the maildrop."""

    def __init__(
        self, maildrops: Maildrops, account_id: int, owner: str, seconds: float, lost: Callable[[], None]
    ) -> None:
        self._maildrops = maildrops
        self._account_id = account_id
        self._owner = owner
        self._seconds = seconds
        self._lost = lost
        self._renewing: asyncio.Task[None] | None = None

    async def acquire(self) -> Maildrop:
        """Lock the maildrop and list it. Raises MaildropLocked and what the mailstore raises."""
        try:
            maildrop = await self._maildrops.lock(self._account_id, self._owner, self._seconds)
        except MaildropLocked:
            raise
        except Exception:
            await self.release()  # the lock may exist although the answer was lost
            raise
        self._renewing = background(self._renew(), "maildrop_lease")
        return maildrop

    async def release(self) -> None:
        """End the lease without a change; while PostgreSQL is away it expires by itself."""
        await self._stop()
        with contextlib.suppress(PostgresUnavailable):
            await self._maildrops.unlock(self._account_id, self._owner)

    async def close(self, mailbox_id: int, uids: Sequence[int]) -> Expunged:
        """Delete the messages of `uids` and end the lease, both or neither. Raises MaildropLost, as the mailstore."""
        await self._stop()
        return await self._maildrops.close(self._account_id, self._owner, mailbox_id, uids)

    async def _stop(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait((self._renewing,))
            self._renewing = None

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._seconds / _RENEWALS)
            try:
                await self._maildrops.renew(self._account_id, self._owner, self._seconds)
            except PostgresUnavailable as error:
                # A lease that expired and that no other session took can still be renewed.
                _log.warning("lease_not_renewed", reason=str(error))
            except MaildropLost:
                metrics.LEASES_LOST.inc()
                _log.warning("lease_lost", account_id=self._account_id)
                self._lost()
                return
            except Exception:  # noqa: BLE001 - the one in this loop: logged, and tried again
                _log.exception("lease_renewal_failed")
