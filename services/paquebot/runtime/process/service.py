"""What every service process does: settings, logs, metrics, health, and a drain that ends in time.

A service module has `async def main(context: Context, settings: S) -> None`: it opens what it needs, calls
`context.started`, serves until `context.draining` is set, then finishes what is under way and returns. `run` does the
rest. SIGTERM or SIGINT begins the drain. When it lasts longer than PAQUEBOT_DRAIN, the process exits, whatever its
tasks and threads still wait for. With PAQUEBOT_WORKERS there are several such processes.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import uvloop

from paquebot.observability import log, metrics, trace
from paquebot.runtime.engine_settings import ProcessSettings
from paquebot.runtime.process.health import Health, HealthServer
from paquebot.runtime.process.health_aggregator import HealthAggregator
from paquebot.runtime.process.malloc import keep_one_arena
from paquebot.runtime.process.tasks import background, watch_loop_errors
from paquebot.runtime.process.worker_pool import WorkerPool
from paquebot.runtime.settings import Listen, SettingsError, load

_log = log.Log("paquebot")
_LOOP_SECONDS = 0.5
_SWITCH_SECONDS = 0.0005
"""How long a thread that parses a large message keeps the interpreter while others wait for it. A call of an engine
needs it some ten times: with Python's default of 5 ms and several such threads, calls took a second."""
_CANCEL_SECONDS = 2.0  # for clean-up after the cut-off
_GUARD_SECONDS = 4.0  # after the drain time: the event loop itself is stuck, or threads are at the exit


class HasProcess(Protocol):
    """A service's settings class."""

    @property
    def process(self) -> ProcessSettings: ...


S = TypeVar("S", bound=HasProcess)
Main = Callable[["Context", S], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Context:
    """What a service's `main` gets."""

    name: str
    health: Health
    draining: asyncio.Event

    def started(self) -> None:
        """The listeners are open and the consumers run: from now on the probes decide readiness."""
        self.health.started = True
        _log.info("service_started")


def run(name: str, settings_class: type[S], main: Main[S], environ: Mapping[str, str] = os.environ) -> int:
    """Run a service process to its end; returns the exit code: 0 drained, 1 failed, 2 wrong settings."""
    try:
        settings = load(settings_class, environ)
    except SettingsError as error:
        return _wrong_settings(name, error)
    process = settings.process
    log.set_up(name, level=process.log_level, addresses=process.log_addresses)
    keep_one_arena()
    sys.setswitchinterval(_SWITCH_SECONDS)
    if process.workers == 1:
        return _process(name, settings, main, process.metrics_listen)
    work = partial(_worker, name, settings, main)
    return WorkerPool(work, partial(_aggregate, process.metrics_listen), process.workers).run()


def _process(name: str, settings: S, main: Main[S], health: Sequence[Listen] | socket.socket) -> int:
    try:
        _set_up_trace(name, settings.process)
    except SettingsError as error:
        return _wrong_settings(name, error)
    metrics.set_build_info(name)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_run_main(name, settings, main, health))
    finally:
        trace.close()


def _worker(name: str, settings: S, main: Main[S], number: int, health: socket.socket) -> int:
    with log.ids(worker=number):
        return _process(name, settings, main, health)


def _aggregate(listen: Sequence[Listen], workers: Sequence[bytes]) -> int:
    """Answer for the workers until it is killed."""

    async def answer() -> int:
        if await _open_health(server):
            await asyncio.Event().wait()
        return 1

    server = HealthServer(HealthAggregator(workers), listen)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(answer())


def _set_up_trace(name: str, process: ProcessSettings) -> None:
    """Raises SettingsError."""
    try:
        trace.set_up(name, endpoint=process.trace_endpoint, sample=process.trace_sample)
    except trace.ExtraMissing:
        raise SettingsError(
            ["PAQUEBOT_TRACE_ENDPOINT is set, but OpenTelemetry is not installed: pip install 'paquebot[trace]'"]
        ) from None


def _wrong_settings(name: str, error: SettingsError) -> int:
    for fault in error.faults:
        print(f"paquebot {name}: {fault}", file=sys.stderr)
    return 2


async def _open_health(server: HealthServer) -> bool:
    """Open the health port; False: it cannot be opened, which is logged."""
    try:
        await server.start()
    except OSError as error:
        _log.error("metrics_listen_failed", address=server.address, reason=str(error.strerror))
        return False
    return True


async def _run_main(name: str, settings: S, main: Main[S], health: Sequence[Listen] | socket.socket) -> int:
    context = Context(name, Health(), asyncio.Event())
    server = HealthServer(context.health, health)
    if not await _open_health(server):
        return 1
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _begin_drain, context, settings.process.drain)
    watch_loop_errors(loop)
    watching = background(_watch_loop(), "loop_delay")
    try:
        return await _serve(context, settings, main)
    finally:
        watching.cancel()
        await server.stop()


async def _watch_loop() -> None:
    loop = asyncio.get_running_loop()
    while True:
        start = loop.time()
        await asyncio.sleep(_LOOP_SECONDS)
        metrics.LOOP_DELAY.observe(max(0.0, loop.time() - start - _LOOP_SECONDS))


def _begin_drain(context: Context, seconds: float) -> None:
    if not context.draining.is_set():
        _end_within(seconds)
        _log.info("drain_started")
        metrics.DRAINING.set(1)
        context.health.draining = True
        context.draining.set()


def _end_within(seconds: float) -> None:
    """Exit the process after the drain time and little more, even when its event loop is blocked, or when it waits for
    threads at its exit."""
    guard = threading.Timer(seconds + _GUARD_SECONDS, os._exit, (1,))  # no log line: its lock may be what is stuck
    guard.daemon = True
    guard.start()


async def _serve(context: Context, settings: S, main: Main[S]) -> int:
    """Run `main`, at most the drain time after the drain began."""
    task = asyncio.ensure_future(main(context, settings))
    drain = asyncio.ensure_future(context.draining.wait())
    await asyncio.wait((task, drain), return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        await asyncio.wait((task,), timeout=settings.process.drain)
    drain.cancel()
    if not task.done():
        _log.warning("drain_timed_out", after_seconds=settings.process.drain)
        task.cancel()
        await asyncio.wait((task,), timeout=_CANCEL_SECONDS)
        logging.shutdown()
        # A return would wait for every remaining task and thread.
        os._exit(1)
    if not context.draining.is_set():
        _end_within(settings.process.drain)
    return _exit_code(context.name, task)


def _exit_code(name: str, task: asyncio.Future[None]) -> int:
    if task.cancelled():
        return 1
    error = task.exception()
    if isinstance(error, SettingsError):  # found when it was used, such as a file that is not a certificate
        return _wrong_settings(name, error)
    if error is not None:
        _log.error("service_failed", error="".join(traceback.format_exception(error)))
        return 1
    _log.info("service_exited")
    return 0
