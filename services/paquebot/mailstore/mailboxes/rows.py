"""Rows of `mailstore.mailboxes` into `Mailbox`."""

import contextlib
from collections.abc import Iterable

from paquebot.mailstore import bad_rows
from paquebot.mailstore.bad_rows import BadRowResult, Report
from paquebot.mailstore.blob_rows import Record
from paquebot.mailstore.mailboxes.mailbox import Mailbox, SpecialUse
from paquebot.mailstore.messages.keywords import is_keyword

MAILBOX_COLUMNS = """
    b.account_id, b.mailbox_id, b.name, b.uid_validity, b.uid_next, b.highest_mod_seq, b.recent_from, b.recent,
    b.messages, b.unseen, b.deleted, b.octets, b.keywords AS known_keywords, b.expunged_horizon,
    b.special_use, b.selectable"""
"""Of `mailstore.mailboxes b`, for `mailbox`."""


def mailbox(row: Record, report: Report = bad_rows.report) -> Mailbox:
    """Of MAILBOX_COLUMNS; bad values are mended and reported."""
    place = row["account_id"], row["mailbox_id"]
    return Mailbox(
        account_id=row["account_id"],
        mailbox_id=row["mailbox_id"],
        name=row["name"],
        uid_validity=row["uid_validity"],
        uid_next=row["uid_next"],
        highest_mod_seq=max(1, row["highest_mod_seq"]),
        recent_from=row["recent_from"],
        recent=row["recent"],
        messages=row["messages"],
        unseen=row["unseen"],
        deleted=row["deleted"],
        total_size=row["octets"],
        keywords=readable_keywords(row["known_keywords"], *place, 0, report),
        expunged_horizon=row["expunged_horizon"],
        special_use=special_use(row["special_use"]),
        selectable=row["selectable"],
    )


def special_use(stored: str | None) -> SpecialUse | None:
    """None also for a use that only a newer version of the program knows."""
    with contextlib.suppress(ValueError):
        return None if stored is None else SpecialUse(stored)
    return None


def readable_keywords(
    stored: Iterable[str | None], account_id: int, mailbox_id: int, uid: int, report: Report
) -> tuple[str, ...]:
    """Those that a response may contain; `uid` 0: of the mailbox."""
    words = tuple(stored)
    kept = tuple(word for word in words if word is not None and is_keyword(word))
    if len(kept) < len(words):
        place = {"account": account_id, "mailbox": mailbox_id} | ({"uid": uid} if uid else {})
        report(BadRowResult.SUBSTITUTED, "a keyword is invalid", **place)
    return kept
