"""Calls to an engine, made together: requests that come at the same moment, or while calls are under way, share the
next call. A lone request does not wait."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Request = TypeVar("Request")
Answer = TypeVar("Answer")


def _one(_request: object) -> int:
    return 1


def _never(_error: Exception) -> bool:
    return False


class Batcher(Generic[Request, Answer]):
    """`call` answers a batch, in order, with an answer or an exception for each request; an exception that it raises
    is the answer to each of them.

    At most `calls` are under way at once. The sizes of a batch's requests add up to at most `limit`; a larger request
    has a batch of its own. Where `retries_alone` says so of what `call` raised, `call` is made again for each request
    alone, so that one bad request does not fail the others.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Request]], Awaitable[Sequence[Answer | Exception]]],
        *,
        calls: int,
        limit: int,
        size: Callable[[Request], int] = _one,
        retries_alone: Callable[[Exception], bool] = _never,
    ) -> None:
        self._call = call
        self._calls = calls
        self._limit = limit
        self._size = size
        self._retries_alone = retries_alone
        self._waiting: deque[tuple[Request, asyncio.Future[Answer]]] = deque()
        self._under_way: set[asyncio.Task[None]] = set()
        self._planned = False

    async def ask(self, request: Request) -> Answer:
        """The answer to `request`. Raises the exception that answers it."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        self._plan()
        return await future

    def _plan(self) -> None:
        if self._waiting and not self._planned and len(self._under_way) < self._calls:
            self._planned = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        self._planned = False
        if not (batch := self._next_batch()):
            return
        task = asyncio.create_task(self._run(batch))
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        self._plan()

    def _next_batch(self) -> list[tuple[Request, asyncio.Future[Answer]]]:
        """The oldest requests; a request whose caller was cancelled is dropped."""
        batch: list[tuple[Request, asyncio.Future[Answer]]] = []
        total = 0
        while self._waiting:
            request, future = self._waiting[0]
            if not future.done():
                total += self._size(request)
                if batch and total > self._limit:
                    break
                batch.append((request, future))
            self._waiting.popleft()
        return batch

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._plan()

    async def _run(self, batch: list[tuple[Request, asyncio.Future[Answer]]]) -> None:
        answers: Sequence[Answer | Exception]
        try:
            answers = await self._call([request for request, _ in batch])
        except Exception as error:  # noqa: BLE001 - passed on, not swallowed: each caller raises it
            if len(batch) > 1 and self._retries_alone(error):
                for entry in batch:
                    await self._run([entry])
                return
            answers = [error] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():  # its caller was cancelled
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
