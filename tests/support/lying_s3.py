"""An HTTP proxy before a real S3 that gives wrong answers: a flipped bit in each body, short bodies, other ranges,
refused writes, and late answers.

`async with LyingS3(host, port) as s3`; clients connect to `s3.endpoint`, and `s3.set_lie(Lie.FLIP)` sets what is
wrong from now on. The flipped bit depends on the seed and on the answer, so that a run can be repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import random
import re
from dataclasses import dataclass, field

_LOOPBACK = "127.0.0.1"
_MAX_HEAD = 64 * 1024
_DENIED = b"""\
<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>%b</Code><Message>%b</Message><Resource>/</Resource><RequestId>1</RequestId></Error>"""


class Lie(enum.Enum):
    """The kinds of wrong answers."""

    NONE = "nothing"
    FLIP = "one bit of each body"
    CUT = "the connection ends in the middle of each body"
    SHORT = "each body lacks its last bytes, and its header has the shorter length"
    LONG = "each body has additional bytes, and its header has the longer length"
    OTHER_RANGE = "another range than requested, and the header names it"
    SHIFTED = "another range than requested, and the header names the requested one"
    WHOLE = "the whole object instead of a range"
    FORBIDDEN = "403 to each write"
    FULL = "507 to each write"
    UNCONDITIONAL = "501 to each conditional write"
    LOST_ANSWER = "a write is done, and the connection ends before its answer"
    NO_ANSWER = "writes get no answer until the lie ends"
    READ_ONLY = "403 to each change"
    LATE = "each answer comes long after its request"


READS = (Lie.FLIP, Lie.CUT, Lie.SHORT, Lie.LONG, Lie.OTHER_RANGE, Lie.SHIFTED, Lie.WHOLE)
"""Wrong answers to reads; the others are answers to writes, or to all requests."""
_CHANGES = ("PUT", "POST", "DELETE")


@dataclass(slots=True)
class _Head:
    """The first line of a request or an answer, and its fields by their lower-case names."""

    line: bytes
    fields: dict[str, str]

    @property
    def content_length(self) -> int:
        return int(self.fields.get("content-length", "0"))

    def written(self) -> bytes:
        lines = (f"{name}: {value}\r\n" for name, value in self.fields.items())
        return self.line + b"\r\n" + "".join(lines).encode() + b"\r\n"


@dataclass(slots=True, eq=False)
class LyingS3:
    """`prefix`: only reads of objects whose keys begin with it get wrong answers. `seed`: of the bits to flip. `late`:
    seconds that a late answer is delayed, if the lie does not end before."""

    host: str
    port: int
    prefix: str = "packs/"
    seed: int = 1
    late: float = 30.0
    lies: int = 0
    """The number of wrong answers."""
    writes: list[str] = field(default_factory=list)
    """Keys of the received PUTs, in order."""
    _lie: Lie = Lie.NONE
    _then: Lie = Lie.NONE
    _left: int = 0
    _ended: asyncio.Event = field(default_factory=asyncio.Event)
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> LyingS3:
        self._server = await asyncio.start_server(self._serve, _LOOPBACK, 0, limit=_MAX_HEAD)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def endpoint(self) -> str:
        return f"http://{_LOOPBACK}:{self.listens_at}"

    @property
    def listens_at(self) -> int:
        """The port of this proxy."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def set_lie(self, lie: Lie, times: int = 2**62, *, then: Lie = Lie.NONE) -> None:
        """Give `times` answers that are wrong in this way, then those of `then`."""
        self._lie, self._left, self._then = lie, times, then
        self._ended.set()
        self._ended = asyncio.Event()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
                far = await asyncio.open_connection(self.host, self.port, limit=_MAX_HEAD)
                try:
                    while await self._answer(reader, writer, *far):
                        pass
                finally:
                    far[1].close()
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _answer(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> bool:
        """Answer one request; return False when the connection ends."""
        request = await _head(reader)
        body = await reader.readexactly(request.content_length)
        method, target, _ = request.line.decode().split(" ")
        if method == "PUT":
            self.writes.append(target.partition("?")[0].lstrip("/").partition("/")[2])
        if refusal := await self._refusal(method, request):
            writer.write(refusal)
            await writer.drain()
            return True
        lie = self._next_lie(READS) if method == "GET" and f"/{self.prefix}" in target else Lie.NONE
        far_writer.write(request.written() + body)
        head, data = await _exchange(far_reader, method)
        if method == "PUT" and self._next_lie((Lie.LOST_ANSWER,)) is Lie.LOST_ANSWER:
            return False
        if lie is not Lie.NONE and data:
            data = self._falsified(lie, head, data)
        if self._next_lie((Lie.LATE,)) is Lie.LATE:
            await self._until_ended(self.late)
        writer.write(head.written() + data)
        await writer.drain()
        return not (lie is Lie.CUT and data) and head.fields.get("connection", "") != "close"

    def _next_lie(self, among: tuple[Lie, ...]) -> Lie:
        if self._lie not in among or self._left <= 0:
            return Lie.NONE
        lie = self._lie
        self._left -= 1
        self.lies += 1
        if not self._left:
            self.set_lie(self._then)
        return lie

    async def _until_ended(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()

    async def _refusal(self, method: str, request: _Head) -> bytes:
        """Return the answer to a request that is not forwarded; empty: forward it."""
        if method in _CHANGES and self._next_lie((Lie.READ_ONLY,)) is Lie.READ_ONLY:
            return _refused(b"403 Forbidden", b"AccessDenied")
        return await self._refused_write(request) if method == "PUT" else b""

    async def _refused_write(self, request: _Head) -> bytes:
        while self._lie is Lie.NO_ANSWER:
            self.lies += 1
            await self._ended.wait()
        if self._next_lie((Lie.FORBIDDEN,)) is Lie.FORBIDDEN:
            return _refused(b"403 Forbidden", b"AccessDenied")
        if self._next_lie((Lie.FULL,)) is Lie.FULL:
            return _refused(b"507 Insufficient Storage", b"InsufficientStorage")
        if "if-none-match" in request.fields and self._next_lie((Lie.UNCONDITIONAL,)) is Lie.UNCONDITIONAL:
            return _refused(b"501 Not Implemented", b"NotImplemented")
        return b""

    def _falsified(self, lie: Lie, head: _Head, data: bytes) -> bytes:
        """Return the changed body; the header may change too."""
        match lie:
            case Lie.FLIP:
                at = random.Random(f"{self.seed} {len(data)} {self.lies}").randrange(8 * len(data))
                flipped = bytearray(data)
                flipped[at // 8] ^= 1 << at % 8
                return bytes(flipped)
            case Lie.CUT:
                return data[: len(data) // 2]
            case Lie.SHORT:
                return _sized(head, data[:-1])
            case Lie.LONG:
                return _sized(head, data + b"more than was asked for")
            case Lie.OTHER_RANGE:
                first, last, whole = map(int, re.findall(r"\d+", head.fields["content-range"]))
                head.fields["content-range"] = f"bytes {first + 1}-{last + 1}/{whole + 1}"
                return data[1:] + data[:1]
            case Lie.SHIFTED:
                return data[1:] + data[:1]
            case Lie.WHOLE:
                head.line = b"HTTP/1.1 200 OK"
                first = int(re.findall(r"\d+", head.fields.pop("content-range"))[0])
                return _sized(head, bytes(first) + data + b"the rest of the object")
        raise AssertionError(lie)


async def _head(reader: asyncio.StreamReader) -> _Head:
    """Raises EOFError at the end of the connection."""
    data = await reader.readuntil(b"\r\n\r\n")
    line, _, rest = data.partition(b"\r\n")
    fields = (each.partition(":") for each in rest.decode("latin-1").split("\r\n") if each)
    return _Head(line, {name.strip().lower(): value.strip() for name, _, value in fields})


async def _exchange(reader: asyncio.StreamReader, method: str) -> tuple[_Head, bytes]:
    """The answer, with a Content-Length."""
    head = await _head(reader)
    while head.line.split(b" ")[1] == b"100":
        head = await _head(reader)
    if method == "HEAD" or head.line.split(b" ")[1] in (b"204", b"304"):
        return head, b""
    if head.fields.get("transfer-encoding", "").lower() != "chunked":
        return head, await reader.readexactly(head.content_length)
    data = bytearray()
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        data += await reader.readexactly(size)
        await reader.readexactly(2)
    while (await reader.readuntil(b"\r\n")) != b"\r\n":
        pass
    del head.fields["transfer-encoding"]
    return head, _sized(head, bytes(data))


def _sized(head: _Head, data: bytes) -> bytes:
    head.fields["content-length"] = str(len(data))
    return data


def _refused(status: bytes, code: bytes) -> bytes:
    body = _DENIED % (code, status)
    head = b"HTTP/1.1 %b\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
    return head + body
