"""What password hashes took goes back to the system. In a process of its own: memory is the whole process's."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import asyncio, time
from paquebot.runtime.process.malloc import keep_one_arena
keep_one_arena()
from paquebot.recipient_validation.hashing import Hashing
from paquebot.recipient_validation.settings import HashSettings
from paquebot.runtime.settings import load

def mib(field):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field)) / 1024

async def main():
    hashing = Hashing(load(HashSettings, {"PAQUEBOT_ARGON2_PASSES": "1"}))
    before = mib("VmRSS:")
    await asyncio.gather(*(hashing.hash(f"password {number}") for number in range(20)))
    most = mib("VmHWM:")
    deadline = time.monotonic() + 20
    while mib("VmRSS:") > before + 8 and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    print(most - before > 15, mib("VmRSS:") - before < 8)
    hashing.close()

asyncio.run(main())
"""


def test_memory_of_hashes_goes_back() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert (run.stdout, run.stderr) == ("True True\n", "")
