"""The flat program of a SEARCH against three-valued logic on its tree, and searches of any depth and length."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.imap.search.program import leaves, program_of
from paquebot.wire.imap import ast
from tests.support.counted_work import assert_linear

Answers = dict[str, bool | None]

_keys = st.recursive(
    st.sampled_from("abcde").map(lambda name: ast.SearchFlag(name, True)),
    lambda inner: st.one_of(
        inner.map(ast.SearchNot),
        st.builds(ast.SearchOr, inner, inner),
        st.lists(inner, min_size=1, max_size=3).map(lambda keys: ast.SearchAnd(tuple(keys))),
    ),
    max_leaves=12,
)


def verdict(key: ast.SearchKey, answers: Answers) -> bool | None:
    """Kleene's logic: unknown is between false and true."""
    order: tuple[bool | None, ...] = (False, None, True)
    match key:
        case ast.SearchFlag(name):
            return answers[name]
        case ast.SearchNot(inner):
            found = verdict(inner, answers)
            return None if found is None else not found
        case ast.SearchOr(left, right):
            return order[max(order.index(verdict(one, answers)) for one in (left, right))]
        case ast.SearchAnd(keys):
            return order[min(order.index(verdict(one, answers)) for one in keys)]
    raise AssertionError(key)


def asked(key: ast.SearchKey, answers: Answers) -> tuple[bool | None, int]:
    """Return the program's verdict and the number of checks."""
    count = 0

    def predicate_of(leaf: ast.SearchKey) -> Any:
        assert isinstance(leaf, ast.SearchFlag)

        def ask(facts: Any) -> bool | None:
            nonlocal count
            count += 1
            return answers[leaf.flag]

        return ask

    nothing: Any = None
    return program_of(key, predicate_of)(nothing), count


@given(_keys, st.fixed_dictionaries({name: st.sampled_from((True, False, None)) for name in "abcde"}))
def test_a_program_has_the_verdict_of_its_tree(key: ast.SearchKey, answers: Answers) -> None:
    found, count = asked(key, answers)
    assert found is verdict(key, answers)
    assert count <= 2 * sum(1 for _ in leaves(key))


_SIZE = 20_000


def nested(make: Any, size: int = _SIZE) -> ast.SearchKey:
    key: ast.SearchKey = ast.SearchFlag("a", True)
    for _ in range(size):
        key = make(key)
    return key


def a_or(key: ast.SearchKey) -> ast.SearchKey:
    return ast.SearchOr(ast.SearchFlag("b", True), key)


@pytest.mark.slow
def test_no_depth_is_too_deep() -> None:
    answers: Answers = {"a": True, "b": False}
    assert asked(nested(a_or), answers) == (True, _SIZE + 1)
    assert asked(nested(lambda key: ast.SearchOr(key, ast.SearchFlag("b", True))), answers)[0] is True
    assert asked(nested(ast.SearchNot), answers) == (True, 1)
    assert asked(nested(lambda key: ast.SearchNot(a_or(key)), 20_001), answers)[0] is False
    assert asked(nested(lambda key: ast.SearchAnd((key,))), answers)[0] is True


def test_the_work_is_linear_in_the_length_of_the_chain() -> None:
    def make(size: int) -> Any:
        key = nested(lambda inner: ast.SearchNot(a_or(inner)), size)
        return lambda: asked(key, {"a": None, "b": False})

    assert_linear(make, 500)
