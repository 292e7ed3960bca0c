"""Reading from the bucket on a thread: what S3 answers is checked.

Nothing read here is believed: the range is compared with the one asked for, an index with its checksum, a message with
the checksum of its frame or, where an older program wrote none, with the SHA-256 in its pack's index. What does not
match is read once more over a new connection: a memory, a disk or a proxy may have changed it on its way.
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
    "Answers of S3 that were not what was written, by what showed it: another range or length than was asked for, or "
    "bytes that do not match their checksum. Each is read once more",
    {"shown_by": ("range", "checksum")},
)
UNREADABLE = counter(
    "paquebot_s3_unreadable_total",
    "Messages and indexes that were damaged at the second reading too: nobody was given them",
    {"what": ("message", "index", "range")},
)
_TAIL = 64 * 1024  # most indexes fit: one request reads them
_MAX_OBJECT = 256 * 2**20  # of an object that is no pack, read whole

RangeOutcome = list[bytes | BadPack] | BadPack | BlobMissing | BlobsUnavailable
"""Of a span: its messages, by offset, or why there is none."""


class PackReader:
    """One for a process; any thread may use it. `fresh`: a client of its own for what is read again, and its pool."""

    def __init__(
        self, bucket: str, client: minio.Minio, fresh: tuple[minio.Minio, urllib3.PoolManager], requests: Requests
    ) -> None:
        self._name = bucket
        self._client = client
        self._fresh, self._fresh_connections = fresh
        self._requests = requests
        self._digests = Digests()

    def messages(self, span: PackRange) -> RangeOutcome:
        """Decompressed on this thread too: bytes as they are stored never wait for anybody."""
        first = self._read(span, self._client)
        if not _damaged(first, span):
            return first
        _log.warning("damaged_read", pack=span.pack, offset=span.start, reason=_reason(first))
        best = _best(first, self._read(span, self._fresh_client()))
        UNREADABLE.labels("message").inc(_damaged(best, span))
        return best

    def _read(self, span: PackRange, client: minio.Minio) -> RangeOutcome:
        try:
            return self._messages(span, client)
        except (BlobMissing, BlobsUnavailable) as error:
            return error
        except ValueError:
            return BlobMissing(span.pack)  # no name of a pack

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
            return Part(b"", 0)  # no byte can be asked for: there is none

    def whole(self, key: str) -> Part:
        """All of an object that is no pack."""
        return self.start(key, _MAX_OBJECT)

    def index(self, key: str, octets: int) -> PackIndex:
        """What a pack of so many bytes says of itself. Raises BadPack."""
        try:
            return self._index(self._client, key, octets)
        except BadPack as wrong:
            _log.warning("damaged_read", key=key, reason=str(wrong))
        try:
            return self._index(self._fresh_client(), key, octets)
        except BadPack:
            UNREADABLE.labels("index").inc()
            raise

    def size(self, key: str) -> int:
        return int(self._requests.repeated("stat", self._client.stat_object, self._name, key).size or 0)

    def _messages(self, span: PackRange, client: minio.Minio) -> RangeOutcome:
        key = pack_key(span.pack)
        if span.start == span.end:
            return [self._decoded(client, ref, b"", None) for ref in span.refs]
        try:
            with s3_call("get", key):
                part = self._part(client, key, span.start, span.end - span.start)
        except BadPack as error:
            return error
        READ_BYTES.inc(len(part.data))
        places = ((ref, ref.offset - span.start) for ref in span.refs)
        return [self._decoded(client, ref, part.data[at : at + ref.length], part.whole) for ref, at in places]

    def _decoded(self, client: minio.Minio, ref: BlobRef, data: bytes, whole: int | None) -> bytes | BadPack:
        """Raises BlobMissing, BlobsUnavailable."""
        try:
            message = decode_entry(ref, data)
            if not is_checked(ref, data):
                check_digest(message, self._digest(client, ref, whole))
        except BadPack as error:
            DAMAGED.labels("checksum").inc()
            return error
        return message

    def _digest(self, client: minio.Minio, ref: BlobRef, whole: int | None) -> bytes:
        """From the pack's index. Raises BadPack, BlobMissing, BlobsUnavailable."""
        digests = self._digests.of(ref.pack)
        if digests is None:
            key = pack_key(ref.pack)
            with s3_call("get", key):
                index = self._index(client, key, self.size(key) if whole is None else whole)
            if index.pack != ref.pack:
                raise BadPack(f"the index is of pack {index.pack}")
            digests = self._digests.keep(index)
        if not (found := digests.get(ref.offset)):
            raise BadPack("the index knows no such entry")
        return found

    def _index(self, client: minio.Minio, key: str, octets: int) -> PackIndex:
        tail = self._tail(client, key, octets, min(_TAIL, octets))
        needed = index_length(tail[-TRAILER.size :]) + TRAILER.size
        if needed > octets:
            raise BadPack("the index is longer than the object")
        if needed > len(tail):
            tail = self._tail(client, key, octets, needed)
        try:
            return parse_index(tail)
        except BadPack:
            DAMAGED.labels("checksum").inc()
            raise

    def _tail(self, client: minio.Minio, key: str, octets: int, length: int) -> bytes:
        if not length:
            return b""
        part = self._part(client, key, octets - length, length)
        if len(part.data) != length:
            raise BadPack(f"{key} ends before the bytes that were asked for")
        READ_BYTES.inc(length)
        return part.data

    def _part(self, client: minio.Minio, key: str, offset: int, length: int) -> Part:
        try:
            return self._requests.repeated(
                "get", get_part, client, self._name, key, offset, length, self._requests.timeout
            )
        except WrongAnswer:
            DAMAGED.labels("range").inc()
            raise

    def _fresh_client(self) -> minio.Minio:
        """With no connection open that was used before."""
        self._fresh_connections.clear()
        return self._fresh


def _is_bad(message: bytes | BadPack) -> bool:
    return isinstance(message, BadPack)


def _damaged(outcome: RangeOutcome, span: PackRange) -> int:
    """How many messages of the span."""
    if isinstance(outcome, list):
        return sum(map(_is_bad, outcome))
    return len(span.refs) if isinstance(outcome, BadPack) else 0


def _reason(outcome: RangeOutcome) -> str:
    return str(next(filter(_is_bad, outcome)) if isinstance(outcome, list) else outcome)


def _best(first: RangeOutcome, second: RangeOutcome) -> RangeOutcome:
    """Of two readings of one span, message by message what is whole."""
    if isinstance(first, list) and isinstance(second, list):
        return [two if isinstance(one, BadPack) else one for one, two in zip(first, second, strict=True)]
    return first if isinstance(first, list) else second
