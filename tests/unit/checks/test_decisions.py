"""tests.checks.decisions: records have one form, and the index names each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checks.decisions import all_faults, index

GOOD = """# 0007: Workers are forked

Accepted 2026-11-25.

## Context

A process uses one core.

## Decision

Fork.

## Alternatives

- Threads: they share the interpreter's lock.

## Consequences

Limits are those of a worker.
"""


def _folder(tmp_path: Path, text: str, name: str = "0007-workers.md") -> Path:
    (tmp_path / name).write_text(text, "utf-8")
    (tmp_path / "README.md").write_text(index(tmp_path), "utf-8")
    return tmp_path


def test_the_records_of_this_project_have_one_form() -> None:
    assert list(all_faults()) == []


def test_a_good_record_has_no_fault(tmp_path: Path) -> None:
    assert list(all_faults(_folder(tmp_path, GOOD))) == []
    assert "| [0007](0007-workers.md) | Workers are forked | 2026-11-25 |\n" in index(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("# 0007: Workers", "# 7. Workers", "line 1"),
        ("are forked\n", "are forked.\n", "line 1"),
        ("Accepted 2026-11-25.", "Status: good", "line 3"),
        ("## Alternatives\n\n- Threads: they share the interpreter's lock.\n", "", "headings"),
        ("## Context", "## Why", "headings"),
        ("Fork.\n", "", "no text below '## Decision'"),
        ("Limits are those of a worker.\n", "", "no text below '## Consequences'"),
    ],
)
def test_another_form_is_refused(tmp_path: Path, old: str, new: str, fault: str) -> None:
    found = list(all_faults(_folder(tmp_path, GOOD.replace(old, new))))
    assert len(found) == 1
    assert fault in found[0]


def test_two_records_of_one_number_are_refused(tmp_path: Path) -> None:
    _folder(tmp_path, GOOD, "0007-other.md")
    (fault,) = all_faults(_folder(tmp_path, GOOD))
    assert "same number" in fault


def test_an_index_that_misses_a_record_is_refused(tmp_path: Path) -> None:
    _folder(tmp_path, GOOD)
    (tmp_path / "0008-more.md").write_text(GOOD.replace("0007", "0008"), "utf-8")
    (fault,) = all_faults(tmp_path)
    assert "make decisions" in fault
