"""A domain as one token of a subject: readable, never more than one token, never two domains alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.queue import deliver_ready, domain_token, held, relay_ready
from paquebot.queue.subjects import RELAY, is_within


@pytest.mark.parametrize(
    ("domain", "token"),
    [
        ("mail.example.org", "mail_example_org"),
        ("xn--bcher-kva.example", "xn--bcher-kva_example"),
        ("under_score.example", "under=5Fscore_example"),
        ("bücher.example", "b=C3=BCcher_example"),
        ("[192.0.2.1]", "=5B192_0_2_1=5D"),
        ("[IPv6:2001:db8::1]", "=5B=49=50v6=3A2001=3Adb8=3A=3A1=5D"),
        ("a=b", "a=3Db"),
        ("*", "=2A"),
        (">", "=3E"),
        ("a b\r\n", "a=20b=0D=0A"),
        ("", "="),
    ],
)
def test_tokens(domain: str, token: str) -> None:
    assert domain_token(domain) == token


@given(st.text(), st.text())
def test_two_domains_never_share_a_token(one: str, other: str) -> None:
    assert (domain_token(one) == domain_token(other)) == (one == other)


@given(st.text())
def test_a_token_is_one_plain_token(domain: str) -> None:
    token = domain_token(domain)
    assert token
    assert token.isascii()
    assert token.isprintable()
    assert not set(token) & set(".*> ")


def test_subjects() -> None:
    assert deliver_ready("a.example") == "deliver.ready.a_example"
    assert relay_ready("a.example") == "relay.ready.a_example"
    assert held("poison", "1") == "hold.poison.1"


@pytest.mark.parametrize(
    ("subject", "wanted", "within"),
    [
        ("relay.ready.example_org", RELAY, True),
        ("relay.ready.a.b", RELAY, True),
        ("deliver.ready.example_org", RELAY, False),
        ("relay.readyish", RELAY, False),
        ("deliver.ready.x", "deliver.ready.x", True),
        ("deliver.ready.xy", "deliver.ready.x", False),
    ],
)
def test_subjects_of_a_consumer(subject: str, wanted: str, within: bool) -> None:
    assert is_within(subject, wanted) is within
