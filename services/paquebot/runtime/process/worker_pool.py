"""Several processes of one service on the same ports (PAQUEBOT_WORKERS), for a machine with cores to spare.

A parent forks the workers and the health aggregator, waits for them, and passes SIGTERM on. It runs no event loop and
no thread, so it can fork again at any time, and all share the memory of what it has imported. The aggregator answers on
the health port for all workers (`runtime.process.health_aggregator`). Each worker listens on the service's ports with
SO_REUSEPORT.

Invariants: a worker killed by a signal is started again with back-off; one that exits with a code ends the service with
that code, as a single process would; all end with the parent, by the kernel's death signal.
"""

import contextlib
import ctypes
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from paquebot.observability.log import Log

_log = Log("paquebot.workers")
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
_FIRST_DELAY = 0.5
_MAX_DELAY = 30.0
_GOOD_AFTER = 60.0  # a worker that lived this long gets the first delay again
_BACKLOG = 64
AGGREGATOR = 0
"""The health aggregator's number; workers have 1 and up."""

Work = Callable[[int, socket.socket], int]
"""Runs a worker: its number, and the listening socket for its health. Returns its exit code."""
Aggregate = Callable[[Sequence[bytes]], int]
"""Runs the health aggregator: the addresses of the workers' health sockets. Returns its exit code."""


@dataclass(slots=True)
class _Child:
    number: int
    pid: int = 0
    began: float = 0.0
    delay: float = _FIRST_DELAY
    due: float | None = None
    """When to start it again."""


@dataclass(slots=True)
class WorkerPool:
    """For the parent. `run` returns the exit code of the service when every worker has ended."""

    work: Work
    aggregate: Aggregate
    workers: int
    _sockets: list[socket.socket] = field(default_factory=list)
    _children: dict[int, _Child] = field(default_factory=dict)
    _ending: bool = False
    _code: int = 0

    def run(self) -> int:
        self._sockets = [_health_socket(number) for number in range(1, self.workers + 1)]
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        gc.collect()
        gc.freeze()  # a collection in a worker would copy the pages that all share
        for number in range(self.workers + 1):
            self._children[number] = _Child(number)
            self._start(self._children[number])
        while self._alive():
            self._wait()
        self._end_aggregator()
        return self._code

    def _alive(self) -> bool:
        waiting = not self._ending and any(child.due is not None for child in self._children.values())
        return waiting or any(child.pid for child in self._children.values() if child.number != AGGREGATOR)

    def _wait(self) -> None:
        """Wait for the next signal or the next start, and do what it asks for."""
        due = [child.due for child in self._children.values() if child.due is not None and not self._ending]
        if due:
            received = signal.sigtimedwait(_SIGNALS, max(0.0, min(due) - time.monotonic()))
        else:
            received = signal.sigwaitinfo(_SIGNALS)
        if received is not None and received.si_signo != signal.SIGCHLD:
            self._end_workers()
        self._reap()
        for child in self._children.values():
            if child.due is not None and child.due <= time.monotonic() and not self._ending:
                self._start(child)

    def _start(self, child: _Child) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        child.began, child.due = time.monotonic(), None
        parent = os.getpid()
        pid = os.fork()
        if pid:
            child.pid = pid
            return
        code = 1
        try:
            _follow(parent)
            code = self._run_child(child.number)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def _run_child(self, number: int) -> int:
        if number == AGGREGATOR:
            return self.aggregate([found.getsockname() for found in self._sockets])
        return self.work(number, self._sockets[number - 1])

    def _reap(self) -> None:
        """Handle every child that ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for child in self._children.values():
                if child.pid == pid:
                    self._ended(child, os.waitstatus_to_exitcode(status))

    def _ended(self, child: _Child, code: int) -> None:
        child.pid = 0
        if self._ending:
            if child.number != AGGREGATOR:
                self._code = self._code or abs(code)
            return
        if code >= 0:
            self._code = code
            self._end_workers()
            return
        now = time.monotonic()
        child.delay = _FIRST_DELAY if now - child.began > _GOOD_AFTER else child.delay
        _log.error("worker_exited", worker=child.number, signal=-code, restart_in_seconds=child.delay)
        child.due = now + child.delay
        child.delay = min(2 * child.delay, _MAX_DELAY)

    def _end_workers(self) -> None:
        """Each has its own drain time, and a guard over it."""
        self._ending = True
        for child in self._children.values():
            if child.number != AGGREGATOR:
                _send(child.pid, signal.SIGTERM)

    def _end_aggregator(self) -> None:
        """Last, as it reports the drain of all others."""
        pid = self._children[AGGREGATOR].pid
        if pid:
            _send(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _health_socket(number: int) -> socket.socket:
    """An abstract one, as a pod's file system may be read-only. It stays open here for the worker's successors."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"\0paquebot-{os.getpid()}-{number}")
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def _follow(parent: int) -> None:
    """In a child: end with the parent, and receive signals as any process does."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _send(pid: int, number: signal.Signals) -> None:
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
