"""`verify`: database, bucket and stream agree. Changes nothing.

Every mailbox row's blob must exist in a readable pack, at an entry the index knows, and match its SHA-256; every
job's pack must exist; every recipient in a settled pack must be done or queued; the mailstore's own invariants
must hold.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from paquebot.blobs import BadPack, BlobMissing
from paquebot.blobs.pack import decode_entry, entry_ref
from paquebot.blobs.store import PackInfo
from paquebot.blobs.ulid import ulid_time_ms
from paquebot.janitor.accounting import missing, read_stream
from paquebot.janitor.recover import SETTLE_SECONDS
from paquebot.janitor.stores import Stores
from paquebot.mailstore.types import BlobUse
from paquebot.v1.mail_pb2 import PackEntry, PackIndex

_GROUP = 100
_MAX_FAULTS = 1000


@dataclass(slots=True)
class Verified:
    """What `verify` saw; `faults` has a sentence for each thing that is wrong."""

    packs: int = 0
    rows: int = 0
    entries: int = 0
    octets: int = 0
    faults: list[str] = field(default_factory=list)

    def fault(self, text: str) -> None:
        if len(self.faults) < _MAX_FAULTS:
            self.faults.append(text)


async def verify(stores: Stores, *, contents: bool = True, settle: float = SETTLE_SECONDS) -> Verified:
    """With `contents`, every message is read and hashed; without, only indexes are.
    Raises BlobsUnavailable, QueueUnavailable, PostgresUnavailable."""
    result = Verified()
    # Rows that come after the list of packs may refer to newer packs: only older rows count as lost.
    began_ms = time.time() * 1000
    known = {info.pack: info async for info in stores.blobs.list_packs()}
    queued = await read_stream(stores.queue)
    for number in queued.unreadable:
        result.fault(f"job {number} cannot be read: look at it with paquebot queue show, then hold or drop it")
    for pack in sorted(queued.packs - known.keys()):
        if ulid_time_ms(pack) < began_ms - settle * 1000:
            result.fault(f"pack {pack} is not in the bucket, but a job needs it")
    indexes = _Indexes(stores, known)
    await _verify_rows(stores, indexes, result, began_ms, contents=contents)
    for info in known.values():
        index = await indexes.get(info.pack, result)
        result.packs += 1
        if index is not None and ulid_time_ms(info.pack) < began_ms - settle * 1000:
            lost = await missing(stores, index, queued)
            count = sum(message.recipients() for message in lost)
            if count:
                result.fault(
                    f"pack {info.pack}: {count} recipients are neither served nor queued: run paquebot recover"
                )
    for broken in await stores.mailstore.check():
        result.fault(broken)
    return result


class _Indexes:
    """Indexes read once; a pack that cannot be read is reported once."""

    def __init__(self, stores: Stores, known: dict[str, PackInfo]) -> None:
        self._stores = stores
        self._known = known
        self._read: dict[str, PackIndex | None] = {}

    def known(self, pack: str) -> bool:
        return pack in self._known

    async def get(self, pack: str, result: Verified) -> PackIndex | None:
        if pack not in self._read:
            try:
                self._read[pack] = await self._stores.blobs.read_index(self._known[pack])
            except BlobMissing:
                self._read[pack] = None  # deleted meanwhile; a row that needs it is reported by itself
            except BadPack as error:
                result.fault(f"pack {pack}: {error}")
                self._read[pack] = None
        return self._read[pack]


async def _verify_rows(stores: Stores, indexes: _Indexes, result: Verified, began_ms: float, *, contents: bool) -> None:
    by_pack: dict[str, list[BlobUse]] = {}
    async for use in stores.mailstore.blobs():
        result.rows += 1
        by_pack.setdefault(use.blob.pack, []).append(use)
    for pack, uses in by_pack.items():
        if not indexes.known(pack):
            if ulid_time_ms(pack) < began_ms:
                result.fault(f"pack {pack} is not in the bucket, but {_rows(uses)} need it")
            continue
        index = await indexes.get(pack, result)
        if index is None:
            result.fault(f"pack {pack} cannot be read, but {_rows(uses)} need it")
            continue
        entries = {entry.offset: entry for entry in index.entries}
        wanted = _known_entries(pack, entries, uses, result)
        for use in uses:
            if index.account_id not in (0, use.account_id):
                result.fault(
                    f"{_rows([use])} points into pack {pack}, which was written for account {index.account_id}"
                )
        result.entries += len(wanted)
        if contents:
            await _verify_contents(stores, pack, wanted, result)


def _known_entries(
    pack: str, entries: dict[int, PackEntry], uses: Sequence[BlobUse], result: Verified
) -> list[PackEntry]:
    wanted: dict[int, PackEntry] = {}
    for use in uses:
        entry = entries.get(use.blob.offset)
        if entry is None or entry_ref(pack, entry) != use.blob:
            result.fault(f"{_rows([use])} points into pack {pack} where no message begins")
        else:
            wanted[entry.offset] = entry
    return list(wanted.values())


async def _verify_contents(stores: Stores, pack: str, entries: Sequence[PackEntry], result: Verified) -> None:
    for start in range(0, len(entries), _GROUP):
        for entry in entries[start : start + _GROUP]:
            ref = entry_ref(pack, entry)
            try:
                raw = decode_entry(ref, await stores.blobs.read_range(pack, ref.offset, ref.length))
            except (BadPack, BlobMissing) as error:
                result.fault(f"message {entry.envelope.queue_id} in pack {pack} cannot be read: {error}")
                continue
            result.octets += len(raw)
            if hashlib.sha256(raw).digest() != entry.sha256:
                result.fault(f"message {entry.envelope.queue_id} in pack {pack} does not match its SHA-256")


def _rows(uses: Sequence[BlobUse]) -> str:
    first = uses[0]
    where = f"account {first.account_id}, mailbox {first.mailbox_id}, UID {first.uid}"
    return f"the row ({where})" if len(uses) == 1 else f"{len(uses)} rows (first: {where})"
