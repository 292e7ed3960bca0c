"""Keywords have one spelling per mailbox."""

from __future__ import annotations

from paquebot.mailstore import Flag, FlagOp, MailstoreLimits
from paquebot.mailstore.messages.flags import FlagChange
from paquebot.mailstore.messages.keywords import KeywordSpellings


def test_the_first_spelling_stays() -> None:
    spelling = KeywordSpellings(["$Junk", "work"])
    assert spelling(["WORK", "$junk", "work", "unknown"]) == ("work", "$Junk")
    assert spelling.known() == ("$Junk", "work")
    assert KeywordSpellings(["$x", "y", "$X"]).known() == ("$x", "y")


def test_the_number_of_keywords_is_limited() -> None:
    limits = MailstoreLimits(keywords=100)
    assert KeywordSpellings(f"k{number}" for number in range(100)).fits(limits)
    assert not KeywordSpellings(f"k{number}" for number in range(101)).fits(limits)
    assert KeywordSpellings(f"{number:0255}" for number in range(100)).fits(limits)
    assert not KeywordSpellings(f"{number:0255}" for number in range(101)).fits(MailstoreLimits(keywords=1000))


def test_masks_of_a_flag_change() -> None:
    changes = [FlagChange(op, Flag.SEEN | Flag.FLAGGED, (), None) for op in FlagOp]
    draft, seen = int(Flag.DRAFT), int(Flag.DRAFT | Flag.SEEN)
    assert [(op.name, *change.masks()) for op, change in zip(FlagOp, changes, strict=True)] == [
        ("ADD", 31, 5),
        ("REMOVE", 26, 0),
        ("REPLACE", 0, 5),
    ]
    after = [[flags & kept | added for kept, added in map(FlagChange.masks, changes)] for flags in (draft, seen)]
    assert after == [[21, 16, 5], [21, 16, 5]]
