"""A short form of `make attack`: while others attack, ordinary clients are served, and memory stays within bounds."""

from __future__ import annotations

from pathlib import Path

import pytest
from platforms import running

from attack.attacks import ATTACKS
from attack.measure import first_message, observed

SECONDS = 1.5
_MIB_A_SLOW_CLIENT = 0.06
_MIB_AT_ONCE = 60.0
"""What a few large messages may take while they are read, checked and stored."""


@pytest.mark.timeout(180)
async def test_ordinary_clients_are_served_under_attack(tmp_path: Path) -> None:
    async with running(tmp_path, "paquebot.test") as platform:
        await first_message(platform)
        await observed(platform, None, SECONDS)
        pids = {name: platform.stack.supervisor.pid(name) for name in ("smtp_ingress", "imap", "pop3")}
        for attack in ATTACKS:
            found = await observed(platform, attack, SECONDS)
            assert found.failed == 0, found
            assert all(p99 < float("inf") for _, p99 in (found.smtp, found.imap, found.pop3)), found
            assert found.grown_mib < _MIB_AT_ONCE + attack.clients * _MIB_A_SLOW_CLIENT, found
        assert {name: platform.stack.supervisor.pid(name) for name in pids} == pids, "a service ended"
        after = await observed(platform, None, SECONDS)
        assert after.failed == 0
        assert after.grown_mib < _MIB_AT_ONCE
