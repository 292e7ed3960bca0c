"""The form of decision records and their index: `python -m tests.checks.decisions` checks, `--write` writes the index.

A record is docs/decisions/NNNN-words-of-the-title.md:

    # NNNN: Title

    Accepted YYYY-MM-DD.

    ## Context
    ## Decision
    ## Alternatives
    ## Consequences

Each heading comes once, in this order, with text below it; `###` headings may divide a section. A record that a later
one replaces says `Replaced by [NNNN](NNNN-....md) YYYY-MM-DD.` instead of `Accepted ...`; a sentence about records that
change it in part may follow on that line.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "decisions"
SECTIONS = ("Context", "Decision", "Alternatives", "Consequences")
_STATUS = re.compile(r"(Accepted|Replaced by \[\d{4}\]\(\d{4}-[a-z0-9-]+\.md\)) (\d{4}-\d{2}-\d{2})\.( .+)?")
_HEAD = """# Decision records

Why things are as they are: one page for each decision, with the rejected alternatives and the reasons. `make decisions`
writes this list; [CONTRIBUTING](../../CONTRIBUTING.md#a-decision-record) says how to add a record.

| number | decision | date |
|---|---|---|
"""


def records(folder: Path = FOLDER) -> list[Path]:
    return sorted(folder.glob("[0-9]*.md"))


def title(record: Path) -> str:
    """The title without its number; the file's name where the first line has another form."""
    number, _, words = record.read_text("utf-8").partition("\n")[0].removeprefix("# ").partition(": ")
    return words if number == record.name[:4] else record.name


def faults(record: Path) -> Iterator[str]:
    """One sentence for each rule that `record` breaks."""
    lines = record.read_text("utf-8").splitlines()
    if not re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", record.name):
        yield "the name must be NNNN-words.md"
    if not re.fullmatch(rf"# {record.name[:4]}: \S.*[^.]", lines[0]):
        yield f"line 1 must be '# {record.name[:4]}: Title', without a full stop"
    if len(lines) < 3 or not _STATUS.fullmatch(lines[2]):
        yield "line 3 must be 'Accepted YYYY-MM-DD.' or 'Replaced by [NNNN](NNNN-....md) YYYY-MM-DD.'"
    headings = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
    if tuple(headings) != SECTIONS:
        yield f"the headings must be {', '.join(SECTIONS)}, not {', '.join(headings)}"
    for line, after in zip(_written(lines), [*_written(lines)[1:], "## "], strict=True):
        if line.startswith("## ") and after.startswith("## "):
            yield f"there is no text below '{line}'"


def _written(lines: list[str]) -> list[str]:
    return [line for line in lines if line]


def all_faults(folder: Path = FOLDER) -> Iterator[str]:
    """Of all records and of the index, each with the file's name."""
    numbers: dict[str, Path] = {}
    for record in records(folder):
        yield from (f"{record.name}: {fault}" for fault in faults(record))
        if (other := numbers.setdefault(record.name[:4], record)) != record:
            yield f"{record.name}: {other.name} has the same number"
    written = folder / "README.md"
    if not written.is_file() or written.read_text("utf-8") != index(folder):
        yield "README.md: the index is not up to date: run make decisions"


def index(folder: Path = FOLDER) -> str:
    """The text of docs/decisions/README.md."""
    return _HEAD + "".join(
        f"| [{record.name[:4]}]({record.name}) | {title(record)} | {_date(record)} |\n" for record in records(folder)
    )


def _date(record: Path) -> str:
    lines = record.read_text("utf-8").splitlines()
    status = _STATUS.fullmatch(lines[2]) if len(lines) > 2 else None
    return status[2] if status else ""


def main() -> None:
    if sys.argv[1:] == ["--write"]:
        (FOLDER / "README.md").write_text(index(), "utf-8")
    elif found := list(all_faults()):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
