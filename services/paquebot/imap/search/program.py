"""A tree of SEARCH keys as a flat program: which key to ask of a message, and which one next (RFC 3501 §6.4.4).

IMAP nests: "any of a thousand addresses" is a chain of a thousand ORs. So nothing here, neither making a program nor
running it, goes down into the tree by calling itself, and each key is asked of a message twice at most.

Keys answer True, False, or None: not without more facts. What a search would be with an answer is found by taking each
None for the answer that speaks for the message, and then for the one that speaks against it: when the message is out of
the question all the same, or found all the same, that is the verdict.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from paquebot.imap.search.facts import MessageFacts
from paquebot.wire.imap import ast

Predicate = Callable[[MessageFacts], bool | None]

_FOUND, _OUT = -1, -2
_NEXT = -3
"""The step made last, which is the one after: a program is made from its end."""


@dataclass(slots=True)
class _Step:
    """A key, and the step to take after each answer. `in_favour`, `against`: where to go without an answer."""

    ask: Predicate
    if_true: int
    if_false: int
    in_favour: int
    against: int


def program_of(key: ast.SearchKey, predicate_of: Callable[[ast.SearchKey], Predicate]) -> Predicate:
    """The predicate of a search key. `predicate_of` gives that of a key that has no others inside; what it raises is
    raised."""
    steps = _steps(key, predicate_of)
    if len(steps) == 1 and steps[0].if_true == _FOUND:
        return steps[0].ask
    first = len(steps) - 1

    def check(facts: MessageFacts) -> bool | None:
        place, unsure = first, False
        while place >= 0:
            step = steps[place]
            found = step.ask(facts)
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
            found = step.ask(facts)
            place = step.against if found is None else step.if_true if found else step.if_false
        return True if place == _FOUND else None

    return check


def _steps(key: ast.SearchKey, predicate_of: Callable[[ast.SearchKey], Predicate]) -> Sequence[_Step]:
    """The steps from the last to the first, so that what a step goes to is there already."""
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
    """The keys that have no others inside, in their order."""
    return (one for one in _walk(key) if not _inside(one))


def _walk(key: ast.SearchKey) -> Iterator[ast.SearchKey]:
    """The key and all that are inside, each before those inside it."""
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
    """What facts each key needs, by its identity: of several, the cheapest are asked first."""
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
