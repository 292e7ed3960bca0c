"""Tasks that nobody awaits: kept alive to their end, and none ends with an error that nobody sees.

The event loop holds its tasks weakly, and tells of an error only when a task that failed is thrown away, which may be
never. Tasks that somebody awaits, and those of a TaskGroup, need none of this.
"""

import asyncio
import traceback
from collections.abc import Coroutine
from typing import Any, TypeVar

from paquebot.observability.log import Log
from paquebot.observability.metrics import Bounded, counter

FAILURES = counter(
    "paquebot_task_failures_total",
    "Background tasks that ended with an error that was not foreseen",
    {"task": Bounded("the names of tasks in the code, and `other`")},
)

_log = Log("paquebot.tasks")
_running: set[asyncio.Task[Any]] = set()

T = TypeVar("T")


def background(work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """A task of its own. Its error is logged and counted under `name`; cancel it, or let it end."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    _running.add(task)
    task.add_done_callback(_ended)
    FAILURES.labels(name)
    return task


def _ended(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        _tell(task.get_name(), error)


def watch_loop_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Log and count what the loop itself finds: errors of callbacks, and of tasks that were thrown away unawaited."""
    FAILURES.labels("other")
    loop.set_exception_handler(_on_loop_error)


def _on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if isinstance(error, BaseException):
        _tell("other", error)
    else:
        FAILURES.labels("other").inc()
        _log.error("loop_error", message=str(context.get("message", "")))


def _tell(name: str, error: BaseException) -> None:
    FAILURES.labels(name).inc()
    _log.error("task_failed", task=name, error="".join(traceback.format_exception(error)))
