"""What services wrote in their logs: an engine that is away explains an error, a fault of the program does not."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

_OF_THE_PROGRAM = (
    *("ArithmeticError", "AssertionError", "AttributeError", "IndexError", "KeyError", "NameError", "RecursionError"),
    *("TypeError", "UnboundLocalError", "ZeroDivisionError"),
)
_FAULT = re.compile(rf"^(?:{'|'.join(_OF_THE_PROGRAM)})\b.*", re.MULTILINE)
"""The last line of a traceback."""
_UNSEEN = "was never retrieved"
"""asyncio's words on a task or future that ended with an error and was never awaited."""


def faults_of_the_program(directory: Path, processes: Iterable[str]) -> list[str]:
    """A sentence for each kind of error that no engine, client or kill explains; logs that were put aside count too."""
    found: Counter[str] = Counter()
    for process in processes:
        for path in sorted(directory.glob(f"{process}.log*")):
            with path.open(errors="replace") as lines:
                found.update(f"{process}: {fault}" for line in lines if (fault := _fault(line)))
    return [f"{fault} ({count} times in its log)" for fault, count in sorted(found.items())]


def _fault(line: str) -> str:
    """Of one line; empty: none."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line.strip() if line.startswith("Traceback") else ""
    texts = [text for text in entry.values() if isinstance(text, str)]
    for text in texts:
        if (found := _FAULT.search(text)) or _UNSEEN in text:
            return f"{entry.get('event')}: {found[0] if found else text[:200]}"
    return ""
