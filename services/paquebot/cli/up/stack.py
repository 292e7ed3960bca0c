"""Starts a local platform in order (engines, schemas, services) and stops it in the opposite order."""

import asyncio
import http.client
import socket
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from functools import partial

from paquebot.cli.engines.engine import Engine, EngineError, PortClaim, check_ports, kill_when_stuck, start_engine
from paquebot.cli.engines.files import write_durably
from paquebot.cli.engines.ports import LOOPBACK
from paquebot.cli.engines.process import ManagedProcess, ProcessCommand
from paquebot.cli.up.certificate import ensure_certificate
from paquebot.cli.up.environment import DATABASE, PlatformPlan
from paquebot.cli.up.layout import SERVICES, UpError
from paquebot.cli.up.supervisor import PrintLine, Supervisor
from paquebot.queue import Queue
from paquebot.queue.stream import ensure_stream
from paquebot.runtime.engine_settings import NatsSettings
from paquebot.runtime.postgres.migrations import bootstrap_roles, make_database, migrate
from paquebot.runtime.settings import load

_READY_SECONDS = 60.0
_POLL_SECONDS = 0.05
_SERVICE_STOP_SECONDS = 15.0
_CERTIFICATE_CHECK_SECONDS = 12 * 3600.0


@dataclass(slots=True)
class Stack:
    """One local platform. `await start()`, then it runs until `await stop()`. `step` gets a line for each step of the
    start, `say` a line for each later event."""

    plan: PlatformPlan
    step: PrintLine
    say: PrintLine
    supervisor: Supervisor = field(init=False)
    _watching: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.supervisor = Supervisor(self.say)

    async def start(self, *, services: bool = True) -> None:
        """Returns when every service is ready; without `services`, when the engines are ready and the schemas up to
        date. Raises UpError, after stopping what it started."""
        try:
            await self._check_ports()
            self.plan.layout.prepare_socket()
            await self._start_engines()
            await self._prepare()
            if services:
                await self._start_services()
        except EngineError as error:
            await self.stop()
            raise UpError(str(error)) from None
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop the services first, so that they drain while the engines still run."""
        await self.supervisor.stop(SERVICES, ("nats", "s3", "postgres"))
        for watching in self._watching:
            watching.cancel()
        for path in self.plan.s3.stray_sockets():
            path.unlink(missing_ok=True)

    async def _check_ports(self) -> None:
        claims = [PortClaim(owner, LOOPBACK, port, option) for owner, port, option in self.plan.ports.claims()]
        await check_ports(claims)

    async def _start_engines(self) -> None:
        engines: tuple[Engine, ...] = (self.plan.nats, self.plan.s3, self.plan.postgres)
        results = await asyncio.gather(*(self._start_engine(engine) for engine in engines), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _start_engine(self, engine: Engine) -> None:
        async def start() -> ManagedProcess:
            process = await start_engine(engine, self.plan.layout.logs)
            watching = asyncio.create_task(kill_when_stuck(engine, process, self.say))
            self._watching.add(watching)
            watching.add_done_callback(self._watching.discard)
            return process

        await self.supervisor.keep_running(engine.name, start)
        self.step(f"{engine.name} is ready")

    async def _prepare(self) -> None:
        """Create database, roles, schemas, stream and certificate, or bring them up to date."""
        plan = self.plan
        await make_database(plan.postgres.dsn(DATABASE))
        await bootstrap_roles(plan.postgres.dsn(), plan.secrets.roles)
        versions = await migrate(plan.postgres.dsn(DATABASE))
        shown = ", ".join(f"{name} {version}" for name, version in versions.items())
        self.step(f"database schemas are up to date ({shown})")
        client = plan.client_environment()
        queue = await Queue.open(load(NatsSettings, client), "paquebot up")
        try:
            await ensure_stream(queue)
        finally:
            await queue.close()
        self._make_certificate(self.step)
        watching = asyncio.create_task(self._renew_certificate())
        self._watching.add(watching)
        text = "".join(f"{name}={value}\n" for name, value in client.items())
        write_durably(plan.layout.client_env, text)

    def _make_certificate(self, say: PrintLine) -> None:
        """Certificate for the platform's names, loopback, and this machine's name, which may change. Raises UpError."""
        plan, machine = self.plan, socket.gethostname()
        if plan.certificate != plan.layout.certificate:
            return
        names = (plan.hostname, plan.domain, "localhost", LOOPBACK, "::1")
        try:
            if created := ensure_certificate(plan.certificate, plan.layout.key, names, (machine,)):
                say(created)
        except (OSError, ValueError) as error:
            raise UpError(f"cannot create a certificate for {', '.join((*names, machine))}: {error}") from None

    async def _renew_certificate(self) -> None:
        """The services notice a new certificate themselves."""
        while True:
            await asyncio.sleep(_CERTIFICATE_CHECK_SECONDS)
            try:
                self._make_certificate(self.say)
            except UpError as error:
                self.say(str(error))

    async def _start_services(self) -> None:
        for service in SERVICES:
            await self.supervisor.keep_running(service, partial(self._start_service, service))
        await asyncio.gather(*(self._wait_ready(service) for service in SERVICES))

    async def _start_service(self, service: str) -> ManagedProcess:
        plan = self.plan
        command = ProcessCommand(
            argv=(sys.executable, "-m", "paquebot", service.replace("_", "-")),
            cwd=plan.layout.data,
            env=plan.service_environment(service),
            stop_seconds=_SERVICE_STOP_SECONDS,
        )
        process = ManagedProcess(service, command, plan.layout.logs)
        await process.start()
        return process

    async def _wait_ready(self, service: str) -> None:
        url = f"http://{LOOPBACK}:{self.plan.ports.services.metrics(service)}/readyz"
        log = self.plan.layout.logs / f"{service}.log"
        reason = "no answer"
        try:
            async with asyncio.timeout(_READY_SECONDS):
                while reason:
                    reason = await asyncio.to_thread(_unready, url)
                    if exited := self.supervisor.last_exit(service):  # a service that fails at the start fails again
                        raise UpError(f"{service} {exited} (see {log})")
                    if reason:
                        await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            text = f"{service} was not ready after {_READY_SECONDS:g} s ({reason}); see {log}"
            raise UpError(text) from None
        self.step(f"{service} is ready")


def _unready(url: str) -> str:
    """Why the service is not ready; empty: it is ready."""
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own loopback URL
            return ""
    except urllib.error.HTTPError as error:
        with error:
            return error.read(500).decode("utf-8", "replace").strip().replace("\n", "; ") or str(error.code)
    except (TimeoutError, OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
