"""What a failed round trip tells: the place and the reason, in words that help whoever runs the platform."""

from __future__ import annotations

import imaplib
import smtplib
import socket
import ssl

import pytest

from paquebot.cli.roundtrip.route import RoundTripLogin, RoundTripRoute, ServiceAddress, client_context
from paquebot.cli.roundtrip.trip import RoundTripError, _check, _message, _why, round_trip
from tests.support.loopback import free_port

ALICE, BOB = RoundTripLogin("alice@example.test", "x"), RoundTripLogin("bob@example.test", "x")


def _route(client: str = "") -> RoundTripRoute:
    nowhere = ServiceAddress("127.0.0.1", free_port())
    return RoundTripRoute(nowhere, nowhere, nowhere, client_context(verify=False), ALICE, BOB, client)


def test_a_refused_connection_is_named() -> None:
    route = _route()
    with pytest.raises(RoundTripError) as failed:
        round_trip(route, lambda _: None)
    place = f"the round trip failed at submission ({route.submission})"
    assert str(failed.value) == f"{place}: connection refused; is one of its pods ready?"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (socket.gaierror(-2, "Name or service not known"), "the name has no address; does its Service exist?"),
        (TimeoutError("timed out"), "no answer within 30 s"),
        (
            smtplib.SMTPDataError(451, b"4.3.0 Temporary failure, try again later"),
            "the server answered 451 4.3.0 Temporary failure, try again later",
        ),
        (imaplib.IMAP4.error(b"[UNAVAILABLE] Try again"), "the server answered [UNAVAILABLE] Try again"),
    ],
)
def test_failures_have_plain_reasons(error: Exception, told: str) -> None:
    assert _why(error) == told


def test_a_certificate_for_other_names_is_reported() -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "Hostname mismatch, certificate is not valid for 'mail.example.org'."
    assert _why(error).endswith("for this name: " + error.verify_message)


@pytest.mark.parametrize("seen", ["192.0.2.7", "IPv6:2001:db8::7"])
def test_received_may_show_any_of_our_addresses(seen: str) -> None:
    content = f"Received: from here ([{seen}]) by there\r\n".encode() + bytes(_message(_route(), "mark"))

    _check(content, "192.0.2.7,2001:db8::7")
    with pytest.raises(RoundTripError, match="hides the addresses of clients"):
        _check(content, "192.0.2.8")
