"""Reading from the bucket, for use on a thread; every answer of S3 is checked.

The range is compared with the requested one, an index with its checksum, a message with the checksum of its frame or,
where an older program wrote none, with the SHA-256 in its pack's index. What does not match is read once more over a
new connection: a memory, a disk or a proxy may have changed it on its way.
"""

import minio
import urllib3
from minio.error import S3Error

from paquebot.blobs.digests import Digests
from paquebot.blobs.errors import BlobMissing, BlobsUnavailable, s3_call
from paquebot.blobs.pack import (
    TRAILER,
    BadPack,
    check_digest,
    decode_entry,
    index_length,
    is_checked,
    pack_key,
    parse_index,
)
from paquebot.blobs.ranged import Part, WrongAnswer, get_part
from paquebot.blobs.ranges import PackRange
from paquebot.blobs.requests import Requests
from paquebot.observability.log import Log
from paquebot.observability.metrics import counter
from paquebot.v1.mail_pb2 import BlobRef, PackIndex

_log = Log("paquebot.blobs")

READ_BYTES = counter("paquebot_s3_read_bytes_total", "Bytes of packs read from S3 (get)")
DAMAGED = counter(
    "paquebot_s3_damaged_reads_total",
    "Answers of S3 that differ from what was written, by the check that failed: another range or length than "
    "requested, or bytes that do not match their checksum. Each is read once more",
    {"check": ("range", "checksum")},
)
UNREADABLE = counter(
    "paquebot_s3_unreadable_total",
    "Messages, indexes and ranges that were damaged at the second reading too, and were not used",
    {"kind": ("message", "index", "range")},
)
_TAIL_BYTES = 64 * 1024  # most indexes fit: one request reads them
_MAX_OBJECT_BYTES = 256 * 2**20  # of an object that is not a pack, read whole

RangeOutcome = list[bytes | BadPack] | BadPack | BlobMissing | BlobsUnavailable
"""The messages of a PackRange, by offset, or why none can be read."""


class PackReader:
    """One for a process; any thread may use it. `fresh`: a client for second readings, and its connection pool."""

    def __init__(
        self, bucket: str, client: minio.Minio, fresh: tuple[minio.Minio, urllib3.PoolManager], requests: Requests
    ) -> None:
        self._bucket = bucket
        self._client = client
        self._fresh, self._fresh_connections = fresh
        self._requests = requests
        self._digests = Digests()

    def messages(self, wanted: PackRange) -> RangeOutcome:
        """Decompresses on this thread too, so that stored bytes are never kept longer than needed."""
        first = self._read(wanted, self._client)
        if not _count_damaged(first, wanted):
            return first
        _log.warning("damaged_read", pack=wanted.pack, offset=wanted.start, reason=_reason(first))
        best = _best(first, self._read(wanted, self._fresh_client()))
        UNREADABLE.labels("message").inc(_count_damaged(best, wanted))
        return best

    def _read(self, wanted: PackRange, client: minio.Minio) -> RangeOutcome:
        try:
            return self._messages(wanted, client)
        except (BlobMissing, BlobsUnavailable) as error:
            return error
        except ValueError:
            return BlobMissing(wanted.pack)  # not the name of a pack

    def part(self, key: str, offset: int, length: int) -> Part:
        """Stored bytes as they are; fewer where the object ends before."""
        try:
            return self._part(self._client, key, offset, length)
        except WrongAnswer as wrong:
            _log.warning("damaged_read", key=key, offset=offset, reason=str(wrong))
        try:
            return self._part(self._fresh_client(), key, offset, length)
        except WrongAnswer:
            UNREADABLE.labels("range").inc()
            raise

    def start(self, key: str, length: int) -> Part:
        """The first bytes; none when the object is empty."""
        try:
            return self.part(key, 0, length)
        except S3Error as error:
            if error.code != "InvalidRange":
                raise
            return Part(b"", 0)  # an empty object has no range

    def whole(self, key: str) -> Part:
        """All of an object that is not a pack."""
        return self.start(key, _MAX_OBJECT_BYTES)

    def index(self, key: str, pack_size: int) -> PackIndex:
        """The index of a pack of `pack_size` bytes. Raises BadPack."""
        try:
            return self._index(self._client, key, pack_size)
        except BadPack as wrong:
            _log.warning("damaged_read", key=key, reason=str(wrong))
        try:
            return self._index(self._fresh_client(), key, pack_size)
        except BadPack:
            UNREADABLE.labels("index").inc()
            raise

    def size(self, key: str) -> int:
        return int(self._requests.retried("stat", self._client.stat_object, self._bucket, key).size or 0)

    def _messages(self, wanted: PackRange, client: minio.Minio) -> RangeOutcome:
        key = pack_key(wanted.pack)
        if wanted.start == wanted.end:
            return [self._decoded(client, ref, b"", None) for ref in wanted.refs]
        try:
            with s3_call("get", key):
                part = self._part(client, key, wanted.start, wanted.end - wanted.start)
        except BadPack as error:
            return error
        READ_BYTES.inc(len(part.data))
        places = ((ref, ref.offset - wanted.start) for ref in wanted.refs)
        return [self._decoded(client, ref, part.data[at : at + ref.length], part.object_size) for ref, at in places]

    def _decoded(self, client: minio.Minio, ref: BlobRef, stored: bytes, pack_size: int | None) -> bytes | BadPack:
        """Raises BlobMissing, BlobsUnavailable."""
        try:
            content = decode_entry(ref, stored)
            if not is_checked(ref, stored):
                check_digest(content, self._digest(client, ref, pack_size))
        except BadPack as error:
            DAMAGED.labels("checksum").inc()
            return error
        return content

    def _digest(self, client: minio.Minio, ref: BlobRef, pack_size: int | None) -> bytes:
        """From the pack's index. Raises BadPack, BlobMissing, BlobsUnavailable."""
        digests = self._digests.get(ref.pack)
        if digests is None:
            key = pack_key(ref.pack)
            with s3_call("get", key):
                index = self._index(client, key, self.size(key) if pack_size is None else pack_size)
            if index.pack != ref.pack:
                raise BadPack(f"the index is of pack {index.pack}")
            digests = self._digests.add(index)
        if not (found := digests.get(ref.offset)):
            raise BadPack("the index has no such entry")
        return found

    def _index(self, client: minio.Minio, key: str, pack_size: int) -> PackIndex:
        tail = self._tail(client, key, pack_size, min(_TAIL_BYTES, pack_size))
        needed = index_length(tail[-TRAILER.size :]) + TRAILER.size
        if needed > pack_size:
            raise BadPack("the index is longer than the object")
        if needed > len(tail):
            tail = self._tail(client, key, pack_size, needed)
        try:
            return parse_index(tail)
        except BadPack:
            DAMAGED.labels("checksum").inc()
            raise

    def _tail(self, client: minio.Minio, key: str, pack_size: int, length: int) -> bytes:
        if not length:
            return b""
        part = self._part(client, key, pack_size - length, length)
        if len(part.data) != length:
            raise BadPack(f"{key} ends before the requested bytes")
        READ_BYTES.inc(length)
        return part.data

    def _part(self, client: minio.Minio, key: str, offset: int, length: int) -> Part:
        try:
            return self._requests.retried(
                "get", get_part, client, self._bucket, key, offset, length, self._requests.timeout
            )
        except WrongAnswer:
            DAMAGED.labels("range").inc()
            raise

    def _fresh_client(self) -> minio.Minio:
        """Has no open connection that was used before."""
        self._fresh_connections.clear()
        return self._fresh


def _is_bad(message: bytes | BadPack) -> bool:
    return isinstance(message, BadPack)


def _count_damaged(outcome: RangeOutcome, wanted: PackRange) -> int:
    """How many messages of the range are damaged."""
    if isinstance(outcome, list):
        return sum(map(_is_bad, outcome))
    return len(wanted.refs) if isinstance(outcome, BadPack) else 0


def _reason(outcome: RangeOutcome) -> str:
    return str(next(filter(_is_bad, outcome)) if isinstance(outcome, list) else outcome)


def _best(first: RangeOutcome, second: RangeOutcome) -> RangeOutcome:
    """Of two readings of one range, each message from the reading in which it is whole."""
    if isinstance(first, list) and isinstance(second, list):
        return [two if isinstance(one, BadPack) else one for one, two in zip(first, second, strict=True)]
    return first if isinstance(first, list) else second
