"""The changes of acceptance to a header, and nothing else."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.message import (
    add_trace,
    count_received,
    ensure_date_and_message_id,
    first_value,
    is_looping,
    remove_authentication_results,
    remove_header,
    summarise,
)

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


def test_count_received() -> None:
    assert count_received(b"Received: a\r\n b\r\nRECEIVED : c\r\nX-Received: d\r\n\r\nReceived: e\r\n") == 2
    assert count_received(b"") == 0


def test_a_loop_is_many_received_fields() -> None:
    words = b"Subject: received, received, received\r\n"
    assert not is_looping(words + b"Received: a\r\nReceived: b\r\n\r\nReceived: c\r\n", 3)
    assert is_looping(words + b"Received: a\r\nRECEIVED : b\r\nreceived: c\r\n\r\n", 3)


def test_add_trace_prepends_fields() -> None:
    assert add_trace(b"A: b\r\n\r\nx", b"Received: y\r\n\tz\r\n") == b"Received: y\r\n\tz\r\nA: b\r\n\r\nx"


def test_a_message_cannot_continue_our_trace_header() -> None:
    traced = add_trace(b" evil\r\nSubject: x\r\n\r\nbody", b"Received: y\r\n")
    assert first_value(traced, b"received") == b"y"
    assert traced.endswith(b"\r\n\r\n evil\r\nSubject: x\r\n\r\nbody")


@pytest.mark.parametrize("block", [b"", b"Received: y", b"Received: y\n", b" folded\r\n", b"\r\nA: b\r\n"])
def test_add_trace_refuses_an_invalid_header_block(block: bytes) -> None:
    with pytest.raises(ValueError, match="header block"):
        add_trace(b"A: b\r\n\r\n", block)


def test_remove_header() -> None:
    raw = b"X: keep\r\nY: go\r\nX: g\r\n o\r\nX: keep\r\n\r\nX: go\r\n"
    assert remove_header(raw, b"x", lambda value: value == b"g o") == b"X: keep\r\nY: go\r\nX: keep\r\n\r\nX: go\r\n"
    assert remove_header(raw, b"x", lambda value: False) is raw


@pytest.mark.parametrize(
    "value",
    [
        "mx.test; none",
        "MX.TEST 1; spf=pass",
        "mx.test",
        "mx.test.; none",
        "(comment (nested)) mx.test (c) 1 (d); none",
        '"mx.test"; none',
        "\r\n\tmx.test;\r\n\tspf=pass",
        "mx.test(c); none",
    ],
)
def test_forged_results_of_our_host_are_removed(value: str) -> None:
    raw = f"A: b\r\nAuthentication-Results: {value}\r\nC: d\r\n\r\nx".encode()
    assert remove_authentication_results(raw, "mx.Test") == b"A: b\r\nC: d\r\n\r\nx"


@pytest.mark.parametrize("value", ["other.test; none", "mx.test.evil; none", "", "evil (mx.test); none", "x.mx.test"])
def test_results_of_others_stay(value: str) -> None:
    raw = f"Authentication-Results: {value}\r\n\r\nAuthentication-Results: mx.test; none\r\n".encode()
    assert remove_authentication_results(raw, "mx.test") is raw


def test_international_host_in_either_form() -> None:
    for form in ("bücher.test", "xn--bcher-kva.test", "BÜCHER.test"):
        raw = f"Authentication-Results: {form}; none\r\n\r\n".encode()
        assert remove_authentication_results(raw, "bücher.test") == b"\r\n"


@given(st.binary())
def test_authentication_results_of_any_bytes(value: bytes) -> None:
    raw = b"Authentication-Results: " + value + b"\r\n\r\n"
    assert raw.endswith(remove_authentication_results(raw, "mx.test"))


def test_missing_date_and_message_id_are_added() -> None:
    raw = b"From: a@x.test\r\n\r\nbody"
    complete = ensure_date_and_message_id(raw, NOW, "<1@x.test>")
    assert complete == b"Date: Mon, 23 Nov 2026 09:00:00 +0000\r\nMessage-ID: <1@x.test>\r\n" + raw
    assert summarise(complete).envelope.message_id == b"<1@x.test>"


def test_only_missing_fields_are_added() -> None:
    dated = b"DATE: yesterday\r\n\r\n"
    assert ensure_date_and_message_id(dated, NOW, "<1@x.test>") == b"Message-ID: <1@x.test>\r\n" + dated
    complete = b"date: x\r\nmessage-id: <2@x.test>\r\n\r\n"
    assert ensure_date_and_message_id(complete, NOW, "<1@x.test>") is complete


def test_fields_in_the_body_do_not_count() -> None:
    raw = b"A: b\r\n\r\nDate: x\r\nMessage-ID: <2@x.test>\r\n"
    assert ensure_date_and_message_id(raw, NOW, "<1@x.test>").startswith(b"Date: Mon, 23 Nov 2026")


@pytest.mark.parametrize("comments", [b"(" * 9000, b"(x) " * 3000, b"(x) " * 1023 + b"mx", b'"' + b"x" * 9000])
def test_results_with_an_authserv_id_beyond_the_limit_are_removed(comments: bytes) -> None:
    raw = b"Authentication-Results: " + comments + b".example; spf=pass\r\nSubject: x\r\n\r\n"
    assert remove_authentication_results(raw, "mx.example") == b"Subject: x\r\n\r\n"


def test_long_results_of_others_stay() -> None:
    raw = b"Authentication-Results: other.example;" + b" spf=pass" * 3000 + b"\r\n\r\n"
    assert remove_authentication_results(raw, "mx.example") == raw
