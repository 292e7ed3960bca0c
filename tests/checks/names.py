"""Refuses two public classes of one name: `python -m tests.checks.names`.

A name that several services give to the same role is listed in `ROLES` with the reason. The stubs in `paquebot.v1` are
left out: protoc writes them.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

SERVICES = Path(__file__).parents[2] / "services" / "paquebot"

ROLES: Mapping[str, str] = {
    "Session": "the command loop of one client, in each protocol's service",
    "SessionEnd": "why a session ended, in each protocol's service",
    "SessionSettings": "the limits of one session, in each protocol's service",
    "ServerContext": "what the sessions of a process share, in each protocol's service",
    "ListenSettings": "the listeners of a service",
    "Reply": "what a handler returns to its session, in each protocol's own form",
    "LoginResult": "label values of the login metric, in each service that logs clients in",
    "StateLabel": "label values of a session's state, in each protocol's own states",
    "List": "the LIST command of IMAP and of POP3: the standards' name",
    "Noop": "the NOOP command of each protocol: the standards' name",
}
"""Names that several modules may have, each with its reason."""


def public_classes(root: Path) -> Iterator[tuple[str, Path]]:
    """(name, file) of each public class at the top level of a module below `root`."""
    for path in sorted(root.rglob("*.py")):
        if "v1" in path.relative_to(root).parts:
            continue
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield node.name, path


def collisions(root: Path, roles: Mapping[str, str] = ROLES) -> Iterator[str]:
    """One sentence for each name that several modules below `root` give to a class, and `roles` does not list."""
    found: dict[str, list[Path]] = defaultdict(list)
    for name, path in public_classes(root):
        found[name].append(path)
    for name, paths in sorted(found.items()):
        if len(paths) > 1 and name not in roles:
            yield f"{name} is a class in {' and in '.join(str(path.relative_to(root)) for path in paths)}"


def main() -> None:
    if faults := list(collisions(SERVICES)):
        sys.exit("\n".join([*faults, "give each class a name of its own, or list the role in tests/checks/names.py"]))


if __name__ == "__main__":
    main()
