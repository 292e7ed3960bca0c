"""The bucket as a thread sees it: requests to S3, repeated where that may help, and answers that are checked.

Nothing read here is believed: the range is compared with the one asked for, an index with its checksum, a message with
the checksum of its frame or, where an older program wrote none, with the SHA-256 in its pack's index. What does not
match is read once more over a new connection: a memory, a disk or a proxy may have changed it on its way.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import minio
import urllib3
from minio.deleteobjects import DeleteObject
from minio.error import MinioException, S3Error

from paquebot.blobs.answers import BlobMissing, BlobsUnavailable, answered, may_pass
from paquebot.blobs.client import open_client
from paquebot.blobs.digests import Digests
from paquebot.blobs.pack import (
    PREFIX,
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
from paquebot.blobs.spans import Span
from paquebot.observability.log import Log
from paquebot.observability.metrics import counter
from paquebot.runtime.engines import S3Settings
from paquebot.v1.mail_pb2 import BlobRef, PackIndex

T = TypeVar("T")

_log = Log("paquebot.blobs")

CALLS = ("put", "get", "stat", "list", "delete", "bucket_exists", "make_bucket")
REQUESTS = counter(
    "paquebot_s3_requests_total",
    "Requests to S3, repeated ones included: what a provider bills; a call is one request unless that is repeated",
    {"call": CALLS},
)
READ_BYTES = counter("paquebot_s3_read_bytes_total", "Bytes of packs read from S3 (get)")
WRITTEN_BYTES = counter("paquebot_s3_written_bytes_total", "Bytes of packs written to S3 (put)")
DAMAGED = counter(
    "paquebot_s3_damaged_reads_total",
    "Answers of S3 that were not what was written, by what showed it: another range or length than was asked for, or "
    "octets that do not match their checksum. Each is read once more",
    {"shown_by": ("range", "checksum")},
)
UNREADABLE = counter(
    "paquebot_s3_unreadable_total",
    "Messages and indexes that were damaged at the second reading too: nobody was given them",
    {"what": ("message", "index", "range")},
)
_REQUEST = {call: REQUESTS.labels(call) for call in CALLS}
LIST_PAGE = 1000
_TAIL = 64 * 1024  # most indexes fit: one request reads them
_PAUSES_SECONDS = (0.1, 0.2)
_UNCONDITIONAL = ("NotImplemented", "InvalidArgument", "InvalidRequest", "BadRequest")
_MAX_OBJECT = 256 * 2**20  # of an object that is no pack, read whole

SpanOutcome = list[bytes | BadPack] | BadPack | BlobMissing | BlobsUnavailable
"""Of a span: its messages, by offset, or why there is none."""


class ObjectExists(BlobsUnavailable):
    """Another object has the name under which one was to be written."""

    nothing_done = True


class Listed(NamedTuple):
    """An object as a list tells it. `written_ms`: by the clock of S3; 0: it does not say."""

    key: str
    octets: int
    written_ms: int


class Bucket:
    """One for a process; any thread may use it."""

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings
        self._name = settings.bucket
        self._client, _ = open_client(settings)
        self._fresh, self._fresh_connections = open_client(settings)  # for what is read again
        self._may_head = True
        self._may_condition = True
        self._digests = Digests()

    def exists(self) -> bool:
        return self._repeated("bucket_exists", self._exists)

    def _exists(self) -> bool:
        """HEAD of a bucket takes the right to list it, but at SeaweedFS the right to read, which a service that only
        writes has not. There a list tells, of a prefix that no key has: it costs more where requests are billed."""
        if self._may_head:
            try:
                return self._client.bucket_exists(self._name)
            except S3Error as error:
                if error.code != "AccessDenied":
                    raise
        try:
            next(iter(self._client.list_objects(self._name, prefix=PREFIX + "-")), None)
        except S3Error as error:
            if error.code == "NoSuchBucket":
                return False
            raise
        self._may_head = False
        return True

    def make(self) -> None:
        self._repeated("make_bucket", self._client.make_bucket, self._name)

    # Reading

    def messages(self, span: Span) -> SpanOutcome:
        """Decompressed on this thread too: octets as they are stored never wait for anybody."""
        first = self._read(span, self._client)
        if not _damaged(first, span):
            return first
        _log.warning("damaged_read", pack=span.pack, offset=span.start, reason=_reason(first))
        best = _best(first, self._read(span, self._fresh_client()))
        UNREADABLE.labels("message").inc(_damaged(best, span))
        return best

    def _read(self, span: Span, client: minio.Minio) -> SpanOutcome:
        try:
            return self._messages(span, client)
        except (BlobMissing, BlobsUnavailable) as error:
            return error
        except ValueError:
            return BadPack(f"{span.pack} is no name of a pack")

    def part(self, key: str, offset: int, length: int) -> Part:
        """Stored octets as they are; fewer where the object ends before."""
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
        """The first octets; none when the object is empty."""
        try:
            return self.part(key, 0, length)
        except S3Error as error:
            if error.code != "InvalidRange":
                raise
            return Part(b"", 0)  # no octet can be asked for: there is none

    def whole(self, key: str) -> Part:
        """All of an object that is no pack."""
        return self.start(key, _MAX_OBJECT)

    def index(self, key: str, octets: int) -> PackIndex:
        """What a pack of so many octets says of itself. Raises BadPack."""
        try:
            return self._index(self._client, key, octets)
        except BadPack as wrong:
            _log.warning("damaged_read", key=key, reason=str(wrong))
        try:
            return self._index(self._fresh_client(), key, octets)
        except BadPack:
            UNREADABLE.labels("index").inc()
            raise

    def octets(self, key: str) -> int:
        return int(self._repeated("stat", self._client.stat_object, self._name, key).size or 0)

    def _messages(self, span: Span, client: minio.Minio) -> SpanOutcome:
        key = pack_key(span.pack)
        if span.start == span.end:
            return [self._decoded(client, ref, b"", None) for ref in span.refs]
        try:
            with answered("get", key):
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
            with answered("get", key):
                index = self._index(client, key, self.octets(key) if whole is None else whole)
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
            raise BadPack(f"{key} ends before the octets that were asked for")
        READ_BYTES.inc(length)
        return part.data

    def _part(self, client: minio.Minio, key: str, offset: int, length: int) -> Part:
        try:
            return self._repeated("get", get_part, client, self._name, key, offset, length, self._settings.timeout)
        except WrongAnswer:
            DAMAGED.labels("range").inc()
            raise

    def _fresh_client(self) -> minio.Minio:
        """With no connection open that was used before."""
        self._fresh_connections.clear()
        return self._fresh

    def page(self, start: str | None, prefix: str) -> list[Listed]:
        """The objects after `start`, in order, as many as one request brings."""
        return self._repeated("list", self._page, start, prefix)

    def _page(self, start: str | None, prefix: str) -> list[Listed]:
        found = self._client.list_objects(self._name, prefix=prefix, recursive=True, start_after=start)
        page: list[Listed] = []
        for item in found:
            written = int(item.last_modified.timestamp() * 1000) if item.last_modified else 0
            page.append(Listed(str(item.object_name), int(item.size or 0), written))
            if len(page) == LIST_PAGE:
                break
        return page

    # Writing

    def put(self, key: str, data: bytes) -> None:
        """Write an object, over the one that may be there."""
        self._repeated("put", self._put, key, data, {})

    def put_new(self, key: str, data: bytes) -> None:
        """Write an object that must not be there yet, as far as S3 can tell (RFC 9110 §13.1.2, `If-None-Match: *`).
        Raises ObjectExists."""
        if not self._may_condition:
            self.put(key, data)
            return
        tries = 0

        def put(key: str, data: bytes) -> None:
            nonlocal tries
            tries += 1
            self._put(key, data, {"If-None-Match": "*"})

        try:
            self._repeated("put", put, key, data)
        except S3Error as error:
            if error.code == "PreconditionFailed":
                self._check_own(key, data, tries)
            elif error.code in _UNCONDITIONAL:
                self.put(key, data)  # raises the same again, unless it was the condition
                self._may_condition = False
                _log.warning("no_conditional_writes", reason=error.code)
            else:
                raise

    def _put(self, key: str, data: bytes, headers: dict[str, str]) -> None:
        # As `put_object` does for small objects; that one takes no condition, and cuts large ones in parts.
        client: Any = self._client
        head = {"Content-Type": "application/x-paquebot-pack", **headers}
        client._execute("PUT", self._name, key, body=data, headers=head)

    def _check_own(self, key: str, data: bytes, tries: int) -> None:
        """An object of this name is there. It is the one just written, when the answer to the first try was lost."""
        if tries > 1:
            try:
                part = get_part(self._client, self._name, key, 0, len(data) + 1, self._settings.timeout)
            except S3Error as error:
                if error.code != "AccessDenied":
                    raise
                # This process may only write. Its names are its own: 80 random bits.
                _log.warning("written_before", key=key)
                return
            if part.data == data:
                return
        raise ObjectExists(f"put: {key} is there already")

    def delete(self, keys: Sequence[str]) -> None:
        self._repeated("delete", self._delete, keys)

    def _delete(self, keys: Sequence[str]) -> None:
        errors = self._client.remove_objects(self._name, [DeleteObject(key) for key in keys])
        for error in errors:  # the request is sent while this is read
            raise BlobsUnavailable(f"delete: {error.code}")

    def _repeated(self, call: str, function: Callable[..., T], *args: Any) -> T:
        """A lost connection or a 5xx is tried again, but only while a quarter of the time is not yet over: what
        fails slowly must not hold its thread for many times S3_TIMEOUT."""
        start = time.monotonic()
        for pause in _PAUSES_SECONDS:
            _REQUEST[call].inc()
            try:
                return function(*args)
            except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
                if time.monotonic() - start > self._settings.timeout / 4 or not may_pass(error):
                    raise
            time.sleep(pause)
        _REQUEST[call].inc()
        return function(*args)


def _is_bad(message: bytes | BadPack) -> bool:
    return isinstance(message, BadPack)


def _damaged(outcome: SpanOutcome, span: Span) -> int:
    """How many messages of the span."""
    if isinstance(outcome, list):
        return sum(map(_is_bad, outcome))
    return len(span.refs) if isinstance(outcome, BadPack) else 0


def _reason(outcome: SpanOutcome) -> str:
    return str(next(filter(_is_bad, outcome)) if isinstance(outcome, list) else outcome)


def _best(first: SpanOutcome, second: SpanOutcome) -> SpanOutcome:
    """Of two readings of one span, message by message what is whole."""
    if isinstance(first, list) and isinstance(second, list):
        return [two if isinstance(one, BadPack) else one for one, two in zip(first, second, strict=True)]
    return first if isinstance(first, list) else second
