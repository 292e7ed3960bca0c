"""Starts a private Postfix and a private Dovecot, and ends them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import ssl
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from paquebot.cli.engines.process import ManagedProcess, ProcessCommand
from paquebot.cli.up.certificate import ensure_certificate
from tests.bench.peers.configuration import (
    MAIL_USER,
    Places,
    dovecot,
    postfix_mailboxes,
    postfix_main,
    postfix_master,
)
from tests.bench.rows import LOOPBACK, user
from tests.support.loopback import free_port

PASSWORD = "bench-of-boats"
_START_SECONDS = 20.0
_POLL_SECONDS = 0.05
_MASTER = "/usr/lib/postfix/sbin/master"
_DOVECOT = "/usr/sbin/dovecot"
_PROGRAMS = {
    "postfix": _MASTER,
    "dovecot-core": _DOVECOT,
    "dovecot-imapd": "/usr/lib/dovecot/imap",
    "dovecot-lmtpd": "/usr/lib/dovecot/lmtp",
}
"""Debian's packages, each with a program of it."""
# The kernel forgets the death signal of a process that changes its user for a moment, as Postfix's master does, so a
# shell gets the signal and passes it on. The master wants to lead its own session.
_FOLLOW = """\
setsid "$@" & pid=$!
trap 'kill "$pid"; wait "$pid"; exit' TERM
wait "$pid"
"""
_SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_LONGEST_SOCKET = 107  # bytes, struct sockaddr_un


class PeersError(Exception):
    """Postfix or Dovecot cannot run; one sentence that says what to do."""


def lacking() -> str:
    """What this machine lacks to run the two; empty: nothing."""
    missing = [package for package, program in _PROGRAMS.items() if not os.access(program, os.X_OK)]
    if missing:
        return f"{', '.join(missing)} not installed: run make bench-peers (Debian's packages, as root)"
    if os.geteuid() != 0:
        return "Postfix and Dovecot change to accounts of their own, so only root can run them"
    return ""


@dataclass(slots=True)
class Peers:
    """A private Postfix that delivers by LMTP to a private Dovecot (Maildir). A `rows.Side`."""

    places: Places
    domain: str
    accounts: int
    smtp_port: int = field(default_factory=free_port)
    imap_port: int = field(default_factory=free_port)
    imaps_port: int = field(default_factory=free_port)
    _postfix: ManagedProcess = field(init=False)
    _dovecot: ManagedProcess = field(init=False)

    @property
    def name(self) -> str:
        return "Postfix + Dovecot"

    @property
    def password(self) -> str:
        return PASSWORD

    @property
    def plain_imap_port(self) -> int:
        return self.imap_port

    def address(self, number: int) -> str:
        return f"{user(number)}@{self.domain}"

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.places.certificate))

    def roots(self) -> Mapping[str, int]:
        return {"postfix": self._postfix.pid, "dovecot": self._dovecot.pid}

    def maildir(self, number: int) -> Path:
        return self.places.mail / user(number)

    async def start(self) -> None:
        """Raises PeersError; nothing is left running then."""
        if reason := lacking():
            raise PeersError(reason)
        self._write_configuration()
        self._postfix, self._dovecot = self._processes()
        try:
            await self._dovecot.start()
            await self._postfix.start()
            await asyncio.gather(
                _greeting(self._postfix, self.smtp_port, b"220 "), _greeting(self._dovecot, self.imap_port, b"* OK ")
            )
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        await asyncio.gather(self._postfix.stop(), self._dovecot.stop())

    def _processes(self) -> tuple[ManagedProcess, ManagedProcess]:
        """Both stay in the foreground, so that each is the root of its family."""
        postfix = ("/bin/sh", "-c", _FOLLOW, "postfix", _MASTER, "-c", str(self.places.postfix), "-s")
        dovecot_ = (_DOVECOT, "-F", "-c", str(self.places.dovecot / "dovecot.conf"))
        return self._process("postfix", postfix), self._process("dovecot", dovecot_)

    def _process(self, name: str, argv: tuple[str, ...]) -> ManagedProcess:
        """SIGTERM lets both masters end their children, also when we die."""
        places, env = self.places, {"PATH": _SYSTEM_PATH}
        command = ProcessCommand(argv=argv, cwd=places.base, env=env, death_signal=signal.SIGTERM)
        return ManagedProcess(name, command, places.base / "output")

    def _write_configuration(self) -> None:
        places, owner = self.places, pwd.getpwnam(MAIL_USER)
        if len(os.fsencode(places.lmtp_socket)) > _LONGEST_SOCKET:
            raise PeersError(f"{places.base} is too long a path for a UNIX socket: give a shorter directory")
        for directory in (places.base, places.postfix, places.dovecot, places.queue, places.data, places.mail):
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o755)
        shutil.chown(places.data, "postfix")
        shutil.chown(places.mail, owner.pw_uid, owner.pw_gid)
        ensure_certificate(places.certificate, places.key, (f"mail.{self.domain}", "localhost", LOOPBACK))
        (places.postfix / "main.cf").write_text(postfix_main(places, self.domain))
        (places.postfix / "master.cf").write_text(postfix_master(self.smtp_port))
        (places.postfix / "mailboxes").write_text(postfix_mailboxes(self.domain, self.accounts))
        ports = (self.imap_port, self.imaps_port)
        text = dovecot(places, self.domain, *ports, PASSWORD, owner.pw_uid, owner.pw_gid)
        (places.dovecot / "dovecot.conf").write_text(text)
        _run("postmap", "-c", str(places.postfix), f"hash:{places.postfix}/mailboxes")
        _run("postfix", "-c", str(places.postfix), "check")  # makes the queue's directories


def _run(*argv: str) -> None:
    """Raises PeersError with what the program said."""
    done = subprocess.run(argv, capture_output=True, text=True, env={"PATH": _SYSTEM_PATH})
    if done.returncode:
        raise PeersError(f"{' '.join(argv)} failed: {(done.stderr or done.stdout).strip()}")


async def _greeting(process: ManagedProcess, port: int, wanted: bytes) -> None:
    """Wait for a server's first line. Raises PeersError."""
    try:
        async with asyncio.timeout(_START_SECONDS):
            while not await _greeted(port, wanted):
                if not process.running:
                    break
                await asyncio.sleep(_POLL_SECONDS)
            else:
                return
    except TimeoutError:
        pass
    raise PeersError(f"{process.name} did not start: {process.last_words()} (see {process.log} and the logs beside it)")


async def _greeted(port: int, wanted: bytes) -> bool:
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        with contextlib.closing(writer):
            return (await reader.readline()).startswith(wanted)
    return False


@asynccontextmanager
async def peers_running(directory: Path, domain: str, accounts: int = 100) -> AsyncIterator[Peers]:
    """A private Postfix and Dovecot in `directory`, which other accounts must be able to enter. Raises PeersError."""
    peers = Peers(Places(directory), domain, accounts)
    await peers.start()
    try:
        yield peers
    finally:
        await peers.stop()
