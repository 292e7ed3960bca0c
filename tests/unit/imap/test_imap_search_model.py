"""SEARCH against a plain model, which decodes each text whole and checks every key with all facts.

The search itself decodes pieces, searches for all texts together, keeps only matches, and stops at its verdict.
"""

from __future__ import annotations

import base64
import datetime
import functools
import quopri
import random
from array import array
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from paquebot.imap.mailbox_view.view import View
from paquebot.imap.search import texts as texts_module
from paquebot.imap.search.facts import MessageFacts
from paquebot.imap.search.keys import SearchContext
from paquebot.imap.search.run import SearchRun
from paquebot.imap.search.turns import SearchTurns
from paquebot.mailstore import Flag, FlagRows, StoredMessage
from paquebot.message import (
    BodyPart,
    MessageSummary,
    decode_header_text,
    decode_part_text,
    embedded_message,
    field_value,
    fields,
    is_multipart,
    summarise,
    text_pieces,
)
from paquebot.v1.mail_pb2 import BlobRef
from paquebot.wire.imap import ast

_CONTEXT = SearchContext(exists=1, last_uid=1, saved_uids=(), charset="UTF-8", now=0.0)
_VIEW = View(FlagRows(uids=array("I", (1,)), flags=bytes(1), mod_seqs=array("Q", (1,))), 1)
_WORDS = ("alpha", "Beta", "gamma", "Straße", "ÉCOLE", "日本語", "русский", "x", "needle", "=?", "\r\n", "ſ", "İ")
_CHARSETS = ("utf-8", "iso-8859-1", "koi8-r", "iso-2022-jp", "shift_jis", "utf-16", "us-ascii", "x-unknown", "")
_FIELDS = ("Subject", "From", "X-Custom", "Received", "Cc", "List-Id")


class Mail:
    """Messages and searches, drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.texts: list[str] = []

    def text(self, most: int) -> str:
        return " ".join(self.random.choice(_WORDS) for _ in range(self.random.randrange(most)))

    def header(self) -> bytes:
        lines = []
        for _ in range(self.random.randrange(6)):
            values = (self.random.choice((self._word, self._raw, lambda: b"\r\n "))() for _ in range(3))
            lines.append(self.random.choice(_FIELDS).encode() + b": " + b"".join(values) + b"\r\n")
        return b"".join(lines)

    def _raw(self) -> bytes:
        return self.text(3).replace("\r\n", " ").encode()

    def _word(self) -> bytes:
        charset = self.random.choice(_CHARSETS[:6])
        data = self.text(3).encode(charset, "replace")
        if self.random.random() < 0.5:
            return b"=?%b?B?%b?=" % (charset.encode(), base64.b64encode(data))
        return b"=?%b?q?%b?=" % (charset.encode(), b"".join(b"=%02X" % octet for octet in data))

    def entity(self, depth: int = 0) -> bytes:
        kind = self.random.random()
        if depth < 3 and kind < 0.35:
            boundary = b"b%d" % self.random.randrange(10**6)
            parts = [b"--%b\r\n%b\r\n" % (boundary, self.entity(depth + 1)) for _ in range(self.random.randrange(4))]
            head = b"Content-Type: multipart/mixed; boundary=%b\r\n\r\n" % boundary
            return head + b"".join(parts) + b"--%b--\r\n" % boundary
        if depth < 3 and kind < 0.45:
            return b"Content-Type: message/rfc822\r\n\r\n" + self.header() + self.entity(depth + 1)
        return self._leaf()

    def _leaf(self) -> bytes:
        charset = self.random.choice(_CHARSETS)
        text = self.text(self.random.choice((4, 80)))
        self.texts.append(text)
        data = text.encode(charset if charset not in ("", "x-unknown") else "utf-8", "replace")
        data += self.random.randbytes(5) if self.random.random() < 0.1 else b""
        encoding, encode = self.random.choice(
            ((b"base64", base64.encodebytes), (b"quoted-printable", quopri.encodestring), (b"8bit", bytes))
        )
        kind = b"text/plain" if self.random.random() < 0.9 else b"application/octet-stream"
        parameter = b"; charset=" + charset.encode() if charset else b""
        return b"Content-Type: %b%b\r\nContent-Transfer-Encoding: %b\r\n\r\n%b" % (
            kind,
            parameter,
            encoding,
            encode(data),
        )

    def key(self, depth: int = 0) -> ast.SearchKey:
        kind = self.random.random()
        if depth < 3 and kind < 0.2:
            return ast.SearchNot(self.key(depth + 1))
        if depth < 3 and kind < 0.35:
            return ast.SearchOr(self.key(depth + 1), self.key(depth + 1))
        if depth < 3 and kind < 0.5:
            return ast.SearchAnd(tuple(self.key(depth + 1) for _ in range(self.random.randint(1, 4))))
        wanted = self._wanted().encode()
        if kind < 0.7:
            return ast.SearchBody(wanted)
        if kind < 0.85:
            return ast.SearchText(wanted)
        return ast.SearchHeader(self.random.choice((*_FIELDS, "Delivered-To")).lower(), wanted)

    def _wanted(self) -> str:
        if self.texts and self.random.random() < 0.6:
            text = self.random.choice(self.texts)
            start = self.random.randrange(len(text) + 1)
            return text[start : start + self.random.choice((1, 5, 60, 300))]
        return self.random.choice((*_WORDS, "", "nowhere at all"))


def matches(key: ast.SearchKey, message: StoredMessage, summary: MessageSummary, raw: bytes) -> bool:
    """Evaluate the key by the model."""
    header = message.prefix + raw[: summary.body.body_offset]
    match key:
        case ast.SearchAnd(keys):
            return all(matches(one, message, summary, raw) for one in keys)
        case ast.SearchOr(left, right):
            return matches(left, message, summary, raw) or matches(right, message, summary, raw)
        case ast.SearchNot(inner):
            return not matches(inner, message, summary, raw)
        case ast.SearchHeader(field, value):
            found = (_decoded(name, data) for name, data in fields(header) if name.decode("latin-1") == field)
            return any(_has(text, value) for text in found)
        case ast.SearchBody(value):
            return not value or any(_has(text, value) for text in _texts(summary.body, raw))
        case ast.SearchText(value):
            lines = (f"{name.decode('latin-1')}: {_decoded(name, data)}" for name, data in fields(header))
            return not value or any(_has(text, value) for text in (*lines, *_texts(summary.body, raw)))
    raise AssertionError(key)


def _has(text: str, value: bytes) -> bool:
    return value.decode().casefold() in text.casefold()


def _decoded(name: bytes, data: bytes) -> str:
    return decode_header_text(field_value(data) if name else data)


def _texts(part: BodyPart, raw: bytes) -> Iterator[str]:
    embedded = embedded_message(part)
    if is_multipart(part):
        for child in part.parts:
            yield from _texts(child, raw)
    elif embedded is not None:
        yield decode_header_text(raw[embedded.header_offset : embedded.body_offset])
        yield from _texts(embedded, raw)
    elif part.type == b"TEXT":
        charset = next((p.value.decode("latin-1") for p in part.parameters if p.name.lower() == b"charset"), "")
        body = raw[part.body_offset : part.body_offset + part.body_length]
        yield decode_part_text(body, part.encoding, charset)


async def searched(key: ast.SearchKey, message: StoredMessage, summary: MessageSummary, raw: bytes) -> bool:
    """Evaluate one message as SEARCH does: from its row, then from its body."""
    settings = SimpleNamespace(session=SimpleNamespace(search_work=10**12))
    context: Any = SimpleNamespace(server=SimpleNamespace(turns=SearchTurns(), settings=settings), connection=None)
    state: Any = SimpleNamespace(view=_VIEW, account=SimpleNamespace(account_id=1))
    search = SearchRun(context.server, context.connection, state, key, _CONTEXT)
    if not await search._decide_with_fields(MessageFacts(_VIEW, 1, None, message, summary)):
        await search._search_body(MessageFacts(_VIEW, 1, None, message, summary, raw), raw)
    assert len(search._found) <= 1
    return 1 in search._found


@pytest.mark.parametrize("piece", [23, 64 * 1024])
async def test_a_search_agrees_with_a_plain_model(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    small: Callable[..., Iterator[str]] = functools.partial(text_pieces, piece=piece)
    monkeypatch.setattr(texts_module, "text_pieces", small)
    found = 0
    at = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
    for seed in range(120):
        mail = Mail(seed)
        raw = mail.header() + mail.entity()
        prefix = mail.random.choice((b"", b"Return-Path: <a@b>\r\nDelivered-To: Needle@example.org\r\n"))
        message = StoredMessage(1, 1, Flag(0), (), len(raw), at, at, BlobRef(), prefix, "", None, None)
        summary = summarise(raw)
        for _ in range(6):
            key = mail.key()
            wanted = matches(key, message, summary, raw)
            assert await searched(key, message, summary, raw) is wanted, (seed, key)
            found += wanted
    assert 200 < found < 520  # both verdicts are tried


@pytest.mark.parametrize("there", [(1, 3), (1, 2, 3)])
async def test_a_message_expunged_during_the_search_is_noticed(there: tuple[int, ...]) -> None:
    """A missing row shows it (RFC 5530 §3, EXPUNGEISSUED)."""
    at = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
    raw = b"Subject: x\r\n\r\nx\r\n"

    async def rows(*_: object, **__: object) -> AsyncIterator[StoredMessage]:
        for uid in there:
            yield StoredMessage(
                *(uid, 1, Flag(0), (), len(raw), at, at, BlobRef(), b"", "", None, summarise(raw).SerializeToString())
            )

    settings = SimpleNamespace(session=SimpleNamespace(search_work=10**12))
    mailbox_reader = SimpleNamespace(messages=rows)
    context: Any = SimpleNamespace(
        server=SimpleNamespace(turns=SearchTurns(), settings=settings, mailbox_reader=mailbox_reader), connection=None
    )
    view = View(FlagRows(uids=array("I", (1, 2, 3)), flags=bytes(3), mod_seqs=array("Q", (1, 1, 1))), 1)
    state: Any = SimpleNamespace(view=view, account=SimpleNamespace(account_id=1), mailbox_id=1)
    search = SearchRun(context.server, context.connection, state, ast.SearchHeader("subject", b"x"), _CONTEXT)
    assert list(await search._from_summaries(array("I", (1, 2, 3)))) == []
    assert list(search._found) == list(there)
    assert search.expunged is (len(there) < 3)
