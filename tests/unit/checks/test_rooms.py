"""docs/architecture.md describes each room of each package, and no other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
SERVICES = ROOT / "services" / "paquebot"


def _written() -> set[str]:
    """`package/room` of each row of the table."""
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rows = re.findall(
        r"^\| (?:`(\w+)`)? ?\| ((?:`\w+`(?:, )?)+) \|", text.partition("### Rooms")[2].partition("\n## ")[0], re.M
    )
    found, package = set(), ""
    for name, rooms in rows:
        package = name or package
        found |= {f"{package}/{room}" for room in re.findall(r"\w+", rooms)}
    return found


def test_every_room_is_in_the_table() -> None:
    packages = (path.parent.relative_to(SERVICES) for path in SERVICES.glob("*/*/__init__.py"))
    assert _written() == {path.as_posix() for path in packages if path.parts[0] != "v1" and path.name != "migrations"}
