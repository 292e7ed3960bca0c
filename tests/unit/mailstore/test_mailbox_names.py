"""Rules of mailbox names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.mailstore import MailstoreLimits
from paquebot.mailstore.errors import BadMailboxName, NoSuchMailbox
from paquebot.mailstore.mailboxes.names import is_inferior, normal, sought, superiors, valid

LIMITS = MailstoreLimits(name_length=20, depth=3)


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("inbox", "INBOX"),
        ("InBox/Sub", "INBOX/Sub"),
        ("INBOX/inbox", "INBOX/inbox"),
        ("inboxes", "inboxes"),
        ("\u0131nbox", "\u0131nbox"),
        ("a/b/", "a/b"),
        ("e\u0301", "\u00e9"),
    ],
)
def test_one_spelling(name: str, spelled: str) -> None:
    assert normal(name) == spelled


@pytest.mark.parametrize(
    "name", ["", "/", "/a", "a//b", "a//", "x" * 21, "a/b/c/d", "a\tb", "a\x7f", "\ud800", "\uffff"]
)
def test_invalid_names(name: str) -> None:
    with pytest.raises(BadMailboxName) as caught:
        valid(name, LIMITS)
    assert caught.value.why


@pytest.mark.parametrize("name", ["a b", "a%b*", "x" * 20, "a/b/c", "\u65e5\u672c", "\U0001f4e7", "&", "a\\b", '"'])
def test_valid_names(name: str) -> None:
    assert valid(name, LIMITS) == name


def test_characters_newer_than_this_python_are_valid() -> None:
    assert valid("\U0001fae9", LIMITS) == "\U0001fae9"  # assigned in Unicode 16
    for noncharacter in ("\ufdd0", "\ufffe", "\U0010ffff"):
        with pytest.raises(BadMailboxName):
            valid(noncharacter, LIMITS)


def test_a_name_fits_into_an_index_with_any_settings() -> None:
    wide = MailstoreLimits(name_length=10_000, depth=10_000)
    assert valid("\u20ac" * 800, wide)
    with pytest.raises(BadMailboxName, match=r"\u20ac"):
        valid("\u20ac" * 801, wide)


def test_names_that_postgresql_cannot_take_are_not_looked_up() -> None:
    assert sought("inbox") == "INBOX"
    assert sought("a\x01") == "a\x01"  # it can be compared, and does not exist
    for name in ("\0", "x\0y", "\ud800"):
        with pytest.raises(NoSuchMailbox):
            sought(name)


def test_superiors() -> None:
    assert superiors("a/b/c") == ["a", "a/b"]
    assert superiors("a") == []
    assert is_inferior("a/b", "a")
    assert not is_inferior("ab", "a")
    assert not is_inferior("a", "a")


@given(st.text(max_size=30))
def test_a_valid_name_stays_as_it_is(name: str) -> None:
    try:
        spelled = valid(name, LIMITS)
    except BadMailboxName:
        return
    assert valid(spelled, LIMITS) == spelled
    assert all(valid(superior, LIMITS) == superior for superior in superiors(spelled))
