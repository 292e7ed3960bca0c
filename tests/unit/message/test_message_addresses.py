"""Address lists: RFC 5322's own examples, the obsolete syntax, and lists from real messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.message import MailAddress, addresses, limits

END = MailAddress(None, None, None, None)


def mailbox(name: str | None, address: str, adl: str | None = None) -> MailAddress:
    local, _, host = address.rpartition("@")
    return MailAddress(
        name.encode() if name is not None else None, adl.encode() if adl else None, local.encode(), host.encode()
    )


def group(name: str) -> MailAddress:
    return MailAddress(None, None, name.encode(), None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # RFC 5322 §A.1.1, §A.1.2
        ("John Doe <jdoe@machine.example>", [mailbox("John Doe", "jdoe@machine.example")]),
        ('"Joe Q. Public" <john.q.public@example.com>', [mailbox("Joe Q. Public", "john.q.public@example.com")]),
        (
            "Mary Smith <mary@x.test>, jdoe@example.org, Who? <one@y.test>",
            [mailbox("Mary Smith", "mary@x.test"), mailbox(None, "jdoe@example.org"), mailbox("Who?", "one@y.test")],
        ),
        (
            '<boss@nil.test>, "Giant; \\"Big\\" Box" <sysservices@example.net>',
            [mailbox(None, "boss@nil.test"), mailbox('Giant; "Big" Box', "sysservices@example.net")],
        ),
        # §A.1.3
        (
            "A Group:Ed Jones <c@a.test>,joe@where.test,John <jdoe@one.test>;",
            [
                group("A Group"),
                mailbox("Ed Jones", "c@a.test"),
                mailbox(None, "joe@where.test"),
                mailbox("John", "jdoe@one.test"),
                END,
            ],
        ),
        ("Undisclosed recipients:;", [group("Undisclosed recipients"), END]),
        # §A.5
        (
            "Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>",
            [mailbox("Pete", "pete@silly.test")],
        ),
        ("(Empty list)(start)Hidden recipients  :(nobody(that I know))  ;", [group("Hidden recipients"), END]),
        # §A.6.1 and the obsolete route
        ("Joe Q. Public <john.q.public@example.com>", [mailbox("Joe Q. Public", "john.q.public@example.com")]),
        ("Mary Smith <@node.test:mary@example.net>, , jdoe@test  . example",
         [mailbox("Mary Smith", "mary@example.net", "@node.test"), mailbox(None, "jdoe@test.example")]),
        ("<@a.test,@b.test:c@d.test>", [mailbox(None, "c@d.test", "@a.test,@b.test")]),
        # quoting is undone (RFC 3501 §7.4.2)
        ('"john doe"@x.test', [mailbox(None, "john doe@x.test")]),
        ('<"a@b"@x.test>', [MailAddress(None, None, b"a@b", b"x.test")]),
        ("a@[192.0.2.1]", [mailbox(None, "a@[192.0.2.1]")]),
        ("b@[IPv6:2001:db8::1], c", [mailbox(None, "b@[IPv6:2001:db8::1]"), MailAddress(None, None, b"c", b"")]),
        # a comment as the name
        ("bob@x.test (Bob (the) B)", [mailbox("Bob (the) B", "bob@x.test")]),
        ("<bob@x.test> (Bob)", [mailbox("Bob", "bob@x.test")]),
        # lists from real messages
        ("john@x.test <john@x.test>", [mailbox("john@x.test", "john@x.test")]),
        ("'bob@c.test' <bob@c.test>", [mailbox("'bob@c.test'", "bob@c.test")]),
        ('"" <a@b.test>', [mailbox(None, "a@b.test")]),
        ("root", [MailAddress(None, None, b"root", b"")]),
        ("The Captain", [MailAddress(None, None, b"The Captain", b"")]),
        ("<>", [MailAddress(None, None, b"", b"")]),
        ("Name <>", [MailAddress(b"Name", None, b"", b"")]),
        ("a <b@c.test", [mailbox("a", "b@c.test")]),
        ('"lost quote <b@c.test>', [MailAddress(None, None, b"lost quote <b@c.test>", b"")]),
        ("a@b.test; c@d.test", [mailbox(None, "a@b.test"), mailbox(None, "c@d.test")]),
        ("x <y@z.test> <w@v.test>", [mailbox("x", "y@z.test"), mailbox(None, "w@v.test")]),
        ("=?utf-8?q?J=C3=B6rg?= <j@x.test>", [mailbox("=?utf-8?q?J=C3=B6rg?=", "j@x.test")]),
        ("Jörg <jörg@bücher.test>", [mailbox("Jörg", "jörg@bücher.test")]),
        ("Group: a@b.test, c@d.test", [group("Group"), mailbox(None, "a@b.test"), mailbox(None, "c@d.test"), END]),
        ("Sales: Team <s@x.test> tail: y;", [group("Sales"), mailbox("Team", "s@x.test"), END]),
        ("", []),
        (" , ,, ", []),
    ],
)  # fmt: skip
def test_addresses(value: str, expected: list[MailAddress]) -> None:
    assert addresses(value.encode()) == expected


def test_number_of_addresses_is_bounded() -> None:
    assert len(addresses(b"a@b.test, " * 3 * limits.MAX_ADDRESSES)) <= limits.MAX_ADDRESSES + 1


@given(st.binary())
def test_never_raises_and_ends_every_group(value: bytes) -> None:
    found = addresses(value)
    starts = sum(entry.host is None and entry.mailbox is not None for entry in found)
    assert starts == found.count(END)


LOCAL = st.from_regex(r"[a-z][a-z0-9.+_-]{0,10}", fullmatch=True)
HOST = st.from_regex(r"[a-z][a-z0-9-]{0,10}\.test", fullmatch=True)
NAME = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20).map(str.strip)


@given(st.lists(st.tuples(NAME, LOCAL, HOST), max_size=6))
def test_quoted_names_round_trip(entries: list[tuple[str, str, str]]) -> None:
    parts = []
    for name, local, host in entries:
        quoted = name.replace("\\", "\\\\").replace('"', '\\"')
        parts.append(f'"{quoted}" <{local}@{host}>')
    expected = [mailbox(name or None, f"{local}@{host}") for name, local, host in entries]
    assert addresses(", ".join(parts).encode()) == expected
