"""CPU time of families of processes: those that ended count, and nothing is lost to rounding."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from tests.bench.processes import cpu_seconds, family, pss_mib

# Burns 4 ms, less than a tick of /proc, and prints how much CPU time it took in all.
_BURN = "import time\nwhile time.process_time() < {seconds}: pass\nprint(time.process_time(), flush=True)"
_PARENT = """
import subprocess, sys
for seconds in sys.argv[2:]:
    subprocess.run([sys.executable, "-I", "-S", "-c", sys.argv[1].replace("{seconds}", seconds)])
living = [subprocess.Popen([sys.executable, "-I", "-S", "-c", sys.argv[1].replace("{seconds}", "0") +
          "\\ninput()"], stdin=subprocess.PIPE) for _ in range(3)]
input()
for process in living:
    process.communicate(b"\\n")
"""


@pytest.fixture
def parent() -> subprocess.Popen[str]:
    """Has waited for two children, and has three that wait."""
    argv = [sys.executable, "-I", "-S", "-c", _PARENT, _BURN, "0.2", "0.1"]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_the_time_of_living_and_ended_children_counts(parent: subprocess.Popen[str]) -> None:
    with parent:
        assert parent.stdout is not None
        told = [float(parent.stdout.readline()) for _ in range(5)]
        members = family(parent.pid)
        spent = cpu_seconds({"all": parent.pid})["all"]
        memory = pss_mib({"all": parent.pid})["all"]
        parent.communicate("\n")
    assert len(members) == 4
    assert spent >= sum(told) - 0.02  # the children that exited are counted in ticks, cut off
    assert spent < sum(told) + 5
    assert memory > 4


def test_own_time_is_finer_than_a_tick() -> None:
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE)
    with process:
        found = {cpu_seconds({"it": process.pid})["it"] for _ in range(3)}
        process.communicate(b"\n")
    assert any(round(seconds, 2) != seconds for seconds in found)


def test_a_process_that_is_gone_is_an_error() -> None:
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", ""])
    process.wait()
    start = time.monotonic()
    with pytest.raises(RuntimeError, match="come and go"):
        cpu_seconds({"it": process.pid})
    assert time.monotonic() - start < 5
