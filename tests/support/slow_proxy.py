"""A TCP proxy before a real S3 that delays its answers until `release`, and counts the requests under way."""

from __future__ import annotations

import asyncio
import contextlib
import time


class SlowProxy:
    """`async with SlowProxy(host, port) as proxy`; clients connect to `proxy.endpoint`, at port `at` if it is given."""

    def __init__(self, host: str, port: int, at: int = 0) -> None:
        self._target = (host, port)
        self._at = at
        self._open = asyncio.Event()
        self._open.set()
        self._changed = asyncio.Condition()
        self._piping: set[asyncio.Task[None]] = set()
        self.puts: list[float] = []
        """The time at which each PUT arrived, by the monotonic clock."""
        self._hold_at, self._hold_after = b"", 0
        self.under_way = 0
        self.most_under_way = 0

    async def __aenter__(self) -> SlowProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._at)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()

    @property
    def endpoint(self) -> str:
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"

    def hold(self) -> None:
        """Hold back all answers from now on."""
        self._open.clear()

    def hold_at(self, start: bytes, count: int = 1) -> None:
        """`hold` when the `count`-th request that begins so arrives: S3 gets it, the client gets no answer."""
        self._hold_at, self._hold_after = start, count

    async def until_held(self, seconds: float = 15.0) -> None:
        """Raises TimeoutError."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: not self._open.is_set())

    def release(self) -> None:
        self._hold_at = b""
        self._open.set()

    async def cut(self) -> None:
        """Close every connection and refuse new ones."""
        self._server.close()
        await self.cut_connections()

    async def cut_connections(self) -> None:
        """Close every open connection."""
        for task in self._piping:
            task.cancel()
        await asyncio.gather(*self._piping, return_exceptions=True)

    async def until_puts(self, count: int, seconds: float = 15.0) -> None:
        """Wait until `count` PUTs have arrived in all. Raises TimeoutError."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: len(self.puts) >= count)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._piping.add(task)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            try:
                await asyncio.gather(self._requests(reader, far_writer), self._answers(far_reader, writer))
            finally:
                far_writer.close()
        writer.close()
        self._piping.discard(task)

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if data.startswith(b"PUT /"):
                self.puts.append(time.monotonic())
                self.under_way += 1
                self.most_under_way = max(self.most_under_way, self.under_way)
                async with self._changed:
                    self._changed.notify_all()
            if self._hold_at and data.startswith(self._hold_at):
                await self._count_down()
            writer.write(data)
            await writer.drain()
        writer.close()

    async def _count_down(self) -> None:
        self._hold_after -= 1
        if self._hold_after <= 0:
            self.hold()
            async with self._changed:
                self._changed.notify_all()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._open.wait()
            if data.startswith(b"HTTP/1."):
                self.under_way -= 1
            writer.write(data)
            await writer.drain()
        writer.close()
