"""A short form of `make attack`: while others attack, ordinary clients are served, no service needs more memory than
its pod has, and what is not for strangers is not given to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attack import checks
from tests.attack.attacks import ATTACKS
from tests.attack.field import field_of
from tests.attack.measure import first_message, observed

SECONDS = 1.0
SLOW_TO_PREPARE = ("SEARCH BODY of 200 MiB", "LIST of 64 patterns")
"""Hundreds of MiB, or of mailboxes: `make attack` alone."""


@pytest.mark.timeout(300)
async def test_ordinary_clients_are_served_under_attack(tmp_path: Path) -> None:
    async with field_of(tmp_path) as place:
        await first_message(place)
        attacks = [attack for attack in ATTACKS if attack.name not in SLOW_TO_PREPARE]
        pairs = [attacks[start : start + 2] for start in range(0, len(attacks), 2)]
        for together in ([], *pairs, []):
            found = await observed(place, together, SECONDS)
            assert found.broken == [], found
            assert found.failed == 0, (found.attack, found.failures)
        assert [one async for one in checks.findings(place, checks.QUICK) if one.wrong] == []
