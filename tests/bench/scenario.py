"""One kind of load, and what came of it on each side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.delivery_load import Load, Result
from tests.bench.engine_costs import EngineCosts
from tests.bench.rows import Side


@dataclass(slots=True)
class Scenario:
    """`results` of each side by name, and `probed`: those of the repetitions with probes, for their delays alone.
    `costs` of ours, in all repetitions together."""

    load: Load
    results: dict[str, list[Result]]
    probed: dict[str, list[Result]]
    costs: EngineCosts | None = None

    @classmethod
    def of(cls, load: Load, sides: Sequence[Side]) -> Scenario:
        """Nothing has been measured yet."""
        return cls(load, {side.name: [] for side in sides}, {side.name: [] for side in sides})

    def delays(self, side: Side) -> list[float]:
        return [delay for result in self.probed[side.name] for delay in result.delays]

    def messages(self, side: Side) -> int:
        """Of all repetitions, with the probes."""
        both = (*self.results[side.name], *self.probed[side.name])
        return sum(result.messages + len(result.delays) for result in both)
