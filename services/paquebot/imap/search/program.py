"""Compiles a tree of SEARCH keys to a flat program: which key to check, and which one next (RFC 3501 §6.4.4).

IMAP nests: "any of a thousand addresses" is a chain of a thousand ORs. So neither the compilation nor a run of the
program recurses, and each key is checked at most twice for a message.

A key returns True, False, or None: not without more facts. A run first takes each None for the answer in favour of the
message: if the message does not match even so, the verdict is False. A second run takes each None for the answer
against it: if the message matches even so, the verdict is True. Else it is None.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from paquebot.imap.search.facts import MessageFacts
from paquebot.wire.imap import ast

Predicate = Callable[[MessageFacts], bool | None]

_FOUND, _OUT = -1, -2
_NEXT = -3
"""The step made last, which comes next: a program is made from its end."""


@dataclass(slots=True)
class _Step:
    """A key, and the next step after each answer. `in_favour`, `against`: the next step after None, in the two runs."""

    check: Predicate
    if_true: int
    if_false: int
    in_favour: int
    against: int


def program_of(key: ast.SearchKey, predicate_of: Callable[[ast.SearchKey], Predicate]) -> Predicate:
    """The predicate of a search key. `predicate_of` returns that of a key without keys inside it. Raises what that
    raises."""
    steps = _steps(key, predicate_of)
    if len(steps) == 1 and steps[0].if_true == _FOUND:
        return steps[0].check
    first = len(steps) - 1

    def check(facts: MessageFacts) -> bool | None:
        place, unsure = first, False
        while place >= 0:
            step = steps[place]
            found = step.check(facts)
            if found is None:
                unsure = True
                place = step.in_favour
            else:
                place = step.if_true if found else step.if_false
        if place == _OUT or not unsure:
            return place == _FOUND
        place = first
        while place >= 0:
            step = steps[place]
            found = step.check(facts)
            place = step.against if found is None else step.if_true if found else step.if_false
        return True if place == _FOUND else None

    return check


def _steps(key: ast.SearchKey, predicate_of: Callable[[ast.SearchKey], Predicate]) -> Sequence[_Step]:
    """The steps from the last to the first, so that the next steps of a step exist already."""
    costs = _costs(key)
    steps: list[_Step] = []
    waiting = [(key, _FOUND, _OUT, False)]
    while waiting:
        key, if_true, if_false, negated = waiting.pop()
        if_true = len(steps) - 1 if if_true == _NEXT else if_true
        if_false = len(steps) - 1 if if_false == _NEXT else if_false
        if isinstance(key, ast.SearchNot):
            waiting.append((key.key, if_false, if_true, not negated))
        elif inside := _inside(key):
            *before, last = sorted(inside, key=lambda one: costs[id(one)])
            as_one = isinstance(key, ast.SearchAnd)
            after = (_NEXT, if_false) if as_one else (if_true, _NEXT)
            waiting += [(one, *after, negated) for one in before]
            waiting.append((last, if_true, if_false, negated))
        else:
            towards = (if_false, if_true) if negated else (if_true, if_false)
            steps.append(_Step(predicate_of(key), if_true, if_false, *towards))
    return steps


def leaves(key: ast.SearchKey) -> Iterator[ast.SearchKey]:
    """The keys without keys inside them, in their order."""
    return (one for one in _walk(key) if not _inside(one))


def _walk(key: ast.SearchKey) -> Iterator[ast.SearchKey]:
    """The key and all keys inside it, each before those inside it."""
    waiting = [key]
    while waiting:
        key = waiting.pop()
        yield key
        waiting += reversed(_inside(key))


def _inside(key: ast.SearchKey) -> tuple[ast.SearchKey, ...]:
    if isinstance(key, ast.SearchOr):
        return key.left, key.right
    if isinstance(key, ast.SearchAnd):
        return key.keys
    return (key.key,) if isinstance(key, ast.SearchNot) else ()


def _costs(key: ast.SearchKey) -> dict[int, int]:
    """The cost of the facts that each key needs, by its identity: of several keys, the cheapest are checked first."""
    found: dict[int, int] = {}
    for one in reversed(list(_walk(key))):
        inside = _inside(one)
        found[id(one)] = max([found[id(inner)] for inner in inside]) if inside else _cost(one)
    return found


_COSTS: Final[Mapping[type[ast.SearchKey], int]] = {
    ast.SearchBody: 3,
    ast.SearchText: 3,
    ast.SearchHeader: 2,
    ast.SearchObjectId: 2,
    ast.SearchDate: 1,
    ast.SearchSize: 1,
    ast.SearchAge: 1,
}


def _cost(key: ast.SearchKey) -> int:
    if isinstance(key, ast.SearchDate) and key.field is ast.DateField.SENT:
        return 2
    return _COSTS.get(type(key), 0)
