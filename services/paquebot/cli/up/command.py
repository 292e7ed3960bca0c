"""The command `paquebot up`."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from paquebot.cli.admin.connection import DEFAULT_DATA
from paquebot.cli.demo.accounts import DEMO_READER, DEMO_SENDER, ensure_demo
from paquebot.cli.roundtrip.route import local_route
from paquebot.cli.roundtrip.trip import TimedStep, round_trip
from paquebot.cli.up.environment import PlatformPlan
from paquebot.cli.up.guide import addresses, examples, mail_programs
from paquebot.cli.up.layout import Layout, Ports, UpError
from paquebot.cli.up.stack import Stack
from paquebot.wire.address import BadAddress, normal_domain

# For `paquebot up` itself; every other PAQUEBOT_* variable is passed on to every service.
_NOT_PASSED_ON = ("PAQUEBOT_DATA",)


def up(
    data: Annotated[
        Path, typer.Option(envvar="PAQUEBOT_DATA", help="Data directory: mail, database, queue, logs.")
    ] = DEFAULT_DATA,
    once: Annotated[
        bool, typer.Option("--once", help="Stop after the round trip; the exit code is 0 when it succeeded.")
    ] = False,
    demo: Annotated[
        bool, typer.Option("--demo/--no-demo", help="Create the demo domain and send a first message.")
    ] = True,
    port: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=NUMBER",
            help=f"Port of a listener, as in --port smtp=25; repeat it for several. Names: {', '.join(Ports.names())}.",
        ),
    ] = None,
    hostname: Annotated[str, typer.Option(help="Host name of the platform.")] = "mail.paquebot.test",
    domain: Annotated[str, typer.Option(help="The demo domain.")] = "paquebot.test",
    engines_only: Annotated[
        bool, typer.Option("--engines-only", help="Start no service: to restore a backup, or for recover --rebuild.")
    ] = False,
) -> None:
    """Run the whole platform on this machine: three engines, six services and a demo domain.

    The first start creates everything; later starts keep all mail. Ctrl-C stops it. PAQUEBOT_* settings in the
    environment are passed on to every service.
    """
    console = Console(stderr=False, highlight=False, soft_wrap=True)
    try:
        code = asyncio.run(
            _up(console, data.absolute(), _ports(port or []), hostname, domain, _Choices(once, demo, engines_only))
        )
    except UpError as error:
        console.print(f"[bold red]paquebot up:[/] {error}")
        code = 1
    sys.exit(code)


def _ports(options: list[str]) -> Ports:
    numbers: dict[str, int] = {}
    for option in options:
        name, _, number = option.partition("=")
        if not number.isdecimal():
            raise UpError(f"--port {option} is not NAME=NUMBER, as in --port smtp=25")
        numbers[name] = int(number)
    return Ports().moved(numbers)


@dataclass(frozen=True, slots=True)
class _Choices:
    """What happens after the start."""

    once: bool
    demo: bool
    engines_only: bool


async def _up(console: Console, data: Path, ports: Ports, hostname: str, domain: str, choices: _Choices) -> int:
    begin = time.perf_counter()
    try:
        normal_domain(domain)
    except BadAddress as error:
        raise UpError(f"--domain: {error}") from None
    layout = Layout(data)
    lock = layout.lock()
    overrides = {k: v for k, v in os.environ.items() if k.startswith("PAQUEBOT_") and k not in _NOT_PASSED_ON}
    plan = PlatformPlan(layout, ports, layout.secrets(), hostname, domain, overrides)

    def step(text: str) -> None:
        console.print(f"[dim]{time.perf_counter() - begin:6.2f} s[/]  {text}")

    stack = Stack(plan, step, lambda text: console.print(f"[yellow]{time.strftime('%H:%M:%S')}[/] {text}"))
    stop = _on_signals()
    try:
        if not await _unless_stopped(stop, stack.start(services=not choices.engines_only)):
            return 130
        if choices.engines_only:
            step(f"the engines are ready, without services; data in {data}")
            await stop.wait()
            return 0
        step(f"the platform is ready; data in {data}")
        if choices.demo:
            await _demo(console, plan, step)
        if not choices.once:
            console.print(addresses(plan))
            console.print(mail_programs(plan))
            console.print(examples(plan))
            await stop.wait()
            console.print("stopping: the services drain, then the engines stop")
        return 0
    finally:
        await stack.stop()
        os.close(lock)


def _on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _unless_stopped(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Await the work; False: a signal came first, and the work was cancelled."""
    task, waiter = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait((task, waiter), return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()
    if not task.done():
        task.cancel()
        await asyncio.wait((task,))
        return False
    await task
    return True


async def _demo(console: Console, plan: PlatformPlan, step: Callable[[str], None]) -> None:
    if await ensure_demo(plan):
        step(f"domain {plan.domain} with accounts {DEMO_SENDER} and {DEMO_READER} made")
    console.print()

    def say(timed: TimedStep) -> None:
        console.print(f"[green]{timed.seconds * 1000:6.0f} ms[/]  {timed.what}")

    await asyncio.to_thread(round_trip, local_route(plan), say)
    console.print()
