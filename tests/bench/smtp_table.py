"""The rows of the table that the SMTP side fills."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

from tests.bench.delivery_load import Result
from tests.bench.engine_costs import EngineCosts
from tests.bench.ours import ENGINES, Ours
from tests.bench.peers import Peers
from tests.bench.probe import percentile
from tests.bench.rows import Row, Side, Spread
from tests.bench.scenario import Scenario

Memory = Mapping[str, Mapping[str, float]]
"""MiB of each program, for each side by name."""


@dataclass(frozen=True, slots=True)
class _Figure:
    """One of a repetition that both sides have."""

    key: str
    title: str
    unit: str
    value: Callable[[Result], float]
    floor: float
    goal: float
    higher_is_better: bool = True

    @property
    def short(self) -> str:
        """The title without what else it says of the load."""
        return self.title.partition(", ")[0] if self.unit == "1/s" else self.title


_FIGURES = (
    _Figure(
        "accepted_per_second", "accepted per second, one message per connection", "1/s",
        lambda result: result.accepted, 1.3, 2.0,
    ),
    _Figure(
        "delivered_per_second", "delivered to mailboxes per second, end to end", "1/s",
        lambda result: result.delivered, 2.5, 4.0,
    ),
    _Figure(
        "cpu_seconds_per_1000_delivered", "CPU seconds per 1,000 delivered, engines included", "s",
        lambda result: result.cpu_in_all, 0.5, 0.3, higher_is_better=False,
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Table:
    """Makes the rows. `idle` and `busy`: memory before anybody connected, and under load."""

    ours: Ours
    theirs: Peers | None
    scenarios: Sequence[Scenario]
    idle: Memory
    busy: Memory

    def rows(self) -> list[Row]:
        details = [row for scenario in self.scenarios for row in self._scenario(scenario)]
        return [*self._goals(), *details, *self._memory()]

    def _goals(self) -> list[Row]:
        """One message per connection; of the numbers of sessions the one where we do worse, else the most."""
        single = [scenario for scenario in self.scenarios if not scenario.load.keep]
        most = max(single, key=lambda scenario: scenario.load.sessions)
        costs = _per_1000(most, self.ours)
        services = sum(value for name, value in self.idle[self.ours.name].items() if name not in ENGINES)
        s3 = f"S3 requests per 1,000 messages accepted, {most.load.sessions} sessions"
        return [
            *(self._worst(figure, single) for figure in _FIGURES),
            _own("s3_requests_per_1000_accepted", s3, costs.s3_requests, floor=45, goal=25),
            _own("wal_syncs_per_1000_delivered", "PostgreSQL WAL syncs per 1,000 delivered under load",
                 costs.wal_syncs, floor=100, goal=30),
            _own("idle_services_pss", "idle memory (PSS) of all services without engines", services, "MiB",
                 floor=400, goal=250),
        ]  # fmt: skip

    def _worst(self, figure: _Figure, scenarios: Sequence[Scenario]) -> Row:
        rows = [self._row(figure, scenario, figure.key, figure.title, asked=True) for scenario in scenarios]

        def quality(row: Row) -> float:
            value = row.ratio if row.ratio is not None else row.ours.median
            return value if figure.higher_is_better else -value

        return min(rows, key=quality)

    def _row(self, figure: _Figure, scenario: Scenario, key: str, title: str, *, asked: bool) -> Row:
        floor, goal = (figure.floor, figure.goal) if asked else (None, None)
        own = Spread.of([figure.value(result) for result in scenario.results[self.ours.name]])
        their = None
        if self.theirs is not None:
            their = Spread.of([figure.value(result) for result in scenario.results[self.theirs.name]])
        return Row(key, title, figure.unit, own, their, floor, goal, higher_is_better=figure.higher_is_better)

    def _scenario(self, scenario: Scenario) -> list[Row]:
        """All that is known of one."""
        load = scenario.load
        suffix = f"{load.sessions}_sessions{'_many_per_connection' if load.keep else ''}"
        rows = [
            self._row(figure, scenario, f"{figure.key}.{suffix}", f"{figure.short}, {load.text}", asked=False)
            for figure in _FIGURES
        ]
        rows += [self._delay(scenario, part, suffix) for part in (0.5, 0.99)]
        for name in self.ours.roots():
            cpu = Spread.of([result.cpu[name] for result in scenario.results[self.ours.name]])
            title = f"CPU seconds per 1,000 delivered of {name}, {load.text}"
            rows.append(Row(f"cpu_{name}.{suffix}", title, "s", cpu, higher_is_better=False, relative=False))
        costs = _per_1000(scenario, self.ours)
        for item in fields(EngineCosts):
            title = f"{_TITLES[item.name]} per 1,000 messages, {load.text}"
            rows.append(_own(f"{item.name}.{suffix}", title, getattr(costs, item.name)))
        return rows

    def _delay(self, scenario: Scenario, part: float, suffix: str) -> Row:
        name = f"p{part * 100:.0f}"
        sides: list[Side] = [self.ours, *([self.theirs] if self.theirs else [])]
        found = [scenario.delays(side) for side in sides]
        counts = " and ".join(str(len(delays)) for delays in found)
        title = f"{name} from the end of DATA to visible ({counts} probes), {scenario.load.text}"
        spreads = [Spread.of([percentile(delays, part) * 1000]) for delays in found]
        their = spreads[1] if self.theirs else None
        return Row(f"visible_after_{name}.{suffix}", title, "ms", spreads[0], their, higher_is_better=False)

    def _memory(self) -> list[Row]:
        rows = []
        for key, title, found in (("idle", "idle", self.idle), ("loaded", "under load", self.busy)):
            their = Spread.of([sum(found[self.theirs.name].values())]) if self.theirs else None
            own = Spread.of([sum(found[self.ours.name].values())])
            text = f"memory (PSS) {title}, engines included"
            rows.append(Row(f"pss_{key}", text, "MiB", own, their, higher_is_better=False))
        for name, value in self.idle[self.ours.name].items():
            rows.append(_own(f"pss_idle.{name}", f"memory (PSS) idle of {name}", value, "MiB"))
        return rows


_TITLES = {
    "s3_requests": "S3 requests",
    "s3_puts": "S3 PUTs",
    "packs": "packs",
    "transactions": "PostgreSQL transactions",
    "wal_syncs": "PostgreSQL WAL syncs",
}


def _per_1000(scenario: Scenario, ours: Ours) -> EngineCosts:
    assert scenario.costs is not None
    thousands = scenario.messages(ours) / 1000
    return EngineCosts(**{item.name: getattr(scenario.costs, item.name) / thousands for item in fields(EngineCosts)})


def _own(
    key: str, title: str, value: float, unit: str = "", floor: float | None = None, goal: float | None = None
) -> Row:
    """Of ours alone; less is better."""
    return Row(key, title, unit, Spread.of([value]), None, floor, goal, higher_is_better=False, relative=False)
