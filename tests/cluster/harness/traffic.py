"""Mail that flows while something happens to the platform, and the account of every single attempt afterwards."""

from __future__ import annotations

import collections
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.harness.commands import run, until
from tests.cluster.harness.place import start
from tests.cluster.harness.release import Release

CLIENTS = Path(__file__).resolve().parents[1] / "clients"
DOMAIN = "paquebot.test"
ELSEWHERE = "elsewhere.test"


@dataclass(slots=True)
class Client:
    """A program on the outside host, and the lines that it writes."""

    process: subprocess.Popen[str]
    log: Path

    def rows(self) -> list[dict[str, Any]]:
        if not self.log.exists():
            return []
        # The last line may be half written.
        return [json.loads(line) for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def end(self, seconds: float = 240.0) -> None:
        """Ask it to end and wait until it did. Raises AssertionError when it failed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        said, _ = self.process.communicate(timeout=seconds)
        assert self.process.returncode == 0, f"{self.process.args!r}: {said}"

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def client(release: Release, program: str, log: Path, *arguments: object) -> Client:
    command = release.place.outside(sys.executable, CLIENTS / f"{program}.py", *arguments, "--log", log)
    return Client(start(command), log)


def sink(release: Release, log: Path) -> Client:
    """The mail server of another domain: `paquebot sink` outside the cluster. A row is a message that it answered
    with 250."""
    command = release.place.outside(
        sys.executable, "-m", "paquebot", "sink", "--listen", f"{release.place.outside_address}:25", "--anywhere",
        "--domain", ELSEWHERE, "--max-size", "1MiB", "--json", "--header", "X-Attempt",
    )  # fmt: skip
    with log.open("a", encoding="utf-8") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, text=True)
    return Client(process, log)


@dataclass(frozen=True, slots=True)
class Figures:
    """What became of the mail of one sender or several."""

    mails: int
    attempts: int
    temporary: int
    unknown: int
    refused: tuple[str, ...]
    accepted: frozenset[str]
    unanswered: frozenset[str]
    rejected: frozenset[str]
    slowest: float

    @classmethod
    def of(cls, rows: Iterable[dict[str, Any]]) -> Figures:
        every = list(rows)
        by: dict[str, set[str]] = collections.defaultdict(set)
        for row in every:
            by[row["outcome"]].add(row["attempt"])
        return cls(
            mails=len({row["mail"] for row in every}),
            attempts=len(every),
            temporary=len(by["temporary"]),
            unknown=len(by["unknown"]),
            refused=tuple(f"{row['mail']}: {row['reply']}" for row in every if row["outcome"] == "permanent"),
            accepted=frozenset(by["accepted"]),
            unanswered=frozenset(by["unknown"]),
            rejected=frozenset(by["temporary"] | by["permanent"]),
            slowest=max((row["seconds"] for row in every), default=0.0),
        )


@dataclass(frozen=True, slots=True)
class Account:
    """The mailbox against the senders' logs."""

    missing: frozenset[str]
    twice: frozenset[str]
    uninvited: frozenset[str]
    """There, although the reply said that it was not taken."""

    @classmethod
    def settle(cls, figures: Figures, found: Iterable[str]) -> Account:
        counts = collections.Counter(found)
        return cls(
            missing=frozenset(figures.accepted - counts.keys()),
            twice=frozenset(attempt for attempt, count in counts.items() if attempt and count > 1),
            uninvited=frozenset(figures.rejected & counts.keys()),
        )

    def __bool__(self) -> bool:
        """Whether something is wrong."""
        return bool(self.missing or self.twice or self.uninvited)


@dataclass(slots=True)
class Traffic:
    """Mail into the MX port, mail from a client to accounts here and elsewhere, and IMAP clients that look on."""

    release: Release
    directory: Path
    relayed: bool
    mx: Client = field(init=False)
    submission: Client = field(init=False)
    watcher: Client = field(init=False)
    sink: Client | None = field(init=False, default=None)

    def begin(self, mark: str, connections: int = 3, pause: float = 0.1) -> None:
        release, authority = self.release, self.release.authority(self.directory)
        alice, bob = f"alice@{DOMAIN}", f"bob@{DOMAIN}"
        smtp, imap = release.address("smtp-ingress"), release.address("imap")
        pace = ("--connections", connections, "--pause", pause)
        if self.relayed:
            self.sink = sink(release, self.directory / f"{mark}-sink.log")
            self._wait_sink()
        self.mx = client(
            release, "sender", self.directory / f"{mark}-mx.log", smtp, 25, "--mark", f"{mark}-mx",
            "--recipient", alice, "--recipient", bob, *pace,
        )  # fmt: skip
        elsewhere = ("--recipient", f"friend@{ELSEWHERE}") if self.relayed else ()
        self.submission = client(
            release, "sender", self.directory / f"{mark}-submission.log", smtp, 587, "--mark", f"{mark}-sub",
            "--sender", alice, "--login", f"{alice}:{release.demo_password}", "--authority", authority,
            "--recipient", bob, *elsewhere, *pace,
        )  # fmt: skip
        self.watcher = client(
            release, "watcher", self.directory / f"{mark}-imap.log", imap, "--authority", authority,
            "--password", release.demo_password, "--user", alice, "--user", bob,
        )  # fmt: skip
        self.wait_flowing(0)

    def _wait_sink(self) -> None:
        """Mail that finds no host comes again minutes later, and the mail behind it rests as long."""
        asking = f"import socket; socket.create_connection(({self.release.place.outside_address!r}, 25), 5)"
        look = self.release.place.outside(sys.executable, "-c", asking)
        until("the other domain's host listens", lambda: run(look, check=False).returncode == 0, 60)

    def accepted(self) -> int:
        rows = [*self.mx.rows(), *self.submission.rows()]
        return sum(row["outcome"] == "accepted" for row in rows)

    def wait_flowing(self, more: int = 20, seconds: float = 120.0) -> None:
        """So many mails more were accepted at each of both entrances."""
        for entrance in (self.mx, self.submission):
            before = sum(row["outcome"] == "accepted" for row in entrance.rows())
            until(
                "mail flows",
                lambda entrance=entrance, before=before: (  # type: ignore[misc]
                    sum(row["outcome"] == "accepted" for row in entrance.rows()) > before + more
                ),
                seconds,
            )

    def end_sending(self) -> Figures:
        self.mx.end()
        self.submission.end()
        return Figures.of([*self.mx.rows(), *self.submission.rows()])

    def attempts_to(self, domain: str) -> Figures:
        rows = [*self.mx.rows(), *self.submission.rows()]
        return Figures.of(row for row in rows if row["recipient"].endswith(f"@{domain}"))

    def kill(self) -> None:
        for one in (self.mx, self.submission, self.watcher, self.sink):
            if one:
                one.kill()


def inbox(release: Release, directory: Path, user: str) -> tuple[int, dict[int, str]]:
    """UIDVALIDITY of the account's INBOX, and UID to X-Attempt of all in it, read over IMAP from outside."""
    command = release.place.outside(
        sys.executable, CLIENTS / "watcher.py", release.address("imap"), "--authority", release.authority(directory),
        "--user", f"{user}@{DOMAIN}", "--password", release.demo_password, "--log", "/dev/null", "--once",
    )  # fmt: skip
    answer = json.loads(run(command, seconds=120).stdout)
    return answer["validity"], {int(uid): attempt for uid, attempt in answer["messages"].items()}


def settle(release: Release, directory: Path, figures: Figures, seconds: float = 120.0) -> Account:
    """Wait until all accepted mail is in the mailboxes of alice and bob; the account then, right or wrong."""

    def look() -> bool:
        found = [a for user in ("alice", "bob") for a in inbox(release, directory, user)[1].values()]
        last[0] = Account.settle(figures, found)
        return not last[0].missing

    last = [Account(figures.accepted, frozenset(), frozenset())]
    with contextlib.suppress(AssertionError):
        until("all mail in its mailbox", look, seconds, every=2.0)
    return last[0]
