"""Every size that IMAP returns is the number of bytes that it sends, for any message."""

from __future__ import annotations

import re

import pytest

from tests.support.imap_wire import WireClient, connected
from tests.support.imap_world import ImapStack

ODD = {
    "lone LF": b"Subject: l\n\none\ntwo\n",
    "lone CR": b"Subject: c\r\rx\r\r\n\r\none\rtwo\r",
    "no last CRLF": b"Subject: e\r\n\r\nno end",
    "an empty line": b"\r\n",
    "a lone line feed": b"\n",
    "one byte": b"x",
    "header only": b"Subject: h\r\n",
    "no empty line": b"Subject: h\r\nTo: a@b.test",
    "dots": b"a: b\r\n\r\n.\r\n..\r\n.end",
    "NUL": b"a: \0b\0\r\n\r\n\0nul\0\n\xff\0",
    "quoted-printable": b"Content-Transfer-Encoding: quoted-printable\r\n\r\na=3Db=\r\n =00 \r\nc=\n",
    "base64": b"Content-Transfer-Encoding: base64\r\n\r\nAAEC\r\nA===\r\n!!",
    "parts": b"Content-Type: multipart/mixed; boundary=b\n\n\n--b\nContent-Transfer-Encoding: base64\n\nAAA=\n--b--\nx",
    "embedded": b"Content-Type: message/rfc822\r\n\r\nSubject: inner\n\ninner text",
}
_ITEM = re.compile(rb"([A-Z0-9.]+(?:\[[^\]]*\])?(?:<\d+>)?) (?:~?\{(\d+)\}\r\n|\"([^\"]*)\"|(\d+|NIL))")


async def fetched(client: WireClient, *items: str) -> dict[bytes, bytes]:
    """Literals, strings and numbers of message 1 by item."""
    (line,) = await client.ok(f"FETCH 1 ({' '.join(items)})")
    found: dict[bytes, bytes] = {}
    position = 0
    while match := _ITEM.search(line, position):
        name, size, quoted, number = match.groups()
        position = match.end()
        if size is not None:
            found[name] = line[position : position + int(size)]
            position += int(size)
        else:
            found[name] = number if quoted is None else quoted
    return found


@pytest.mark.parametrize("name", ODD)
async def test_sizes_are_those_of_the_bytes(imap_stack: ImapStack, name: str) -> None:
    raw = ODD[name]
    reader = await imap_stack.reader()
    async with imap_stack.serving() as server, connected(server.port("imaps"), reader) as client:
        await client.say(b"x APPEND INBOX ~{%d+}\r\n%b\r\n" % (len(raw), raw))
        assert (await client.line()).startswith(b"x OK")
        await client.ok("EXAMINE INBOX")
        found = await fetched(
            client,
            *("RFC822.SIZE", "BODY.PEEK[]", "BODY.PEEK[HEADER]", "BODY.PEEK[TEXT]", "BINARY.PEEK[]", "BINARY.PEEK[1]"),
            *("BINARY.SIZE[1]", "BINARY.SIZE[]", "BODY.PEEK[]<2.5>", "BODY.PEEK[]<0.9999>", "RFC822", "RFC822.HEADER"),
        )
        seen = raw.replace(b"\0", b"\x80")  # no NUL in a literal; as long
        assert found[b"RFC822.SIZE"] == b"%d" % len(raw) == found[b"BINARY.SIZE[]"]
        assert found[b"BODY[]"] == found[b"RFC822"] == found[b"BODY[HEADER]"] + found[b"BODY[TEXT]"] == seen
        assert found[b"BODY[]<0>"] == seen and found[b"BODY[]<2>"] == seen[2:7]
        assert found[b"BINARY[]"] == raw
        assert found[b"BINARY.SIZE[1]"] == b"%d" % len(found[b"BINARY[1]"])
        assert await client.ok(f"SEARCH LARGER {len(raw) - 1} SMALLER {len(raw) + 1}") == [b"* SEARCH 1\r\n"]
        (status,) = await client.ok("STATUS INBOX (SIZE MESSAGES)")
        assert b"SIZE %d" % len(raw) in status
