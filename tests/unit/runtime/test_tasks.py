"""Errors of background tasks are reported, and the code starts no task in another way."""

import ast
import asyncio
import gc
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import paquebot
from paquebot.runtime.process.tasks import background, in_background, watch_loop_errors
from tests.support.counted import value

pytestmark = pytest.mark.slow

SERVICES = Path(paquebot.__file__).parent
GROUPS = {"group", "batches"}
"""Names of TaskGroups in the code: they raise what their tasks raise."""
AWAITED = {
    "blobs/store.py": "probes await it; its exception is read when none does",
    "cli/engines/command.py": "awaited with asyncio.wait, its result read",
    "cli/up/command.py": "awaited with asyncio.wait, its result read",
    "cli/up/stack.py": "awaited when the stack ends",
    "cli/up/supervisor.py": "awaited when its process is ended",
    "delivery/consumer.py": "awaited with asyncio.wait, its result read",
    "delivery/worker.py": "awaited at the end of the block",
    "imap/bodies/body_cache.py": "raises nothing: what goes wrong is an outcome of a read",
    "imap/mailbox_view/feed.py": "sessions await it; its exception is read when none does",
    "mailstore/messages/reader.py": "awaited for the next batch",
    "pop3/prefetch.py": "sessions await it; its exception is read when none does",
    "relay/queue/consumer.py": "awaited with asyncio.wait, results read",
    "relay/queue/slots.py": "awaited at the drain; attempts end in `RelayWorker.work`, which raises nothing",
    "runtime/batching.py": "raises nothing: an error is the answer to each caller",
    "runtime/postgres/migrations.py": "awaited with asyncio.wait, its result read",
    "runtime/process/health.py": "raises nothing: what goes wrong is the answer",
    "runtime/process/service.py": "awaited with asyncio.wait, its result read",
    "runtime/net/server.py": "its errors are reported when it ends",
}


def beginnings(tree: ast.AST) -> Iterator[int]:
    """Return the lines that start a task outside a TaskGroup."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in ("create_task", "ensure_future", "run_coroutine_threadsafe"):
                owner = node.func.value
                if not (isinstance(owner, ast.Name) and owner.id in GROUPS):
                    yield node.lineno


def test_every_task_is_awaited_or_begun_in_the_background() -> None:
    found = {
        str(path.relative_to(SERVICES)): lines
        for path in SERVICES.rglob("*.py")
        if path != SERVICES / "runtime" / "process" / "tasks.py"
        and (lines := list(beginnings(ast.parse(path.read_text()))))
    }
    new = {place: lines for place, lines in found.items() if place not in AWAITED}
    assert new == {}, "await these tasks, or start them with runtime.tasks.background"
    assert AWAITED.keys() <= found.keys(), "these no longer start a task"


async def fail() -> None:
    raise ZeroDivisionError


async def test_an_error_of_a_background_task_is_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    before = value("paquebot_task_failures_total", task="trial") or 0.0
    with caplog.at_level(logging.ERROR):
        await asyncio.wait((background(fail(), "trial"),))
        await asyncio.sleep(0)
    assert value("paquebot_task_failures_total", task="trial") == before + 1
    assert [record.message for record in caplog.records] == ["task_failed"]


async def test_a_cancelled_background_task_is_no_failure() -> None:
    task = background(asyncio.Event().wait(), "cancelled")
    task.cancel()
    await asyncio.wait((task,))
    assert value("paquebot_task_failures_total", task="cancelled") == 0


async def test_tasks_of_a_block_run_until_its_end(caplog: pytest.LogCaptureFixture) -> None:
    running, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.set()

    with caplog.at_level(logging.ERROR):
        async with in_background(work=work(), fail=fail()):
            await asyncio.wait_for(running.wait(), 5)
            assert not ended.is_set()
    assert ended.is_set(), "the end of the block waits for what it cancels"
    assert [record.message for record in caplog.records] == ["task_failed"], "an error is logged, not raised"


async def test_a_background_task_lives_without_a_reference() -> None:
    end, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await end.wait()
        ended.set()

    background(work(), "kept")
    await asyncio.sleep(0)
    gc.collect()
    end.set()
    await ended.wait()


async def test_errors_that_the_loop_reports_are_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    watch_loop_errors(loop)
    try:
        before = value("paquebot_task_failures_total", task="other") or 0.0
        with caplog.at_level(logging.ERROR):
            task = asyncio.ensure_future(fail())
            await asyncio.wait((task,))
            del task
            gc.collect()
        assert value("paquebot_task_failures_total", task="other") == before + 1
        assert "task_failed" in [record.message for record in caplog.records]
    finally:
        loop.set_exception_handler(handler)
