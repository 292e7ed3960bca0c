"""The frame of every service process: settings, logs, metrics, health, and a drain that ends in time.

A service module has `async def main(context: Context, settings: S) -> None`, which opens what it needs, marks
itself started, serves until `context.draining` is set, then finishes what is under way and returns. `run`
does the rest: SIGTERM or SIGINT begins the drain; one that lasts longer than PAQUEBOT_DRAIN is cut off.
"""

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import uvloop

from paquebot.observability import log, metrics
from paquebot.runtime.engines import ProcessSettings
from paquebot.runtime.health import Health, HealthServer
from paquebot.runtime.settings import SettingsError, load

_log = log.Log("paquebot")


class HasProcess(Protocol):
    """A service's settings class has the settings of its process as `process`."""

    @property
    def process(self) -> ProcessSettings: ...


S = TypeVar("S", bound=HasProcess)
Main = Callable[["Context", S], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Context:
    """What the frame gives to a service."""

    name: str
    health: Health
    draining: asyncio.Event

    def started(self) -> None:
        """The listeners are open, the consumers run: from now on readiness is what the probes say."""
        self.health.started = True
        _log.info("started")


def run(name: str, settings_class: type[S], main: Main[S], environ: Mapping[str, str] = os.environ) -> int:
    """Run a service process to its end; returns the exit code: 0 drained, 1 failed, 2 wrong settings."""
    try:
        settings = load(settings_class, environ)
    except SettingsError as error:
        for fault in error.faults:
            print(f"paquebot {name}: {fault}", file=sys.stderr)
        return 2
    process = settings.process
    log.set_up(name, level=process.log_level, addresses=process.log_addresses)
    metrics.set_build_info(name)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_frame(name, settings, main))


async def _frame(name: str, settings: S, main: Main[S]) -> int:
    context = Context(name, Health(), asyncio.Event())
    server = HealthServer(context.health, settings.process.metrics_listen)
    try:
        await server.start()
    except OSError as error:
        _log.error("metrics_listen_failed", address=str(settings.process.metrics_listen), reason=str(error.strerror))
        return 1
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _begin_drain, context)
    try:
        return await _serve(context, settings, main)
    finally:
        await server.stop()


def _begin_drain(context: Context) -> None:
    if not context.draining.is_set():
        _log.info("draining")
        metrics.DRAINING.set(1)
        context.health.draining = True
        context.draining.set()


async def _serve(context: Context, settings: S, main: Main[S]) -> int:
    """Run `main`; after the drain began it has the drain time, no more."""
    task = asyncio.ensure_future(main(context, settings))
    drain = asyncio.ensure_future(context.draining.wait())
    await asyncio.wait((task, drain), return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        await asyncio.wait((task,), timeout=settings.process.drain)
    drain.cancel()
    if not task.done():
        _log.warning("drain_cut_off", after_seconds=settings.process.drain)
        task.cancel()
        await asyncio.wait((task,), timeout=2.0)
        return 1
    if task.cancelled():
        return 1
    if error := task.exception():
        _log.error("failed", error="".join(traceback.format_exception(error)))
        return 1
    _log.info("ended")
    return 0
