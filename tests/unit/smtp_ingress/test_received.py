"""The Received field is one field of RFC 5321's grammar for any name that a client sends (§4.4)."""

import datetime
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.message import decode_header_text, fields
from paquebot.observability import trace
from paquebot.runtime.net.slots import MAIL, ConnectionSlots, SlotLimits
from paquebot.smtp_ingress.received import TracePolicy, received
from paquebot.smtp_ingress.state import Hello, MailTransaction, Role, SessionState
from paquebot.wire.address import Address
from paquebot.wire.smtp.commands import parse_command, parse_hello
from paquebot.wire.smtp.parameters import MailParameters

_NOW = datetime.datetime(2026, 11, 29, 4, 0, tzinfo=datetime.UTC)
_CCONTENT = re.compile(r"(?:[!-'*-\[\]-~ ]|\\[ -~])*")


def _received(name: str, address: str = "192.0.2.1") -> str:
    slot = ConnectionSlots.of_mail_and_logins(SlotLimits(10, 0, 10, 10, 10)).acquire(address, MAIL)
    assert slot is not None
    session = SessionState("s", Role.MX, address, 25, False, slot)
    session.hello = Hello(name, True, frozenset())
    transaction = MailTransaction(Address("a", "b"), MailParameters(), None, trace.root("test"))  # type: ignore[arg-type]
    return received(session, transaction, "01Q", _NOW, TracePolicy("mx.example", hide_client=False)).decode("ascii")


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("client.example", "client.example ([192.0.2.1])"),
        ("My_Desktop", "My_Desktop ([192.0.2.1])"),
        ("[198.51.100.7]", "[198.51.100.7] ([192.0.2.1])"),
        ("[IPv6:2001:db8::1]", "[IPv6:2001:db8::1] ([192.0.2.1])"),
        ("host.example.", "[192.0.2.1] (helo host.example.)"),
        ("[IPv6:fe80::1%en0]", "[192.0.2.1] (helo [IPv6:fe80::1%en0])"),
        ("Ann's-MacBook", "[192.0.2.1] (helo Ann's-MacBook)"),
        ("a,b", "[192.0.2.1] (helo a,b)"),
        ("host/1", "[192.0.2.1] (helo host/1)"),
        ("PC(2)", r"[192.0.2.1] (helo PC\(2\))"),
        ("x) by mx.example; (", r"[192.0.2.1] (helo x\) by mx.example; \()"),
        ("x\\", r"[192.0.2.1] (helo x\\)"),
        ("[]", "[192.0.2.1] (helo [])"),
        ("MÜLLER-PC", "[192.0.2.1] (helo =?utf-8?Q?M=C3=9CLLER-PC?=)"),
        ("müller.example", "[192.0.2.1] (helo =?utf-8?Q?m=C3=BCller=2Eexample?=)"),
        ("=?utf-8?Q?x?=", "[192.0.2.1] (helo =?utf-8?Q?=3D=3Futf-8=3FQ=3Fx=3F=3D?=)"),
    ],
)
def test_the_name_of_a_client(name: str, written: str) -> None:
    assert _received(name).startswith(f"Received: from {written}\r\n\tby mx.example (Paquebot) with ESMTP\r\n")


def test_the_zone_of_an_address_is_not_in_a_literal() -> None:
    assert "from pc ([IPv6:fe80::1])\r\n" in _received("pc", "fe80::1%eth0")


@given(st.binary(min_size=1, max_size=400))
def test_no_name_forges_the_trace(data: bytes) -> None:
    try:
        name = parse_hello(parse_command(b"EHLO " + data).argument)
    except ValueError:
        return
    field = _received(name)
    assert [found for found, _ in fields(field.encode())] == [b"received"]
    assert max(map(len, field.split("\r\n"))) < 998
    ours = ")\tby mx.example (Paquebot) with ESMTP\tid 01Q;\tSun"
    origin, separator, rest = field.replace("\r\n", "").partition(ours)
    assert separator and "(" not in rest
    greeted_as, parenthesis, comment = origin.removeprefix("Received: from ").partition(" (")
    assert parenthesis
    if greeted_as == "[192.0.2.1]" and comment.startswith("helo "):
        text = comment.removeprefix("helo ")
        assert _CCONTENT.fullmatch(text.replace("\t", " "))
        if "=?" in text:
            assert decode_header_text(text.encode()) == name
        else:
            assert re.sub(r"\\(.)", r"\1", text) == name
    else:
        assert (greeted_as, comment) == (name, "[192.0.2.1]")
