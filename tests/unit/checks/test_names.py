"""tests.checks.names: each public class has a unique name."""

from __future__ import annotations

from pathlib import Path

from tests.checks.names import collisions


def _write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def test_two_public_classes_of_one_name_are_refused(tmp_path: Path) -> None:
    _write(tmp_path, "imap/one.py", "class Outcome: ...\n")
    _write(tmp_path, "relay/two.py", "class Outcome: ...\n")
    assert list(collisions(tmp_path)) == ["Outcome is a class in imap/one.py and in relay/two.py"]


def test_a_listed_role_may_be_in_several_modules(tmp_path: Path) -> None:
    _write(tmp_path, "imap/one.py", "class Session: ...\n")
    _write(tmp_path, "pop3/two.py", "class Session: ...\n")
    assert list(collisions(tmp_path, {"Session": "one for each protocol"})) == []
    assert len(list(collisions(tmp_path, {}))) == 1


def test_private_nested_and_generated_classes_do_not_count(tmp_path: Path) -> None:
    _write(tmp_path, "imap/one.py", "class _Row: ...\nclass Pack:\n    class Entry: ...\n")
    _write(tmp_path, "relay/two.py", "class _Row: ...\nclass Entry: ...\n")
    _write(tmp_path, "v1/three.py", "class Pack: ...\n")
    assert list(collisions(tmp_path)) == []
