"""Background tasks: kept alive to their end, with every error logged and counted.

The event loop has weak references to its tasks, and reports an error only when a failed task is collected, which may be
never. Tasks that other code awaits, and those of a TaskGroup, need none of this.
"""

import asyncio
import contextlib
import traceback
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from paquebot.observability.log import Log
from paquebot.observability.metrics import Bounded, counter

FAILURES = counter(
    "paquebot_task_failures_total",
    "Background tasks that ended with an unexpected error",
    {"task": Bounded("the names of tasks in the code, and `other`")},
)

_log = Log("paquebot.tasks")
_running: set[asyncio.Task[Any]] = set()

T = TypeVar("T")


def background(work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """Start a task, whose error is logged and counted under `name`. Cancel it, or let it end."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    _running.add(task)
    task.add_done_callback(_ended)
    FAILURES.labels(name)
    return task


@contextlib.asynccontextmanager
async def in_background(**work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run each coroutine as the `background` task of its name until the end of the block."""
    tasks = [background(coroutine, name) for name, coroutine in work.items()]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _ended(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        report_failure(task.get_name(), error)


def watch_loop_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Log and count what the loop itself reports: errors of callbacks, and of tasks that no code awaited."""
    FAILURES.labels("other")
    loop.set_exception_handler(_on_loop_error)


def _on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if isinstance(error, BaseException):
        report_failure("other", error)
    else:
        FAILURES.labels("other").inc()
        _log.error("loop_error", message=str(context.get("message", "")))


def report_failure(name: str, error: BaseException) -> None:
    """Log and count the error of a task."""
    FAILURES.labels(name).inc()
    _log.error("task_failed", task=name, error="".join(traceback.format_exception(error)))
