"""Every log event of the services is a name of plain words, by which dashboards and runbooks find it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import paquebot

SERVICES = Path(paquebot.__file__).parent
LEVELS = ("debug", "info", "warning", "error", "exception")
NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")


def events() -> Iterator[tuple[str, str]]:
    """(place, event) of each call of a module's `_log` with a literal event."""
    for path in sorted(SERVICES.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="_log"), attr=level), args=[ast.Constant(value=str(event)), *_]
                ) if level in LEVELS:
                    yield f"{path.relative_to(SERVICES)}:{node.lineno}", event


@pytest.mark.slow
def test_each_event_is_a_name() -> None:
    found = list(events())
    assert len(found) > 100
    assert [(place, event) for place, event in found if not NAME.fullmatch(event)] == []
