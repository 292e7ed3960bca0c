"""RFC 5321 §4.1.2 Mailbox, RFC 6531 §3.3, and the normal forms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.wire.address import (
    Address,
    BadAddress,
    Postmaster,
    canonical,
    canonical_local,
    mailbox_at,
    normal_domain,
    parse_address,
    parse_forward_path,
    split_detail,
)


@pytest.mark.parametrize(
    ("text", "local", "domain"),
    [
        ("alice@example.org", "alice", "example.org"),
        ("Alice@Example.ORG", "Alice", "example.org"),
        ("a.b.c@localhost", "a.b.c", "localhost"),
        ("!#$%&'*+-/=?^_`{|}~@a.b", "!#$%&'*+-/=?^_`{|}~", "a.b"),
        ('"two words"@a.b', "two words", "a.b"),
        ('"a@b"@a.b', "a@b", "a.b"),
        (r'"a\"b\\c"@a.b', 'a"b\\c', "a.b"),
        ('"plain"@a.b', "plain", "a.b"),
        ("用户@例子.test", "用户", "xn--fsqu00a.test"),
        ("x@Bücher.example", "x", "xn--bcher-kva.example"),
        ("x@straße.example", "x", "xn--strae-oqa.example"),  # IDNA2008: not strasse
        ("x@XN--BCHER-KVA.example", "x", "xn--bcher-kva.example"),
        ("x@例子。test", "x", "xn--fsqu00a.test"),
        ("x@[192.0.2.1]", "x", "[192.0.2.1]"),
        ("x@[IPv6:2001:DB8:0::1]", "x", "[IPv6:2001:db8::1]"),
        ("x@[ipv6:::FFFF:192.0.2.1]", "x", "[IPv6:::ffff:c000:201]"),
        ("a" * 890 + "@a.b", "a" * 890, "a.b"),  # 64 octets are the minimum that every server must accept, not a limit
        ("é" * 33 + "@a.b", "é" * 33, "a.b"),
        ("a" * 64 + "@" + ".".join(["b" * 47] * 4), "a" * 64, ".".join(["b" * 47] * 4)),
        ("root@web_01.example", "root", "web_01.example"),  # a host's name
        ("x@_dmarc.Example", "x", "_dmarc.example"),
        ("x@-b.c-", "x", "-b.c-"),
        ("x@r3---sn.example", "x", "r3---sn.example"),
        ("x@" + "b." * 126 + "c.", "x", "b." * 126 + "c"),  # 253 octets and the root
        ("root@host.example.", "root", "host.example"),
        ("x@xn--i-7iq.ws", "x", "xn--i-7iq.ws"),  # i❤, which IDNA2008 does not allow
        ("x@I❤.ws", "x", "xn--i-7iq.ws"),
        ("x@i❤\ufe0f.ws", "x", "xn--i-7iq.ws"),  # shown as emoji
        ("x@💩.la", "x", "xn--ls8h.la"),
        ("x@xn--ls8h.la", "x", "xn--ls8h.la"),
        ("x@👨\u200d👩\u200d👧.test", "x", "xn--1uga80807abag.test"),
        ("x@xn--zzzzzzzzz9999999", "x", "xn--zzzzzzzzz9999999"),  # not a U-label, but a name in DNS
        ("x@123.45", "x", "123.45"),
    ],
)
def test_addresses(text: str, local: str, domain: str) -> None:
    assert parse_address(text) == Address(local, domain)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "alice",
        "@example.org",
        "alice@",
        "alice@example.org ",
        " alice@example.org",
        "<alice@example.org>",
        "alice@example.org, bob@example.org",
        "alice@@example.org",
        "a b@a.b",
        "a(comment)@a.b",
        '"open@a.b',
        '"a"b@a.b',
        '"a\r\n"@a.b',
        '"a\\\n"@a.b',
        '"a\\',
        "a@b..c",
        "a@.b",
        "a@" + "b" * 64 + ".c",
        "a@" + ".".join(["b" * 60] * 5),
        "a@" + "b." * 126 + "cc",  # 254 octets
        "a@[192.0.2.256]",
        "a@[192.0.2.1",
        "a@[IPv6:fe80::1%eth0]",
        "a@[tag:content]",
        "a@[]",
        "a@.",
        "a@b..",
        "a@\u2100.test",  # a/c under NFKC
        "a@b\u00a0c.test",  # no-break space
        "a@b\u202ec.test",  # right-to-left override
        "a@b\uffff.test",
        "a" * 897 + "@a.b",  # 901 octets
        '"' + "\\a" * 448 + '"@a.b',  # counted as it is written
        "a@" + "❤" * 64,
        "a@a\u0301\u0301\u200b.test",  # zero width space
        "a@\u0301a.test",  # begins with a mark
        "a\x80b@a.b",  # C1 control
        "a\udcffb@a.b",  # an octet that was not UTF-8
        "a@b\udcff.c",
        "a@b/c",
        "a@b%c",
    ],
)
def test_bad_addresses(text: str) -> None:
    with pytest.raises(BadAddress):
        parse_address(text)


def test_errors_state_what_was_expected_and_where() -> None:
    with pytest.raises(BadAddress, match=r"unexpected ' ' at 17"):
        parse_address("alice@example.org x")
    with pytest.raises(BadAddress, match="expected '@' at 5"):
        parse_address("alice")


def test_mailbox_inside_a_longer_text() -> None:
    text = "FROM:<alice@example.org> SIZE=1"
    assert mailbox_at(text, 6) == (Address("alice", "example.org"), 23)


def test_postmaster_needs_no_domain() -> None:
    assert parse_forward_path("postMASTER") == Postmaster()
    assert parse_forward_path("postmaster@a.b") == Address("postmaster", "a.b")
    with pytest.raises(BadAddress):
        parse_forward_path("hostmaster")


def test_written_as_dot_string_or_quoted_string() -> None:
    assert str(Address("a.b", "c.d")) == "a.b@c.d"
    assert str(Address("用户", "c.d")) == "用户@c.d"
    assert str(Address('a "b\\', "c.d")) == '"a \\"b\\\\"@c.d'
    assert str(Address(".a", "c.d")) == '".a"@c.d'
    assert str(Address("", "c.d")) == '""@c.d'


def test_smtputf8_is_needed_for_the_local_part_only() -> None:
    assert parse_address("用户@example.org").needs_smtputf8
    assert not parse_address("x@例子.test").needs_smtputf8


def test_canonical_local_ignores_case_and_composition() -> None:
    assert canonical_local("ALICE") == "alice"
    assert canonical_local("E\u0301ric") == canonical_local("éRIC") == "éric"
    assert canonical_local("Straße") == "straße"
    assert canonical(Address("Bob", "a.b")) == Address("bob", "a.b")


@pytest.mark.parametrize(
    ("local", "separator", "split"),
    [
        ("alice+lists", "+", ("alice", "lists")),
        ("alice+a+b", "+", ("alice", "a+b")),
        ("alice", "+", ("alice", "")),
        ("alice+", "+", ("alice", "")),
        ("+alice", "+", ("+alice", "")),
        ("alice-lists", "-", ("alice", "lists")),
        ("alice+lists", "", ("alice+lists", "")),
    ],
)
def test_split_detail(local: str, separator: str, split: tuple[str, str]) -> None:
    assert split_detail(local, separator) == split


def test_normal_domain_refuses_an_open_literal() -> None:
    with pytest.raises(BadAddress):
        normal_domain("a." * 100_000)


@given(st.text(max_size=80), st.sampled_from(["example.org", "[192.0.2.1]", "xn--bcher-kva.test"]))
def test_any_local_part_round_trips(local: str, domain: str) -> None:
    written = str(Address(local, domain))
    try:
        address = parse_address(written)
    except BadAddress:
        assert len(local.encode(errors="replace")) > 60 or any(ord(c) < 32 or 126 < ord(c) < 160 for c in local)
    else:
        assert address == Address(local, domain)


@given(st.text(max_size=300))
def test_any_text_is_an_address_or_bad(text: str) -> None:
    for candidate in (text, f"a@{text}", f"{text}@a.b", f'"{text}"@a.b', f"a@[{text}]", f"a@xn--{text}"):
        try:
            address = parse_address(candidate)
        except BadAddress:
            continue
        assert parse_address(str(address)) == address
        assert address.domain.isascii()
        assert normal_domain(address.domain) == address.domain


@given(st.text(max_size=64))
def test_canonical_local_is_a_fixed_point(local: str) -> None:
    once = canonical_local(local)
    assert canonical_local(once) == once


@pytest.mark.parametrize("local", [".alice", "alice.", "a..b", "."])
def test_dots_at_any_place_are_written_in_quotes(local: str) -> None:
    """Japanese carriers assigned such addresses, before and after the rule against them."""
    address = parse_address(f"{local}@docomo.example")
    assert (address.local, str(address)) == (local, f'"{local}"@docomo.example')
    assert parse_address(str(address)) == address
