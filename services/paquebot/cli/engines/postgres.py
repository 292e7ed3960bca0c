"""PostgreSQL with every durability setting on: fsync, synchronous_commit, full_page_writes, data checksums.

Data directory: `cluster/` (PostgreSQL's own), `postgresql.conf` and `pg_hba.conf` (rewritten at each start).
`cluster/` gets its name by one rename after initdb has finished, so a killed initdb leaves only `cluster.new`.

Besides its port it listens on a UNIX socket in `cluster/`, if the file system supports one there: a statement over it
costs a fifth to a third less CPU on both sides.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import asyncpg

from paquebot.cli.engines.binaries import postgres_directory
from paquebot.cli.engines.engine import POLL_SECONDS, EngineError, EngineNotReady, PortClaim
from paquebot.cli.engines.files import make_directory, sync_directory, write_durably
from paquebot.cli.engines.ports import DEFAULT_PORTS, LOOPBACK, EnginePorts, option
from paquebot.cli.engines.privilege import ProcessCredentials, unprivileged
from paquebot.cli.engines.process import ProcessCommand, run_to_end

SUPERUSER = "postgres"
MAX_CONNECTIONS = 200
_TIMEOUT_SECONDS = 2.0
_PREDECESSOR_SECONDS = 10.0  # timeout for the exit of an earlier postmaster's processes
_INITDB_SECONDS = 120.0

_SETTINGS = """\
listen_addresses = '{host}'
port = {port}
unix_socket_directories = '{sockets}'
hba_file = '{hba}'
max_connections = {max_connections}
password_encryption = 'scram-sha-256'

fsync = on
synchronous_commit = on
full_page_writes = on

shared_buffers = '64MB'
max_wal_size = '512MB'
min_wal_size = '32MB'
wal_compression = 'pglz'

timezone = 'UTC'
log_timezone = 'UTC'
lc_messages = 'C'
log_line_prefix = '%m [%p] %q%u@%d '
"""
_HOST_BASED_AUTHENTICATION = """\
host all all 0.0.0.0/0 scram-sha-256
host all all ::/0 scram-sha-256
local all all scram-sha-256
"""


@dataclass(slots=True, frozen=True)
class PostgresEngine:
    """A single PostgreSQL. `password` is the superuser's; changing it here does not change it in the database."""

    data_dir: Path
    password: str
    ports_used: EnginePorts = DEFAULT_PORTS
    host: str = LOOPBACK

    @property
    def name(self) -> str:
        return "postgres"

    def dsn(self, database: str = "postgres") -> str:
        """The superuser's connection URL, over TCP."""
        return self.role_dsn(SUPERUSER, self.password, database)

    def role_dsn(self, role: str, password: str, database: str) -> str:
        """The connection URL of a role, over TCP."""
        return _dsn(role, password, f"{LOOPBACK}:{self.ports_used.postgres}", database)

    def socket_dsn(self, role: str, password: str, database: str) -> str:
        """The same over the UNIX socket, if the running engine has one."""
        if not self._socket.is_socket():
            return self.role_dsn(role, password, database)
        directory = quote(str(self._cluster.absolute()), safe="")
        return f"{_dsn(role, password, '', database)}?host={directory}&port={self.ports_used.postgres}"

    def ports(self) -> tuple[PortClaim, ...]:
        return (PortClaim("PostgreSQL", self.host, self.ports_used.postgres, option("postgres")),)

    async def prepare(self) -> None:
        programs = postgres_directory()
        make_directory(self.data_dir)
        credentials = unprivileged(programs / "postgres")
        if self._cluster.exists():
            self._check_version(programs)
            await self._clear_stale_lock()
        else:
            await self._initialise(programs, credentials)
        credentials.take(self._cluster)
        # Kubernetes gives the pod's group access to a volume at each mount (fsGroup), which PostgreSQL refuses.
        self._cluster.chmod(0o700)
        self._write_settings(credentials)

    def command(self) -> ProcessCommand:
        program = postgres_directory() / "postgres"
        return ProcessCommand(
            argv=(str(program), "-D", str(self._cluster), "-c", f"config_file={self._settings_file}"),
            cwd=self.data_dir,
            env={"LC_ALL": "C", "TZ": "UTC"},
            prefix=unprivileged(program).prefix,
            stop_signal=signal.SIGINT,  # "fast": ends sessions, writes a checkpoint
            stop_seconds=30.0,
            # "immediate": the postmaster also ends its backends; the next start recovers from the log.
            death_signal=signal.SIGQUIT,
        )

    async def probe(self) -> None:
        """Log in over TCP with the password and run a SELECT."""
        try:
            connection = await asyncpg.connect(self.dsn(), timeout=_TIMEOUT_SECONDS, ssl=False)
        except asyncpg.InvalidPasswordError as fault:
            text = f"PostgreSQL refuses the superuser's password: was {self.data_dir} made with another one?"
            raise EngineError(text) from fault
        except (OSError, TimeoutError, asyncpg.PostgresError) as fault:
            raise EngineNotReady(f"{type(fault).__name__}: {fault}") from fault
        try:
            await connection.fetchval("SELECT 1", timeout=_TIMEOUT_SECONDS)
        finally:
            await connection.close(timeout=_TIMEOUT_SECONDS)

    async def stuck(self) -> str:
        """PostgreSQL exits by itself when it cannot go on."""
        return ""

    async def _initialise(self, programs: Path, credentials: ProcessCredentials) -> None:
        new = self.data_dir / "cluster.new"
        password_file = self.data_dir / "password.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        write_durably(password_file, self.password + "\n")
        os.chown(password_file, credentials.owner, credentials.owner)
        os.chown(new, credentials.owner, credentials.owner)
        try:
            await self._run_initdb(programs, credentials, new, password_file)
        finally:
            password_file.unlink()
        new.rename(self._cluster)
        sync_directory(self.data_dir)

    async def _run_initdb(
        self, programs: Path, credentials: ProcessCredentials, target: Path, password_file: Path
    ) -> None:
        initdb = (
            str(programs / "initdb"),
            f"--pgdata={target}",
            f"--username={SUPERUSER}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--data-checksums",
        )
        async with asyncio.timeout(_INITDB_SECONDS):
            status, output = await run_to_end(initdb, self.data_dir, credentials.prefix)
        if status != 0:
            raise EngineError(f"initdb failed in {target}: {_reason(output)}")

    def _check_version(self, programs: Path) -> None:
        try:
            found = (self._cluster / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            text = f"{self._cluster} is not a PostgreSQL data directory: move it away or give another --data"
            raise EngineError(text) from None
        version = subprocess.run(  # noqa: S603  (a program of the wheel, no shell)
            [programs / "postgres", "--version"], capture_output=True, text=True, check=True, cwd="/"
        ).stdout
        ours = version.split()[2].partition(".")[0]
        if found != ours:
            raise EngineError(
                f"{self._cluster} was made by PostgreSQL {found} but {ours} is installed: "
                f"install PostgreSQL {found}, or dump and restore with pg_dumpall, or give another --data"
            )

    async def _clear_stale_lock(self) -> None:
        """Wait for the processes of an earlier postmaster, then remove its locks and sockets.

        After a SIGKILL of the postmaster its backends need a moment to notice, and no new one can start before that.
        PostgreSQL removes stale locks itself, except when another process has the same pid by now, which is common in
        a container, where pids are few.
        """
        lock = self._cluster / "postmaster.pid"
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PREDECESSOR_SECONDS
        while lock.exists() and (pids := _residents(self._cluster)):
            if loop.time() > deadline:
                raise EngineError(f"another PostgreSQL (process {pids[0]}) runs on {self._cluster}: stop it first")
            await asyncio.sleep(POLL_SECONDS)
        for left in (lock, *self._cluster.glob(".s.PGSQL.*")):
            left.unlink(missing_ok=True)

    def _write_settings(self, credentials: ProcessCredentials) -> None:
        # PostgreSQL takes :: for IPv6 alone, unlike the other engines.
        host = "*" if self.host == "::" else self.host
        values = {"host": host, "port": self.ports_used.postgres, "hba": self._authentication_file}
        sockets = "." if takes_socket(self._socket) else ""  # relative to the cluster
        settings = _SETTINGS.format(max_connections=MAX_CONNECTIONS, sockets=sockets, **values)
        files = ((self._settings_file, settings), (self._authentication_file, _HOST_BASED_AUTHENTICATION))
        for path, text in files:
            write_durably(path, text)
            os.chown(path, credentials.owner, credentials.owner)

    @property
    def _cluster(self) -> Path:
        return self.data_dir / "cluster"

    @property
    def _socket(self) -> Path:
        return self._cluster / f".s.PGSQL.{self.ports_used.postgres}"

    @property
    def _settings_file(self) -> Path:
        return self.data_dir / "postgresql.conf"

    @property
    def _authentication_file(self) -> Path:
        return self.data_dir / "pg_hba.conf"


def _dsn(role: str, password: str, host: str, database: str) -> str:
    return f"postgresql://{role}:{quote(password, safe='')}@{host}/{quote(database, safe='')}"


def takes_socket(path: Path) -> bool:
    """Whether a socket can have this path: some file systems support none, and the maximum length is 107 bytes."""
    try:
        with socket.socket(socket.AF_UNIX) as trial:
            trial.bind(str(path.absolute()))
    except OSError:
        return False
    path.unlink()
    return True


def _residents(cluster: Path) -> list[int]:
    """The PostgreSQL processes of a cluster: each has it as its current directory."""
    home = cluster.stat()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.joinpath("comm").read_text() == "postgres\n":
                cwd = process.joinpath("cwd").stat()
                if (cwd.st_dev, cwd.st_ino) == (home.st_dev, home.st_ino):
                    found.append(int(process.name))
        except OSError:
            continue  # it exited meanwhile, or belongs to another user
    return sorted(found)


def _reason(output: bytes) -> str:
    """The line of initdb's output that names the error."""
    lines = [line for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    named = [line for line in lines if "error:" in line]
    reason = (named or lines or ["no output"])[-1]
    if "could not look up effective user ID" in reason:
        return f"{reason}; give this numeric uid an entry in /etc/passwd"
    return reason
