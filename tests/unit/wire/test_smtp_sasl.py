"""SASL PLAIN and LOGIN (RFC 4616, RFC 4954 §4)."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.wire.sasl import (
    BadSasl,
    Credentials,
    decode_response,
    parse_login,
    parse_plain,
    print_login,
    print_plain,
)

_FIELD = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=50)


@given(_FIELD, _FIELD, st.one_of(st.just(""), _FIELD))
def test_plain_round_trips(login: str, password: str, authorization_id: str) -> None:
    credentials = Credentials(login, password, authorization_id)
    assert parse_plain(decode_response(print_plain(credentials))) == credentials


@given(_FIELD, _FIELD)
def test_login_round_trips(login: str, password: str) -> None:
    username, secret = print_login(Credentials(login, password))
    assert parse_login(decode_response(username), decode_response(secret)) == Credentials(login, password)


def test_example_of_the_rfc() -> None:
    """RFC 4616 §4."""
    assert parse_plain(b"\0tim\0tanstaaftanstaaf") == Credentials("tim", "tanstaaftanstaaf")
    credentials = parse_plain(b"Ursel\0Kurt\0xipj3plmq")
    assert (credentials.login, credentials.authorization_id) == ("Kurt", "Ursel")
    assert not credentials.acts_as_itself
    assert Credentials("Kurt", "x", "Kurt").acts_as_itself


@pytest.mark.parametrize(
    "message", [b"", b"a", b"a\0b", b"\0a\0", b"\0\0p", b"\0a\0b\0c", b"\0\xff\0p", b"\0" + b"a" * 1025 + b"\0p"]
)
def test_bad_plain(message: bytes) -> None:
    with pytest.raises(BadSasl) as caught:
        parse_plain(message)
    assert "\\xff" not in str(caught.value)


@pytest.mark.parametrize("text", [b"a", b"YQ", b"Y Q==", b"YQ==\r", b"YQ=!", b"\xff", b"===="])
def test_bad_base64(text: bytes) -> None:
    with pytest.raises(BadSasl):
        decode_response(text)


def test_empty_response() -> None:
    assert decode_response(b"=") == b""
    assert decode_response(b"") == b""
    with pytest.raises(BadSasl):
        parse_login(b"", base64.b64decode(b"YQ=="))
    with pytest.raises(BadSasl):
        parse_login(b"a\0b", b"c")


def test_a_repr_has_no_password() -> None:
    assert "hidden" not in repr(Credentials("a", "hidden"))
