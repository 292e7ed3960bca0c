"""One bounded amount that many clients share, so that no client can keep it from the others (invariant 7).

The amount is bytes in memory or connections. Its holders form a tree: a group (strangers, accounts), in it networks, in
these clients. Each has a cap. When nothing is left and a holder asks for more, the largest holder beside it gives: one
of its reservations is revoked, but only while that holder has more than the asking one would have then. So a holder of
little is refused only when all others have as little, and a few clients that fill the budget lose it again.
"""

import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import Gauge

Path = tuple[Hashable, ...]
"""The place of a holder in the tree: its group, then one key for each level below."""


class OverBudget(Exception):
    """Nothing is left for this holder; the client should try again later."""


@dataclass(frozen=True, slots=True)
class BudgetGroup:
    """`limit`: maximum for all its holders together. `guaranteed`: what other groups cannot keep from it. `caps`: the
    maximum for one holder at each level below the group."""

    limit: int
    guaranteed: int
    caps: tuple[int, ...] = ()


@dataclass(slots=True, eq=False)
class _Node:
    key: Hashable
    cap: int
    used: int = 0
    revocable: int = 0
    """The part of `used` that can be revoked."""
    children: "dict[Hashable, _Node]" = field(default_factory=dict)
    reservations: "dict[Reservation, None]" = field(default_factory=dict)
    """The revocable ones of this holder itself."""


class SharedBudget:
    """`groups` by name. Not thread-safe."""

    def __init__(self, limit: int, groups: Mapping[Hashable, BudgetGroup], *, gauge: Gauge | None = None) -> None:
        self._limit = limit
        self._groups = dict(groups)
        self._roots = {name: _Node(name, group.limit) for name, group in groups.items()}
        self._gauge = gauge
        self._used = 0

    @property
    def used(self) -> int:
        return self._used

    def used_by(self, path: Path) -> int:
        """What a holder has, with all holders below it."""
        nodes = list(self._existing(path))
        return nodes[-1].used if len(nodes) == len(path) else 0

    def reservation(self, path: Path) -> "Reservation":
        """A reservation for the holder at `path`, of nothing yet."""
        return Reservation(self, path)

    def _existing(self, path: Path) -> Iterator[_Node]:
        node: _Node | None = self._roots[path[0]]
        for key in path[1:]:
            assert node is not None
            yield node
            node = node.children.get(key)
            if node is None:
                return
        assert node is not None
        yield node

    def _nodes(self, path: Path) -> list[_Node]:
        """The nodes of `path` from its group down. Missing ones are made."""
        node = self._roots[path[0]]
        nodes = [node]
        caps = self._groups[path[0]].caps
        for key, cap in zip(path[1:], caps, strict=True):
            child = node.children.get(key)
            if child is None:
                child = node.children[key] = _Node(key, cap)
            nodes.append(child)
            node = child
        return nodes

    def _reserve(self, reservation: "Reservation", amount: int) -> None:
        nodes = self._nodes(reservation.path)
        try:
            while (full := self._full(nodes, amount)) is not None:
                self._victim(nodes, amount, full).revoke()
        except OverBudget:
            self._prune(nodes)
            raise
        self._add(nodes, amount)
        if reservation in nodes[-1].reservations:
            _add_revocable(nodes, amount)

    def _full(self, nodes: Sequence[_Node], amount: int) -> int | None:
        """The lowest level without room for `amount` more; -1: the whole budget; None: there is room."""
        levels = [level for level, node in enumerate(nodes) if node.used + amount > node.cap]
        if levels:
            return levels[-1]
        return -1 if self._used + amount > self._limit else None

    def _add(self, nodes: Sequence[_Node], amount: int) -> None:
        for node in nodes:
            node.used += amount
        self._used += amount
        if self._gauge is not None:
            self._gauge.set(self._used)

    def _release(self, path: Path, amount: int) -> None:
        nodes = list(self._existing(path))
        self._add(nodes, -amount)
        self._prune(nodes)

    def _prune(self, nodes: Sequence[_Node]) -> None:
        for parent, child in zip(nodes[-2::-1], nodes[:0:-1], strict=True):
            if child.used or child.reservations or child.children:
                return
            del parent.children[child.key]

    def _offer(self, reservation: "Reservation") -> None:
        nodes = self._nodes(reservation.path)
        nodes[-1].reservations[reservation] = None
        _add_revocable(nodes, reservation.amount)

    def _withdraw(self, reservation: "Reservation") -> None:
        nodes = self._nodes(reservation.path)
        del nodes[-1].reservations[reservation]
        _add_revocable(nodes, -reservation.amount)
        self._prune(nodes)

    def _victim(self, nodes: Sequence[_Node], amount: int, full: int) -> "Reservation":
        """The reservation to revoke, to make room for `amount` more at `nodes`. `full`: the level without room. Raises
        OverBudget."""
        if full < 0:  # does another group have more than its guarantee?
            for name, other in self._roots.items():
                if other is not nodes[0] and other.revocable and other.used > self._groups[name].guaranteed:
                    return _largest_in(other)
        for parent, mine in itertools.pairwise(nodes[max(full, 0) :]):
            others = (child for child in parent.children.values() if child.revocable and child is not mine)
            largest = max(others, key=_used, default=None)
            if largest is not None and largest.used > mine.used + amount:
                return _largest_in(largest)
        raise OverBudget


def _add_revocable(nodes: Sequence[_Node], amount: int) -> None:
    for node in nodes:
        node.revocable += amount


def _used(node: _Node) -> int:
    return node.used


def _revocable(node: _Node) -> int:
    return node.revocable


def _amount(reservation: "Reservation") -> int:
    return reservation.amount


def _largest_in(node: _Node) -> "Reservation":
    while node.children:
        node = max(node.children.values(), key=_revocable)
    return max(node.reservations, key=_amount)


class Reservation:
    """What one message or connection has of a budget."""

    __slots__ = ("_budget", "_on_revoked", "amount", "path", "revoked")

    def __init__(self, budget: SharedBudget, path: Path) -> None:
        self._budget = budget
        self.path = path
        self.amount = 0
        self.revoked = False
        """It was taken away; its owner can reserve nothing more with it."""
        self._on_revoked: Callable[[], None] | None = None

    def grow_to(self, amount: int) -> None:
        """Reserve `amount` in all, if it has less. Raises OverBudget, with nothing changed."""
        if self.revoked:
            raise OverBudget
        if amount > self.amount:
            self._budget._reserve(self, amount - self.amount)
            self.amount = amount

    def offer(self, on_revoked: Callable[[], None]) -> None:
        """Allow that it is revoked. `on_revoked` must free at once what is reserved, and must not raise."""
        if self._on_revoked is None and not self.revoked:
            self._budget._offer(self)
        self._on_revoked = on_revoked

    def keep(self) -> None:
        """Forbid again that it is revoked: the work is nearly done."""
        if self._on_revoked is not None and not self.revoked:
            self._budget._withdraw(self)
        self._on_revoked = None

    def revoke(self) -> None:
        on_revoked = self._on_revoked
        self.release()
        self.revoked = True
        if on_revoked is not None:
            on_revoked()

    def move(self, path: Path) -> None:
        """Move it to the holder at `path`. Raises OverBudget when that holder would pass its cap, or this one was
        revoked."""
        if self.revoked:
            raise OverBudget
        amount, on_revoked = self.amount, self._on_revoked
        nodes = self._budget._nodes(path)
        if any(node.used + amount > node.cap for node in nodes):
            self._budget._prune(nodes)
            raise OverBudget
        self.release()
        self.path = path
        self._budget._add(self._budget._nodes(path), amount)
        self.amount = amount
        if on_revoked is not None:
            self.offer(on_revoked)

    def release(self) -> None:
        """Release all of it; idempotent."""
        self.keep()
        if self.amount:
            amount, self.amount = self.amount, 0
            self._budget._release(self.path, amount)
