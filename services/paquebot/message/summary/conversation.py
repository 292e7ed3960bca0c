"""How messages are joined to a conversation: by the key of the first Message-ID, and by the base subject.

RFC 5256 §2.1 (base subject), RFC 5322 §3.6.4 (identification fields).
"""

import hashlib
from typing import Final

from paquebot.message.text.encoded_text import decode_header_text

_KEY_BYTES: Final = 16
_MAX_SUBJECT: Final = 4096


def thread_key(references: bytes | None, in_reply_to: bytes | None, message_id: bytes | None) -> bytes:
    """16 bytes that are equal for all messages of one conversation, b"" for a message without identity.

    The values are unfolded. The first message identifies a conversation: the first Message-ID in References,
    else the first in In-Reply-To, else the message's own.
    """
    for value in (references, in_reply_to, message_id):
        if value and (found := first_message_id(value)):
            return hashlib.blake2b(found, digest_size=_KEY_BYTES).digest()
    return b""


def first_message_id(value: bytes) -> bytes | None:
    """RFC 5322 §3.6.4: msg-id = [CFWS] "<" id-left "@" id-right ">" [CFWS]; the text in the first brackets."""
    start = value.find(b"<")
    end = value.find(b">", start)
    found = b"".join(value[start + 1 : end].split()) if 0 <= start < end else b""
    return found or None


def base_subject(value: bytes) -> str:
    """RFC 5256 §2.1: the subject (an unfolded value) without reply and forward marks; case is kept.

    Compare results with str.casefold. Only the first 4,096 characters count.
    """
    # (1) decode, tabs and runs of blanks to one space
    subject = " ".join(decode_header_text(value[:_MAX_SUBJECT]).split())
    while True:
        subject = _without_trailers(subject)  # (2)
        subject = _without_leaders(subject)  # (3) to (5)
        # (6) subj-fwd: "[fwd:" … "]"
        if not (subject[:5].lower() == "[fwd:" and subject.endswith("]")):
            return subject
        subject = subject[5:-1].strip()


def _without_trailers(subject: str) -> str:
    """subj-trailer = "(fwd)" / WSP"""
    while subject[-5:].lower() == "(fwd)":
        subject = subject[:-5].rstrip()
    return subject


def _without_leaders(subject: str) -> str:
    """subj-leader and subj-blob, as long as something remains (steps 3, 4 and 5)."""
    pos = 0
    while (after := _leader(subject, pos)) is not None:
        pos = after
    while (after := _blob(subject, pos)) != pos:
        if after == len(subject):  # (4): a blob that is the whole rest stays
            break
        pos = after
    return subject[pos:]


def _leader(subject: str, pos: int) -> int | None:
    """subj-leader = (*subj-blob subj-refwd) / WSP; the offset after it, or None."""
    while (after := _blob(subject, pos)) != pos:
        pos = after
    for mark in ("fwd", "re", "fw"):
        if subject[pos : pos + len(mark)].lower() == mark:
            end = _skip_space(subject, pos + len(mark))
            end = _blob(subject, end)  # subj-refwd = ("re" / ("fw" ["d"])) *WSP [subj-blob] ":"
            if subject.startswith(":", end):
                return _skip_space(subject, end + 1)
    return None


def _blob(subject: str, pos: int) -> int:
    """subj-blob = "[" *BLOBCHAR "]" *WSP; the offset after it, or `pos` when there is none."""
    if not subject.startswith("[", pos):
        return pos
    close = subject.find("]", pos + 1)
    if close < 0 or subject.find("[", pos + 1, close) >= 0:
        return pos
    return _skip_space(subject, close + 1)


def _skip_space(subject: str, pos: int) -> int:
    while subject.startswith(" ", pos):
        pos += 1
    return pos
