"""The bucket of packs, over the synchronous `minio` client in a small thread pool.

Every request has a deadline, and one that failed quickly is repeated. What may pass by itself is `BlobsUnavailable`;
an object that is not there is `BlobMissing`.
"""

import asyncio
import io
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import minio
import urllib3
from minio.deleteobjects import DeleteObject
from minio.error import MinioException, S3Error

from paquebot.blobs.answers import BlobMissing, BlobsUnavailable, answered, may_pass
from paquebot.blobs.pack import PREFIX, TRAILER, BadPack, decode_entry, index_length, pack_key, parse_index
from paquebot.blobs.spans import GAP, Span, spans
from paquebot.blobs.ulid import ulid_time_ms
from paquebot.observability.metrics import Engine, counter, know_calls
from paquebot.runtime.engines import S3Settings
from paquebot.v1.mail_pb2 import BlobRef, PackIndex

T = TypeVar("T")

_CALLS = ("put", "get", "stat", "list", "delete", "bucket_exists", "make_bucket")
REQUESTS = counter(
    "paquebot_s3_requests_total",
    "Requests to S3, repeated ones included: what a provider bills; a call is one request unless that is repeated",
    {"call": _CALLS},
)
READ_BYTES = counter("paquebot_s3_read_bytes_total", "Bytes of packs read from S3 (get)")
WRITTEN_BYTES = counter("paquebot_s3_written_bytes_total", "Bytes of packs written to S3 (put)")
_REQUEST = {call: REQUESTS.labels(call) for call in _CALLS}

_TAIL = 64 * 1024  # most indexes fit: one request reads them
_READ_OCTETS = 256 * 1024
_LIST_PAGE = 1000
_LEAST_PART = 5 * 2**20  # of the client's
_PAUSES_SECONDS = (0.1, 0.2)
_GRACE_SECONDS = 5.0  # the client's own timeouts come first; this one is for a thread that never gets a turn
_TURN_SECONDS = 0.05  # for which one caller's spans keep a thread, while others wait for it


@dataclass(frozen=True, slots=True)
class PackInfo:
    """A pack in the bucket."""

    pack: str
    octets: int


SpanOutcome = list[bytes | BadPack] | BadPack | BlobMissing | BlobsUnavailable
"""Of a span: its messages, by offset, or why there is none."""


class BlobStore:
    """Write, read, list and delete packs."""

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings
        self._bucket = settings.bucket
        know_calls(Engine.S3, _CALLS)
        self._client = _client(settings)
        self._may_head = True
        self._threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="s3")

    async def close(self) -> None:
        """Requests under way are waited for."""
        await asyncio.to_thread(self._threads.shutdown)

    async def probe(self) -> None:
        """Raises BlobsUnavailable unless the bucket can be used."""
        if not await self._run("bucket_exists", self._is_there):
            raise BlobsUnavailable(f"bucket {self._bucket} is not there")

    async def make_bucket(self) -> None:
        """Make the bucket unless it is there."""
        if not await self._run("bucket_exists", self._is_there):
            await self._run("make_bucket", self._client.make_bucket, self._bucket)

    async def put(self, pack: str, data: bytes) -> None:
        """Write a pack; returns when S3 acknowledged it. Raises BlobsUnavailable."""
        await self._run("put", self._put, pack_key(pack), data)
        WRITTEN_BYTES.inc(len(data))

    async def read(self, ref: BlobRef) -> bytes:
        """One message. Raises BlobMissing, BadPack, BlobsUnavailable."""
        return decode_entry(ref, await self.read_range(ref.pack, ref.offset, ref.length))

    async def read_many(self, refs: Sequence[BlobRef], *, gap: int = GAP) -> list[bytes]:
        """Messages in order of `refs`; neighbours at most `gap` octets apart in a pack share a request, however long.

        Raises BlobMissing, BadPack, BlobsUnavailable, when one of them cannot be read.
        """
        found: dict[tuple[str, int], bytes] = {}
        planned = spans(refs, gap=gap, longest=sys.maxsize)
        for span, outcome in zip(planned, await asyncio.gather(*map(self._read_span, planned)), strict=True):
            if isinstance(outcome, Exception):
                raise outcome
            for ref, message in zip(span.refs, outcome, strict=True):
                if isinstance(message, BadPack):
                    raise message
                found[ref.pack, ref.offset] = message
        return [found[ref.pack, ref.offset] for ref in refs]

    async def _read_span(self, span: Span) -> SpanOutcome:
        return (await self.read_spans((span,)))[0]

    async def read_spans(self, waiting: Sequence[Span]) -> list[SpanOutcome]:
        """The first of the spans, at least one: those that one thread reads, one after another, in its turn.

        To ask for many at once costs less than a call for each. What is raised elsewhere is here an outcome, of a
        span or of one message in it, so that one that is damaged does not take its neighbours with it.
        """
        try:
            return await self._on_thread(self._get_spans, waiting)
        except TimeoutError:
            return [BlobsUnavailable("get: no thread came free in time")] * len(waiting)

    async def read_range(self, pack: str, offset: int, length: int) -> bytes:
        """Stored octets as they are. Raises BlobMissing, BadPack (it ends before them), BlobsUnavailable."""
        if not length:
            return b""
        key = pack_key(pack)
        data = await self._run("get", self._get, key, offset, length, key=key)
        READ_BYTES.inc(len(data))
        return data

    async def read_start(self, pack: str, length: int) -> tuple[bytes, int]:
        """The first `length` stored octets, fewer when the pack is shorter, and how many the pack has: a small pack in
        one request. Raises BlobMissing, BlobsUnavailable."""
        key = pack_key(pack)
        data, octets = await self._run("get", self._get_start, key, length, key=key)
        READ_BYTES.inc(len(data))
        return data, octets

    async def read_index(self, info: PackInfo) -> PackIndex:
        """What a pack says of itself. Raises BlobMissing, BadPack, BlobsUnavailable."""
        tail = await self.read_range(info.pack, max(0, info.octets - _TAIL), min(_TAIL, info.octets))
        needed = index_length(tail[-TRAILER.size :]) + TRAILER.size
        if needed > info.octets:
            raise BadPack("the index is longer than the object")
        if needed > len(tail):
            tail = await self.read_range(info.pack, info.octets - needed, needed)
        return parse_index(tail)

    async def stat(self, pack: str) -> PackInfo:
        """Raises BlobMissing, BlobsUnavailable."""
        key = pack_key(pack)
        found = await self._run("stat", self._client.stat_object, self._bucket, key, key=key)
        return PackInfo(pack, int(found.size or 0))

    async def list_packs(self, after: str = "") -> AsyncIterator[PackInfo]:
        """All packs in order of their ids (so of their time), those after `after` when given."""
        start = pack_key(after) if after else None
        while True:
            page = await self._run("list", self._list, start)
            for key, octets in page:
                start = key
                if name := _pack_of(key):
                    yield PackInfo(name, octets)
            if len(page) < _LIST_PAGE:
                return

    async def delete(self, packs: Iterable[str]) -> None:
        """Delete packs; one that is not there is no error. Raises BlobsUnavailable."""
        await self.delete_objects([pack_key(pack) for pack in packs])

    # Objects that are no packs, by their keys: snapshots

    async def put_object(self, key: str, data: bytes) -> None:
        """Write an object; returns when S3 acknowledged it. Raises BlobsUnavailable."""
        await self._run("put", self._put, key, data)
        WRITTEN_BYTES.inc(len(data))

    async def read_object(self, key: str, offset: int = 0, length: int = 0) -> bytes:
        """`length` octets at `offset`, all to the end when it is 0. Raises BlobMissing, BlobsUnavailable."""
        data = await self._run("get", self._get, key, offset, length, key=key)
        READ_BYTES.inc(len(data))
        return data

    async def list_objects(self, prefix: str) -> AsyncIterator[tuple[str, int]]:
        """(key, octets) of all objects whose keys begin so, in order. Raises BlobsUnavailable."""
        start: str | None = None
        while True:
            page = await self._run("list", self._list, start, prefix)
            for key, octets in page:
                start = key
                yield key, octets
            if len(page) < _LIST_PAGE:
                return

    async def delete_objects(self, keys: Sequence[str]) -> None:
        """Delete objects; one that is not there is no error. Raises BlobsUnavailable."""
        for start in range(0, len(keys), _LIST_PAGE):
            await self._run("delete", self._delete, keys[start : start + _LIST_PAGE])

    def _is_there(self) -> bool:
        """HEAD of a bucket takes the right to list it, but at SeaweedFS the right to read, which a service that only
        writes has not. There a list tells, of a prefix that no key has: it costs more where requests are billed."""
        if self._may_head:
            try:
                return self._client.bucket_exists(self._bucket)
            except S3Error as error:
                if error.code != "AccessDenied":
                    raise
        try:
            next(iter(self._client.list_objects(self._bucket, prefix=PREFIX + "-")), None)
        except S3Error as error:
            if error.code == "NoSuchBucket":
                return False
            raise
        self._may_head = False
        return True

    def _put(self, key: str, data: bytes) -> None:
        # It can be repeated: key and content are fixed.
        # As one request: parts would be copied out of `data`, and all of them be in memory beside it.
        self._client.put_object(
            self._bucket,
            key,
            io.BytesIO(data),
            len(data),
            "application/x-paquebot-pack",
            part_size=max(len(data), _LEAST_PART),
        )

    def _get_spans(self, waiting: Sequence[Span]) -> list[SpanOutcome]:
        end = time.monotonic() + _TURN_SECONDS
        outcomes: list[SpanOutcome] = []
        for span in waiting:
            outcomes.append(self._get_span(span))
            if time.monotonic() > end:
                break
        return outcomes

    def _get_span(self, span: Span) -> SpanOutcome:
        """Decompressed on this thread too: octets as they are stored never wait for anybody."""
        try:
            data = self._octets_of(span)
        except (BadPack, BlobMissing, BlobsUnavailable) as error:
            return error
        except ValueError:
            return BadPack(f"{span.pack} is no name of a pack")
        places = ((ref, ref.offset - span.start) for ref in span.refs)
        return [_decoded(ref, data[at : at + ref.length]) for ref, at in places]

    def _octets_of(self, span: Span) -> bytes:
        if span.start == span.end:
            return b""
        key = pack_key(span.pack)
        with answered("get", key):
            data = self._repeated("get", self._get, key, span.start, span.end - span.start)
        READ_BYTES.inc(len(data))
        return data

    def _get(self, key: str, offset: int, length: int) -> bytes:
        return self._get_of(key, offset, length)[0]

    def _get_start(self, key: str, length: int) -> tuple[bytes, int]:
        try:
            return self._get_of(key, 0, length)
        except S3Error as error:
            if error.code != "InvalidRange":
                raise
            return b"", 0  # no octet can be asked for: there is none

    def _get_of(self, key: str, offset: int, length: int) -> tuple[bytes, int]:
        """The octets, and how many the whole object has."""
        response: Any = self._client.get_object(self._bucket, key, offset=offset, length=length)
        deadline = time.monotonic() + self._settings.timeout
        parts: list[bytes] = []
        try:
            while part := response.read1(_READ_OCTETS):
                parts.append(part)
                if time.monotonic() > deadline:  # the client's own limit is for each part alone
                    raise urllib3.exceptions.TimeoutError("the answer comes too slowly")
            data = b"".join(parts)
            # RFC 9110 §14.4: `bytes 0-99/1234`; a server may also send the whole object
            whole = response.headers.get("Content-Range", "").rpartition("/")[2]
            return data, int(whole) if whole.isdecimal() else offset + len(data)
        finally:
            response.close()
            response.release_conn()

    def _list(self, start: str | None, prefix: str = PREFIX) -> list[tuple[str, int]]:
        found = self._client.list_objects(self._bucket, prefix=prefix, recursive=True, start_after=start)
        page: list[tuple[str, int]] = []
        for item in found:
            page.append((str(item.object_name), int(item.size or 0)))
            if len(page) == _LIST_PAGE:
                break
        return page

    def _delete(self, keys: list[str]) -> None:
        errors = self._client.remove_objects(self._bucket, [DeleteObject(key) for key in keys])
        for error in errors:  # the request is sent while this is read
            raise BlobsUnavailable(f"delete: {error.code}")

    async def _run(self, call: str, function: Callable[..., T], *args: Any, key: str = "") -> T:
        """`function(*args)` on a thread. `key`: the object that must be there."""
        with answered(call, key):
            return await self._on_thread(self._repeated, call, function, *args)
        raise AssertionError("unreachable")

    async def _on_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Raises TimeoutError."""
        async with asyncio.timeout(self._settings.timeout + _GRACE_SECONDS):
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

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


def _client(settings: S3Settings) -> minio.Minio:
    address = urlsplit(settings.endpoint)
    connect = min(5.0, settings.timeout / 4)
    pool = urllib3.PoolManager(
        maxsize=settings.threads,
        timeout=urllib3.Timeout(connect=connect, read=settings.timeout),
        retries=urllib3.Retry(connect=0, read=0, status=0, other=0, redirect=2),  # `_repeated` does it
        cert_reqs="CERT_REQUIRED",
        ca_certs=str(settings.ca) if settings.ca else None,
    )
    client: Any = minio.Minio(
        address.netloc,
        access_key=settings.access_key or None,
        secret_key=str(settings.secret_key) or None,
        region=settings.region,
        secure=address.scheme == "https",
        http_client=pool,
    )
    if settings.path_style:
        client.disable_virtual_style_endpoint()
    else:
        client.enable_virtual_style_endpoint()
    return cast(minio.Minio, client)


def _decoded(ref: BlobRef, data: bytes) -> bytes | BadPack:
    try:
        return decode_entry(ref, data)
    except BadPack as error:
        return error


_KEY = re.compile(re.escape(PREFIX) + r"\d{4}/\d\d/\d\d/([0-9A-Z]{26})")


def _pack_of(key: str) -> str | None:
    match = _KEY.fullmatch(key)
    if not match:
        return None
    try:
        ulid_time_ms(match[1])
    except ValueError:
        return None
    return match[1]
