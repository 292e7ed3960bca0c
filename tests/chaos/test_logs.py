"""Logs of a chaos run: faults of the program are found among errors that an engine's absence explains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.chaos.logs import faults_of_the_program

TRACEBACK = "Traceback (most recent call last):\n  File 'x', line 1\n{}\n"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (json.dumps({"event": "call_failed", "error": TRACEBACK.format("KeyError: 6")}), "call_failed: KeyError: 6"),
        (json.dumps({"event": "asyncio", "text": "Task exception was never retrieved"}), "never retrieved"),
        ("Traceback (most recent call last):", "Traceback"),
        (json.dumps({"event": "call_failed", "error": TRACEBACK.format("a.b.PostgresUnavailable: usage")}), ""),
        (json.dumps({"event": "no KeyError here", "reason": "not a KeyError: at all"}), ""),
    ],
)
def test_a_fault_of_the_program_is_found(tmp_path: Path, line: str, fault: str) -> None:
    (tmp_path / "imap.log").write_text('{"event": "service_started"}\n')
    (tmp_path / "imap.log.1").write_text(f"{line}\n{line}\n")
    (tmp_path / "nats.log").write_text("Traceback\n")
    found = faults_of_the_program(tmp_path, ["imap"])
    assert [fault in one and one.startswith("imap: ") and "2 times" in one for one in found] == [True] * bool(fault)
