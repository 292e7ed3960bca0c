"""The chart's memory limits, for processes of this machine.

Each service goes into a memory cgroup of its own with the limit that `charts/paquebot/values.yaml` gives its pod, where
this process may make one (root, cgroup v1 or v2): the kernel then ends a service that needs more, as Kubernetes does.
Elsewhere nothing is enforced and the peak of each process is compared with the limit. The peak is that of resident
memory (VmHWM) in both cases.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.bench.processes import family
from tests.e2e.platforms import Platform

_VALUES = Path(__file__).parents[2] / "charts" / "paquebot" / "values.yaml"
_KEYS = {
    "smtp_ingress": "smtpIngress",
    "recipient_validation": "recipientValidation",
    "delivery": "delivery",
    "relay": "relay",
    "imap": "imap",
    "pop3": "pop3",
}
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_ROOT = Path("/sys/fs/cgroup")


def chart_limits() -> dict[str, int]:
    """Bytes that the chart lets each service's pod have."""
    values = yaml.safe_load(_VALUES.read_text("utf-8"))
    return {name: _bytes(values[key]["resources"]["limits"]["memory"]) for name, key in _KEYS.items()}


def chart_settings() -> dict[str, str]:
    """What goes with these limits: the bytes of messages that a service may have in memory."""
    values = yaml.safe_load(_VALUES.read_text("utf-8"))
    return {"PAQUEBOT_IN_FLIGHT": values["smtpIngress"]["inFlight"]}


def _bytes(quantity: str) -> int:
    return int(quantity[:-2]) * _UNITS[quantity[-2:]]


@dataclass(slots=True)
class Limits:
    """`enforced`: the kernel holds each service to its limit."""

    platform: Platform
    memory_bytes: Mapping[str, int]
    enforced: bool = False
    _pids: dict[str, int] = field(default_factory=dict)

    def pids(self) -> dict[str, int]:
        return {name: self.platform.stack.supervisor.pid(name) for name in self.memory_bytes}

    def begin(self) -> None:
        """Forget the peaks so far."""
        self._pids = self.pids()
        for pid in self._pids.values():
            for member in family(pid):
                with contextlib.suppress(OSError):
                    Path(f"/proc/{member}/clear_refs").write_text("5")

    def peaks(self) -> dict[str, float]:
        """The most resident memory of each service since `begin`, in MiB."""
        return {name: sum(_peak(member) for member in family(pid)) for name, pid in self._pids.items()}

    def broken(self) -> list[str]:
        """Services that ended since `begin`, or needed more than their limit."""
        now, peaks = self.pids(), self.peaks()
        ended = [f"{name} ended" for name, pid in self._pids.items() if now[name] != pid]
        return ended + [
            f"{name} needed {peaks[name]:.0f} MiB" for name in now if peaks[name] * 2**20 > self.memory_bytes[name]
        ]


def _peak(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0  # ended meanwhile
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


@contextlib.contextmanager
def limited(platform: Platform) -> Iterator[Limits]:
    """Hold the platform's services to their limits for the time of the block, as far as this process may."""
    limits = Limits(platform, chart_limits())
    made: list[Path] = []
    try:
        for name, pid in limits.pids().items():
            made.append(_cgroup(f"paquebot-attack-{os.getpid()}-{name}", limits.memory_bytes[name], family(pid)))
        limits.enforced = True
    except OSError:
        limits.enforced = False
    limits.begin()
    try:
        yield limits
    finally:
        for path in made:
            _dissolve(path)


def _cgroup(name: str, memory_bytes: int, pids: list[int]) -> Path:
    """Raises OSError where this process may not."""
    first = (_ROOT / "memory").is_dir()  # version 1
    path = (_ROOT / "memory" if first else _ROOT) / name
    path.mkdir()
    (path / ("memory.limit_in_bytes" if first else "memory.max")).write_text(str(memory_bytes))
    for pid in pids:
        (path / "cgroup.procs").write_text(str(pid))
    return path


def _dissolve(path: Path) -> None:
    """Its processes go back to the group above; a group without any can be removed."""
    with contextlib.suppress(OSError):
        for pid in (path / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (path.parent / "cgroup.procs").write_text(pid)
        path.rmdir()
