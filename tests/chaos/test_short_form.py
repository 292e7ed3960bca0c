"""The short form of `make chaos`: one fault of each main class, in a process of its own, with a fixed seed."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.chaos.schedule import short_form

_ROOT = Path(__file__).parents[2]
_SECONDS = 400.0


@pytest.mark.timeout(_SECONDS + 20)
async def test_nothing_acknowledged_is_lost_or_doubled_whatever_is_killed(tmp_path: Path) -> None:
    figures = tmp_path / "chaos.json"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chaos", "--short", "--seed", "short"),
        *("--data", str(tmp_path / "data"), "--json", str(figures)),
        cwd=_ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(_SECONDS):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode()
    shutil.rmtree(tmp_path / "data")
    found = json.loads(figures.read_text())
    assert found["findings"] == []
    assert found["lost"] == 0
    assert len(found["faults"]) == len(short_form())
    assert found["ended accepted"] >= 100
    assert found["kept for a remote recipient"] > 0
    assert found["failures reported to the sender"] > 0
    assert found["bodies with other bytes than were sent"] == 0
    assert found["lies of S3"] > 0
    assert found["probes answered while an engine was away"] > 0
    for way in ("IMAP", "POP3", "relay"):
        assert found[f"bodies compared: {way}"] > 0
