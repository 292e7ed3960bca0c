"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """`wrong`: why this is not as it should be; empty: it is. `slow`: it is, but took longer than it should on a
    machine that has nothing else to do."""

    what: str
    figure: str
    wrong: str = ""
    slow: str = ""

    @property
    def fault(self) -> str:
        return self.wrong or self.slow


def none_of(what: str, got: list[str]) -> Finding:
    """Of these there should be none."""
    return Finding(what, str(len(got)), "; ".join(got[:3]))
