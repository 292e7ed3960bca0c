"""What the calls of a process share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paquebot.directory.lookup import DirectoryEntry
from paquebot.mailstore import Usage
from paquebot.queue import Queue
from paquebot.recipient_validation.hashing import Hashing
from paquebot.recipient_validation.settings import RecipientValidationSettings
from paquebot.runtime.batching import Batcher
from paquebot.runtime.postgres.pool import Postgres
from paquebot.wire.address import Address


@dataclass(frozen=True, slots=True)
class ServerContext:
    """`queue` is for hints only."""

    settings: RecipientValidationSettings
    postgres: Postgres
    hashing: Hashing
    lookups: Batcher[Sequence[Address], Mapping[Address, DirectoryEntry]]
    usages: Batcher[Sequence[int], Mapping[int, Usage]]
    queue: Queue
