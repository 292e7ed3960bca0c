"""Hints: the fewest messages for all accounts, and the accounts of a message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.msg import Msg

from paquebot.queue import hints

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def message_of(hint: hints.Hint) -> Msg:
    return Msg(None, hint.subject, data=hint.payload, headers=hint.headers)  # type: ignore[arg-type]


@given(st.dictionaries(st.integers(0, 2**63 - 1), st.sampled_from(["", TRACE]), max_size=30))
def test_each_account_is_hinted_once_with_its_trace(traces: dict[int, str]) -> None:
    messages = [message_of(hint) for hint in hints.written(traces)]
    found = [(account_id, hints.trace(message)) for message in messages for account_id in hints.accounts(message)]
    assert sorted(found) == sorted(traces.items())
    assert len(messages) <= 1 + sum(1 for trace in traces.values() if trace)


@given(st.sets(st.integers(0, 2**63 - 1), min_size=1, max_size=30), st.sampled_from([b"", b"us", b"c0ffee"]))
def test_a_hint_names_its_publisher(accounts: set[int], source: bytes) -> None:
    messages = [message_of(hint) for hint in hints.written(dict.fromkeys(accounts, ""), source)]
    assert {hints.source(message) for message in messages} == {source}
    assert sorted(account_id for message in messages for account_id in hints.accounts(message)) == sorted(accounts)


def test_a_hint_for_one_account_has_the_older_format() -> None:
    [hint] = hints.written({7: ""})
    assert hint == hints.Hint("hint.mailbox.7")


def test_messages_are_bounded() -> None:
    written = list(hints.written(dict.fromkeys(range(2**62, 2**62 + 2500), "")))
    assert len(written) == 3
    assert max(len(hint.payload) for hint in written) <= 20_000


@pytest.mark.parametrize(
    ("subject", "payload"),
    [
        ("hint.mailbox.later", b"1 2"),
        ("hint.mailbox.-1", b""),
        ("hint.mailbox.many", b"x -1 1.5 "),
        ("hint.mailbox.", b""),
    ],
)
def test_a_malformed_hint_has_no_accounts(subject: str, payload: bytes) -> None:
    assert hints.accounts(message_of(hints.Hint(subject, payload))) == []


@given(st.frozensets(st.integers(1, 2**63 - 1), min_size=1, max_size=30), st.sampled_from(["password", "removed"]))
def test_a_hint_about_accounts_is_read_as_it_was_written(accounts: frozenset[int], changed: str) -> None:
    for hint in (hints.DirectoryHint(accounts, changed), hints.DirectoryHint(None, changed)):
        assert hints.DirectoryHint.read(message_of(hint.written())) == hint


@pytest.mark.parametrize("payload", [b"", b"everybody", b"1 x", b"-1", b"\xff", b"9" * 30, "٣".encode()])
def test_a_hint_of_an_unknown_kind_is_for_all_accounts(payload: bytes) -> None:
    message = Msg(None, hints.DIRECTORY, data=payload)  # type: ignore[arg-type]
    assert hints.DirectoryHint.read(message).account_ids is None
