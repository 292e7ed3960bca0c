"""The drills in short: a few messages of each kind, each exactly once after every loss."""

from __future__ import annotations

from pathlib import Path

from tests.drill.__main__ import drills


async def test_a_platform_comes_back_after_each_loss(tmp_path: Path) -> None:
    rebuilt, restored = await drills(tmp_path, 10, quiet=True)
    assert (rebuilt.accepted, rebuilt.restored, rebuilt.lost) == (20, 20, 0)
    assert (restored.accepted, restored.restored, restored.lost) == (40, 30, 10)
