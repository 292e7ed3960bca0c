"""SEARCH in bodies: the cost of decoding and comparing."""

from __future__ import annotations

import datetime
from array import array
from collections.abc import Iterator

import pytest

from paquebot.imap.mailbox_view.view import View
from paquebot.imap.search import run
from paquebot.imap.search import texts as texts_module
from paquebot.imap.search.facts import MessageFacts
from paquebot.imap.search.keys import SearchContext, compile_key, count_keys, fields_of, texts_of
from paquebot.imap.search.texts import TextsFound, part_texts, search_texts
from paquebot.mailstore import Flag, FlagRows, StoredMessage
from paquebot.message import summarise, text_pieces
from paquebot.v1.mail_pb2 import BlobRef
from paquebot.wire.imap import ast

CONTEXT = SearchContext(exists=1, last_uid=1, saved_uids=(), charset="UTF-8", now=0.0)
LINE = "The quick brown fox, Straße, \N{GRINNING FACE}\r\n".encode()


def message(size: int, *, subtype: str = "plain") -> bytes:
    head = b"Subject: one\r\nContent-Type: text/%b; charset=utf-8\r\n\r\n" % subtype.encode()
    return head + LINE * (size // len(LINE))


def a_view() -> View:
    return View(FlagRows(uids=array("I", (1,)), flags=bytes(1), mod_seqs=array("Q", (1,))), 1)


def stored(raw: bytes) -> StoredMessage:
    at = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
    return StoredMessage(1, 1, Flag(0), (), len(raw), at, at, BlobRef(), b"", "", None, None)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of the pieces that were decoded."""
    lengths: list[int] = []

    def counting(body: memoryview, encoding: bytes, charset: str) -> Iterator[str]:
        for piece in text_pieces(body, encoding, charset):
            lengths.append(len(piece))
            yield piece

    monkeypatch.setattr(texts_module, "text_pieces", counting)
    return lengths


def searched(raw: bytes, wanted: list[str]) -> tuple[TextsFound, list[int]]:
    texts = TextsFound()
    return texts, list(search_texts(part_texts(raw, summarise(raw).body), wanted, texts))


def test_a_body_is_decoded_once_for_505_texts(decoded: list[int]) -> None:
    raw = message(300_000)
    texts, steps = searched(raw, [f"nowhere {number}" for number in range(505)])
    assert texts.complete and texts.found == {""}
    assert sum(decoded) == len(LINE.decode()) * (300_000 // len(LINE))
    assert max(decoded) <= 64 * 1024
    # Each step is short: 16 texts and one piece.
    assert max(steps) <= 16 * (64 * 1024 + 16 + texts_module._COMPARISON)


@pytest.mark.parametrize("texts", [1, 505])
def test_parts_of_one_character_have_a_cost(texts: int) -> None:
    """The cost of steps ends a turn, so steps without a cost would never end it."""
    head = b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n'
    raw = head + b"--b\r\n\r\nx\r\n" * 900 + b"--b--\r\n"
    _, steps = searched(raw, [f"nowhere {number}" for number in range(texts)])
    assert len(steps) > 900 * (1 + texts // 16)
    in_a_turn = run._TURN // (sum(steps) // len(steps))
    assert in_a_turn < 1000


@pytest.mark.parametrize("texts", [1, 40])
def test_twice_the_text_needs_twice_the_work(texts: int) -> None:
    wanted = [f"nowhere {number:03}" for number in range(texts)]
    once, twice = (sum(searched(message(size), wanted)[1]) for size in (1_000_000, 2_000_000))
    assert 1.95 < twice / once < 2.05


def test_a_text_that_was_found_is_not_searched_for_again() -> None:
    raw = message(1_000_000)
    found = sum(searched(raw, ["quick", "brown", "strasse"])[1])
    missing = sum(searched(raw, ["nowhere", "nothing", "never"])[1])
    assert found < missing - 2 * 900_000


def test_texts_are_found_across_the_pieces_of_a_part() -> None:
    filler = "x" * 65_530
    raw = f"Subject: a\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{filler}a needle\r\n{filler}".encode()
    assert "a needle" in searched(raw, ["a needle", "y" * 70_000])[0].found
    assert "needle\r\nxxx" in searched(raw, ["needle\r\nxxx"])[0].found


def test_texts_are_found_in_embedded_messages_and_encodings() -> None:
    inner = b"Subject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\nContent-Transfer-Encoding: base64\r\n\r\nYSBOZWVkbGU=\r\n"
    raw = b"Content-Type: message/rfc822\r\n\r\n" + inner
    assert searched(raw, ["grüsse", "a needle", "nowhere"])[0].found == {"", "grüsse", "a needle"}


def test_a_text_that_is_not_utf_8_to_its_end_is_read_as_windows_1252(decoded: list[int]) -> None:
    raw = b"Subject: a\r\n\r\n" + "ü".encode() * 50_000 + b"\xff caf\xe9"
    assert searched(raw, ["café", "ü"])[0].found == {"", "café"}
    assert max(decoded) <= 64 * 1024


def test_a_search_stops_as_soon_as_the_verdict_is_known() -> None:
    """505 x NOT BODY is false as soon as the first text is found."""
    key = ast.SearchAnd(tuple(ast.SearchNot(ast.SearchBody(b"fox %d" % n if n else b"fox")) for n in range(505)))
    raw = message(1_000_000)
    facts = MessageFacts(a_view(), 1, summary=summarise(raw), body=raw, texts=TextsFound())
    assert facts.summary is not None and facts.texts is not None
    predicate = compile_key(key, CONTEXT)
    assert predicate(facts) is None
    steps = search_texts(part_texts(raw, facts.summary.body), texts_of(key, CONTEXT, ast.SearchBody), facts.texts)
    assert any(predicate(facts) is False for _ in steps)
    assert "fox" in facts.texts.found and not facts.texts.complete


def test_texts_and_keys_of_a_search() -> None:
    body, text, seen = ast.SearchBody(b"One"), ast.SearchText(b"one"), ast.SearchFlag("\\Seen", present=True)
    key = ast.SearchAnd((ast.SearchNot(body), ast.SearchOr(text, ast.SearchBody(b"Two")), seen))
    assert texts_of(key, CONTEXT, ast.SearchBody, ast.SearchText) == ("one", "two")
    assert texts_of(key, CONTEXT, ast.SearchText) == ("one",)
    assert fields_of(key, CONTEXT) == ()
    subject = ast.SearchHeader("subject", b"Hello")
    assert fields_of(ast.SearchOr(subject, ast.SearchNot(subject)), CONTEXT) == (("subject", "hello"),)
    assert count_keys(key) == 4


def test_many_keys_of_a_long_header_are_many_short_steps() -> None:
    """505 x HEADER and TEXT: the header is decoded once for each, and no step compares more than a few texts."""
    raw = b"Subject: " + b"x" * 200_000 + b"\r\n\r\nbody\r\n"
    texts = [f"nowhere {number}" for number in range(505)]
    facts = MessageFacts(a_view(), 1, message=stored(raw), summary=summarise(raw), body=raw)
    assert facts.header_contains("subject", texts[0]) is None
    steps = list(facts.match_fields([("subject", text) for text in texts]))
    assert len(steps) == 506 and max(steps) <= 200_000 + 1024
    assert facts.header_contains("subject", texts[0]) is False
    facts.header_texts = TextsFound()
    steps = list(search_texts((facts.header(),), texts, facts.header_texts))
    assert facts.header_texts.complete
    assert max(steps) <= 16 * (64 * 1024 + 16 + texts_module._COMPARISON)
    assert facts.text_contains(texts[0]) is None  # the body was not searched
    facts.texts = TextsFound(complete=True)
    assert facts.text_contains(texts[0]) is False
