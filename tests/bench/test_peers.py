"""The private Postfix and Dovecot leave nothing behind, however they end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.peers import lacking
from tests.bench.session import open_directory

_SECONDS = 20.0
_START = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.bench.peers import peers_running
from tests.bench.processes import family

async def main():
    async with peers_running(Path(sys.argv[1]) / "p", "bench.test", 1) as peers:
        print(*(pid for root in peers.roots().values() for pid in family(root)), flush=True)
        if sys.argv[2] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    if reason := lacking():
        pytest.skip(reason)
    with open_directory() as path:
        yield path


_ROOT = Path(__file__).parents[2]


def _exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_they_end_with_the_process_that_started_them(directory: Path, how: str) -> None:
    starter = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _START, str(directory), how),
        stdout=asyncio.subprocess.PIPE,
        cwd=_ROOT,
    )
    async with asyncio.timeout(_SECONDS):
        output, _ = await starter.communicate()
        pids = [int(pid) for pid in output.split()]
        assert len(pids) > 5
        while any(_exists(pid) for pid in pids):
            await asyncio.sleep(0.02)
    assert starter.returncode == (0 if how == "stopped" else -9)
