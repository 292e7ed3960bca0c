"""A channel whose certificate can be renewed: each call uses a channel made with the current files.

gRPC reads a client's credentials once, so a change of the files makes a new channel, and the old one closes when its
calls are answered. The files are checked at calls only, so no task is needed for it.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc
from grpc.aio import Channel, UnaryUnaryMultiCallable

from paquebot.rpc.credentials import Pems
from paquebot.runtime.net.tls import Reloaded
from paquebot.runtime.process.tasks import background

_CHECK_SECONDS = 1.0
_GRACE_SECONDS = 30.0  # longer than the timeout of any call


class RenewedChannel(Channel):
    """`make` opens a channel with the given credentials; `clock` is monotonic seconds."""

    def __init__(
        self,
        pems: Reloaded[Pems],
        make: Callable[[grpc.ChannelCredentials], Channel],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pems = pems
        self._make = make
        self._clock = clock
        self._checked_at = clock()
        self._channel = make(pems.current.for_channel())
        self._ending: dict[asyncio.Task[None], Channel] = {}
        self._closed = False

    def current(self) -> Channel:
        """The channel for the next call."""
        if not self._closed and self._clock() - self._checked_at >= _CHECK_SECONDS:
            self._checked_at = self._clock()
            if self._pems.look_again():
                self._end(self._channel)
                self._channel = self._make(self._pems.current.for_channel())
        return self._channel

    def _end(self, old: Channel) -> None:
        task = background(old.close(_GRACE_SECONDS), "grpc_channel")
        self._ending[task] = old
        task.add_done_callback(lambda done: self._ending.pop(done, None))

    async def close(self, grace: float | None = None) -> None:
        self._closed = True
        for task, old in tuple(self._ending.items()):
            task.cancel()
            await old.close(grace)
        await self._channel.close(grace)

    def unary_unary(self, *arguments: Any, **options: Any) -> Any:
        return _Call(self, arguments, options)

    # Streams and states are those of the current channel: services only make unary calls.

    def unary_stream(self, *arguments: Any, **options: Any) -> Any:
        return self.current().unary_stream(*arguments, **options)

    def stream_unary(self, *arguments: Any, **options: Any) -> Any:
        return self.current().stream_unary(*arguments, **options)

    def stream_stream(self, *arguments: Any, **options: Any) -> Any:
        return self.current().stream_stream(*arguments, **options)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self.current().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self.current().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self.current().channel_ready()

    async def __aenter__(self) -> "RenewedChannel":
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()


class _Call(UnaryUnaryMultiCallable[Any, Any]):
    """One method; made anew for each channel."""

    def __init__(self, channel: RenewedChannel, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        self._channel = channel
        self._arguments = arguments
        self._options = options
        self._made_for: Channel | None = None
        self._call: Any = None

    def __call__(self, request: Any, **options: Any) -> Any:
        channel = self._channel.current()
        if channel is not self._made_for:
            self._made_for, self._call = channel, channel.unary_unary(*self._arguments, **self._options)
        return self._call(request, **options)
