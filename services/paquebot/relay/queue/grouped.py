"""Calls to an engine made together: what is asked for in the same moment, or while a call is under way, shares the
next call. A lone asker waits for nobody."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")


class Grouped(Generic[Ask, Answer]):
    """`call` answers a group, in order, with an answer or an exception each; what it raises is for all of the group.
    At most `calls` are under way at once, each of at most `most` askers."""

    def __init__(
        self, call: Callable[[Sequence[Ask]], Awaitable[Sequence[Answer | Exception]]], *, calls: int, most: int
    ) -> None:
        self._call = call
        self._calls = calls
        self._most = most
        self._waiting: list[tuple[Ask, asyncio.Future[Answer]]] = []
        self._under_way: set[asyncio.Task[None]] = set()
        self._planned = False

    async def ask(self, what: Ask) -> Answer:
        """The answer, or the exception, that the group's call has for `what`."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((what, future))
        self._plan()
        return await future

    def _plan(self) -> None:
        if self._waiting and not self._planned and len(self._under_way) < self._calls:
            self._planned = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        self._planned = False
        group, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        task = asyncio.create_task(self._run(group))
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        self._plan()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._plan()

    async def _run(self, group: list[tuple[Ask, asyncio.Future[Answer]]]) -> None:
        answers: Sequence[Answer | Exception]
        try:
            answers = await self._call([what for what, _ in group])
        except Exception as error:  # noqa: BLE001 - passed on, not swallowed: every asker raises it
            answers = [error] * len(group)
        for (_, future), answer in zip(group, answers, strict=True):
            if future.done():  # its asker was cancelled
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
