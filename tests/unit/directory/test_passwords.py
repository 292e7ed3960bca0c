"""The normal form of passwords, their hashes, and app passwords."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.directory.passwords import (
    Argon2Parameters,
    BadPassword,
    Hasher,
    app_password_digest,
    check_strength,
    new_app_password,
    prepared,
)
from paquebot.wire.address import Address


@pytest.mark.parametrize(
    ("password", "form"),
    [
        ("correct horse battery staple", "correct horse battery staple"),  # RFC 8265 §4.3
        ("Correct Horse Battery Staple", "Correct Horse Battery Staple"),
        ("πßå", "πßå"),
        ("Jack of ♦s", "Jack of ♦s"),
        ("foo\u1680bar", "foo bar"),
        ("e\u0301", "é"),
        ("ﬁ", "ﬁ"),  # no compatibility mapping
    ],
)
def test_prepared(password: str, form: str) -> None:
    assert prepared(password) == form


@pytest.mark.parametrize("password", ["", "my cat is a \tby", "a\0b", "\udcff", "\ue000", "x" * 1025, "é" * 513])
def test_impossible_passwords(password: str) -> None:
    with pytest.raises(BadPassword):
        prepared(password)


@given(st.text(max_size=50))
def test_preparing_is_a_fixed_point(password: str) -> None:
    try:
        once = prepared(password)
    except BadPassword:
        return
    assert prepared(once) == once


def test_hashes() -> None:
    hasher = Hasher(Argon2Parameters(passes=1, memory_kib=64, lanes=1))
    stored = hasher.hash("secret")
    assert stored.startswith("$argon2id$v=19$m=64,t=1,p=1$")
    assert stored != hasher.hash("secret")
    assert hasher.verify(stored, "secret")
    assert not hasher.verify(stored, "Secret")
    assert not hasher.verify("damaged", "secret")
    assert not hasher.verify(hasher.no_password, "")


@pytest.mark.parametrize(
    ("parameters", "outgrown"),
    [
        (Argon2Parameters(2, 128, 2), False),
        (Argon2Parameters(3, 128, 2), True),
        (Argon2Parameters(2, 256, 2), True),
        (Argon2Parameters(2, 128, 4), True),
        (Argon2Parameters(1, 64, 1), False),  # a cheaper setting does not weaken what is stored
    ],
)
def test_is_weaker(parameters: Argon2Parameters, outgrown: bool) -> None:
    stored = Hasher(Argon2Parameters(2, 128, 2)).hash("secret")
    assert Hasher(parameters).is_weaker(stored) is outgrown


def test_app_passwords_in_any_spelling() -> None:
    password = new_app_password()
    assert re.fullmatch(r"[a-z2-7]{5}(-[a-z2-7]{5}){3}", password)
    assert password != new_app_password()
    digest = app_password_digest(1, password)
    assert digest == app_password_digest(1, password.replace("-", " ").upper())
    assert digest != app_password_digest(2, password)
    assert digest is not None
    assert len(digest) == 32


@pytest.mark.parametrize("password", ["", "secret", "abcde-fghij-abcde-fghi1", "abcde-fghij-abcde-fghijk"])
def test_malformed_app_passwords(password: str) -> None:
    assert app_password_digest(1, password) is None


ALICE = Address("alice.smith", "example.org")


@pytest.mark.parametrize(
    "password", ["correct horse", "πßåπßå πßåπßåé", "alice likes boats", "12345678901 2", "paquebot of boats"]
)
def test_long_passwords_are_accepted(password: str) -> None:
    check_strength(prepared(password), ALICE, 12)


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("x", "has 1 character and must have at least 12"),
        ("elevenchars", "has 11 characters and must have at least 12"),
        ("aaaaaaaaaaaaaaaaa", "at least 4 different characters"),
        ("abababababababab", "at least 4 different characters"),
        ("alice.smith@example.org", "must not be the account's address"),
        ("Alice.Smith2026", "its name with digits"),
        ("ALICE SMITH 12!", "its name with digits"),
        ("alicesmithalicesmith", "its name with digits"),
        ("htims.ecila!!", "its name with digits"),
        ("example.org99", "its name with digits"),
    ],
)
def test_weak_passwords_are_refused_with_advice(password: str, why: str) -> None:
    with pytest.raises(BadPassword, match=re.escape(why)):
        check_strength(prepared(password), ALICE, 12)
