"""A TCP proxy before an engine that can be slow, silent, half closed, or not there."""

from __future__ import annotations

import asyncio
import contextlib
import enum

from paquebot.cli.engines.ports import LOOPBACK

_BLOCK = 65536
_SLOW_SECONDS = 0.25
"""How long each piece of data is held back when the way is slow."""


class Way(enum.Enum):
    """What happens to connections."""

    OPEN = "open"
    SLOW = "slow"  # every piece comes late
    SILENT = "silent"  # connections are taken, nothing goes through
    CUT = "cut"  # every connection is reset again and again, new ones are taken
    HALF = "half closed"  # the engine's side looks closed (FIN), ours stays open
    AWAY = "away"  # connections are reset, and no new one is taken


class Proxy:
    """`async with Proxy(target) as proxy`; clients connect to `proxy.port`."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self._way = Way.OPEN
        self._turned = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._pipes: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, ...]] = {}

    async def __aenter__(self) -> Proxy:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close_listener()
        for task in list(self._pipes):
            task.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def turn(self, way: Way) -> None:
        """From now on connections, also those there are, go this way."""
        before, self._way = self._way, way
        if way in (Way.CUT, Way.AWAY):
            self._reset_all()
        if way is Way.AWAY:
            self._close_listener()
        elif before is Way.AWAY:
            await self._listen()
        if before in (Way.SILENT, Way.HALF):
            self._reset_all()  # a path that comes back has forgotten its connections
        if way is Way.HALF:
            self._half_close()
        self._turned.set()
        self._turned = asyncio.Event()

    def cut(self) -> None:
        """Reset the connections there are."""
        self._reset_all()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def _close_listener(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _reset_all(self) -> None:
        for writers in self._pipes.values():
            for writer in writers:
                writer.transport.abort()

    def _half_close(self) -> None:
        for writers in self._pipes.values():
            with contextlib.suppress(OSError, RuntimeError):
                writers[0].write_eof()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pipes[task] = (writer,)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                far_reader, far_writer = await asyncio.open_connection(LOOPBACK, self.target)
                self._pipes[task] = (writer, far_writer)
                async with asyncio.TaskGroup() as pipes:
                    pipes.create_task(self._pipe(reader, far_writer))
                    pipes.create_task(self._pipe(far_reader, writer))
        finally:
            for each in self._pipes.pop(task):
                each.transport.abort() if self._way is not Way.OPEN else each.close()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: closed under us
            while data := await reader.read(_BLOCK):
                while self._way in (Way.SILENT, Way.HALF):
                    await self._turned.wait()
                if self._way is Way.SLOW:
                    await asyncio.sleep(_SLOW_SECONDS)
                writer.write(data)
                await writer.drain()
        writer.close()
