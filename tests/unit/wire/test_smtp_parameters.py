"""The parameters of MAIL and RCPT, read and written (RFC 1870, 3461, 4954, 6152, 6531, 6533)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.wire.smtp.parameters import (
    BadParameter,
    Body,
    MailParameters,
    Notify,
    RcptParameters,
    Ret,
    UnknownParameter,
    parse_mail_parameters,
    parse_rcpt_parameters,
)
from paquebot.wire.smtp.xtext import BadXtext, decode_utf8_xtext, decode_xtext, encode_utf8_xtext, encode_xtext

_ALL = frozenset({"SIZE", "8BITMIME", "SMTPUTF8", "DSN", "AUTH"})
_PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30)
_UNICODE = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn"), min_codepoint=0x20), min_size=1, max_size=30
)


@pytest.mark.slow
@given(_PRINTABLE)
def test_xtext_round_trips(text: str) -> None:
    encoded = encode_xtext(text)
    assert decode_xtext(encoded) == text
    assert not set(encoded) & set(" =\r\n")


@given(_UNICODE)
def test_utf8_xtext_round_trips(text: str) -> None:
    encoded = encode_utf8_xtext(text)
    assert encoded.isascii()
    assert decode_utf8_xtext(encoded) == text
    assert not set(encoded) & set(" =+\r\n")


@pytest.mark.parametrize("text", ["a b", "a=b", "+", "+4", "+4g", "+e9", "+E9", "+0D+0A", "é", "a\tb"])
def test_bad_xtext(text: str) -> None:
    with pytest.raises(BadXtext):
        decode_xtext(text)


@pytest.mark.parametrize(
    "text", ["\\", "\\x{}", "\\x{1}", "\\x{D800}", "\\x{110000}", "\\x{0A}", "\\x{9f", "a+b", "\\u{E9}"]
)
def test_bad_utf8_xtext(text: str) -> None:
    with pytest.raises(BadXtext):
        decode_utf8_xtext(text)


_MAIL = st.builds(
    MailParameters,
    size=st.integers(min_value=0, max_value=10**20 - 1),
    body=st.sampled_from([None, Body.SEVEN_BIT, Body.EIGHT_BIT_MIME]),
    smtputf8=st.booleans(),
    ret=st.sampled_from([None, *Ret]),
    envid=_PRINTABLE,
    auth=st.one_of(st.just(""), st.just("<>"), st.just("a+b=c@d.example")),
)
_NOTIFY = st.one_of(
    st.just((Notify.NEVER,)),
    st.lists(st.sampled_from([Notify.SUCCESS, Notify.FAILURE, Notify.DELAY]), unique=True).map(tuple),
)
_RCPT = st.builds(
    RcptParameters,
    notify=_NOTIFY,
    orcpt=st.one_of(st.just(""), _PRINTABLE.filter(bool).map("rfc822;{}".format), _UNICODE.map("utf-8;{}".format)),
)


@given(_MAIL)
def test_mail_parameters_round_trip(parameters: MailParameters) -> None:
    assert parse_mail_parameters(str(parameters), _ALL) == parameters


@given(_RCPT)
def test_rcpt_parameters_round_trip(parameters: RcptParameters) -> None:
    assert parse_rcpt_parameters(str(parameters), _ALL) == parameters


@given(_MAIL, st.sets(st.sampled_from(sorted(_ALL - {"SMTPUTF8"}))))
def test_narrowed_parameters_are_understood(parameters: MailParameters, extensions: set[str]) -> None:
    written = str(parameters.narrowed_to(extensions))
    assert parse_mail_parameters(written, extensions | {"SMTPUTF8"}).smtputf8 == parameters.smtputf8


def test_rcpt_parameters_need_dsn() -> None:
    parameters = RcptParameters((Notify.DELAY,), "rfc822;a@b.example")
    assert str(parameters.narrowed_to({"SIZE"})) == ""
    assert parameters.narrowed_to({"DSN"}) is parameters


@pytest.mark.parametrize(
    "text",
    [
        "SIZE",
        "SIZE=",
        "SIZE=-1",
        "SIZE=1 SIZE=2",
        "SIZE=1 size=2",
        "SIZE=" + "1" * 21,
        "SIZE=٣",
        "BODY",
        "BODY=BINARYMIME",
        "SMTPUTF8=1",
        "RET=NONE",
        "ENVID=",
        "ENVID=" + "a" * 901,
        "ENVID=a+0A",
        "AUTH",
        "=1",
        "-A=1",
        "A=B=C",
        "(comment)",
    ],
)
def test_bad_mail_parameters(text: str) -> None:
    with pytest.raises(BadParameter) as caught:
        parse_mail_parameters(text, _ALL)
    assert not isinstance(caught.value, UnknownParameter)


@pytest.mark.parametrize(
    "text",
    [
        "NOTIFY",
        "NOTIFY=",
        "NOTIFY=,",
        "NOTIFY=NEVER,DELAY",
        "NOTIFY=DELAY,DELAY",
        "NOTIFY=OFTEN",
        "ORCPT",
        "ORCPT=a@b.example",
        "ORCPT=rfc822;",
        "ORCPT=;a@b.example",
        "ORCPT=rfc822;a+zz",
        "ORCPT=rfc822;é@b.example",
        "ORCPT=rfc822;" + "a" * 900,
    ],
)
def test_bad_rcpt_parameters(text: str) -> None:
    with pytest.raises(BadParameter) as caught:
        parse_rcpt_parameters(text, _ALL)
    assert not isinstance(caught.value, UnknownParameter)


@pytest.mark.parametrize(
    "text", ["SIZE=1", "BODY=7BIT", "SMTPUTF8", "RET=FULL", "ENVID=a", "AUTH=<>", "XFOO", "XFOO=1"]
)
def test_parameters_of_an_extension_not_offered_are_unknown(text: str) -> None:
    with pytest.raises(UnknownParameter):
        parse_mail_parameters(text, frozenset())


def test_orcpt_in_utf8_as_it_is() -> None:
    """RFC 6533 §3: utf-8-addr-unitext, with SMTPUTF8."""
    assert parse_rcpt_parameters("ORCPT=utf-8;élise@b.example", _ALL).orcpt == "utf-8;élise@b.example"


def test_values_longer_than_rfc_3461_allows_are_accepted_and_not_sent_on() -> None:
    mail = parse_mail_parameters("RET=HDRS ENVID=" + "a" * 101, _ALL)
    assert str(mail.narrowed_to(_ALL)) == " RET=HDRS"
    assert str(parse_mail_parameters("ENVID=" + "a" * 100, _ALL).narrowed_to(_ALL)) == " ENVID=" + "a" * 100
    rcpt = parse_rcpt_parameters("NOTIFY=NEVER ORCPT=rfc822;" + "a" * 494, _ALL)
    assert str(rcpt.narrowed_to(_ALL)) == " NOTIFY=NEVER"
    orcpt = " ORCPT=rfc822;" + "a" * 493
    assert str(parse_rcpt_parameters(orcpt, _ALL).narrowed_to(_ALL)) == orcpt
