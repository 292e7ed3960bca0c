"""Conversation keys and base subjects."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.message import base_subject, thread_key


@pytest.mark.parametrize(
    ("subject", "base"),
    [
        ("hello", "hello"),
        ("Re: hello", "hello"),
        ("RE: FWD: fw: re: hello", "hello"),
        ("Re [2]: hello", "hello"),
        ("re[x]  : hello", "hello"),
        ("[list] hello", "hello"),
        ("[list] Re: hello", "hello"),
        ("Re: [list] Re: hello", "hello"),
        ("[a] [b] hello", "hello"),
        ("[PATCH 1/2]", "[PATCH 1/2]"),
        ("[a] [b]", "[b]"),
        ("Re: [list]", "[list]"),
        ("hello (fwd)", "hello"),
        ("hello (FWD) (fwd) ", "hello"),
        ("[Fwd: hello]", "hello"),
        ("[Fwd: Re: [x] hello (fwd)]", "hello"),
        ("Re: [fwd: [fwd: hello]]", "hello"),
        ("  spaces \t and   tabs ", "spaces and tabs"),
        ("=?utf-8?q?Re=3A_caf=C3=A9?=", "café"),
        ("Reply: hello", "Reply: hello"),
        ("Re hello", "Re hello"),
        ("[unclosed hello", "[unclosed hello"),
        ("[a[b] hello", "[a[b] hello"),
        ("Re:", ""),
        ("", ""),
    ],
)
def test_base_subject(subject: str, base: str) -> None:
    """RFC 5256 §2.1"""
    assert base_subject(subject.encode()) == base


@given(st.text(alphabet="[]():refwdREFWD ", max_size=40).map(str.encode))
def test_base_subject_is_a_fixed_point_of_replies(subject: bytes) -> None:
    base = base_subject(subject)
    assert base_subject(b"Re: " + subject) == base
    assert base_subject(subject + b" (fwd)") == base


def test_base_subject_of_a_hostile_subject_is_quick() -> None:
    start = time.process_time()
    base_subject(b"[a]" * 100_000 + b"x")
    base_subject(b"[fwd:" * 50_000 + b"]" * 50_000)
    base_subject(b"x" + b"(fwd)" * 50_000)
    assert time.process_time() - start < 1


def test_thread_key_prefers_the_oldest_ancestor() -> None:
    root = thread_key(None, None, b"<root@x>")
    assert len(root) == 16
    assert thread_key(b"<root@x> <2@x>", b"<2@x>", b"<3@x>") == root
    assert thread_key(None, b"Your mail of Monday <root@x>", b"<3@x>") == root
    assert thread_key(b"broken", b"", b" <root@x>") == root
    assert thread_key(b"< root@\tx >", None, None) == root


@pytest.mark.parametrize("value", [None, b"", b"no brackets", b"<>", b"> <", b"<unclosed"])
def test_no_thread_key_without_an_identity(value: bytes | None) -> None:
    assert thread_key(value, value, value) == b""


@given(st.binary(), st.binary(), st.binary())
def test_thread_key_is_empty_or_16_bytes(references: bytes, in_reply_to: bytes, message_id: bytes) -> None:
    assert len(thread_key(references, in_reply_to, message_id)) in (0, 16)
