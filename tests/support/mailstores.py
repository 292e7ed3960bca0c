"""All classes of the mailstore on one database."""

from __future__ import annotations

from dataclasses import dataclass

from paquebot.mailstore import (
    Accounts,
    Compactions,
    Deliveries,
    Mailboxes,
    MailboxReader,
    Maildrops,
    MailstoreLimits,
    Messages,
    PackUses,
    RowChecks,
    Snapshots,
)
from paquebot.mailstore.upkeep.invariants import broken_invariants
from paquebot.runtime.postgres.pool import Postgres


@dataclass(frozen=True, slots=True)
class Mailstore:
    """For tests; each service opens only the classes that it uses."""

    postgres: Postgres
    accounts: Accounts
    mailboxes: Mailboxes
    mailbox_reader: MailboxReader
    messages: Messages
    deliveries: Deliveries
    maildrops: Maildrops
    compactions: Compactions
    pack_uses: PackUses
    row_checks: RowChecks
    snapshots: Snapshots

    @classmethod
    def of(cls, postgres: Postgres, limits: MailstoreLimits | None = None) -> Mailstore:
        accounts = Accounts(postgres)
        return cls(
            postgres=postgres,
            accounts=accounts,
            mailboxes=Mailboxes(postgres, limits),
            mailbox_reader=MailboxReader(postgres),
            messages=Messages(postgres, limits),
            deliveries=Deliveries(postgres, limits),
            maildrops=Maildrops(postgres, accounts),
            compactions=Compactions(postgres),
            pack_uses=PackUses(postgres),
            row_checks=RowChecks(postgres),
            snapshots=Snapshots(postgres),
        )

    async def broken_invariants(self, account_id: int | None = None) -> list[str]:
        """Return one sentence for each broken invariant."""
        return await broken_invariants(self.postgres, account_id)
