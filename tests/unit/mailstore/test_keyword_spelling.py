"""Keywords have one spelling per mailbox."""

from __future__ import annotations

from paquebot.mailstore.flag_changes import FlagChange
from paquebot.mailstore.keywords import Spelling
from paquebot.mailstore.types import Flag, FlagOp


def test_the_first_spelling_stays() -> None:
    spelling = Spelling(["$Junk", "work"])
    assert spelling(["WORK", "$junk", "work", "unknown"]) == ("work", "$Junk")
    assert spelling.known() == ("$Junk", "work")
    assert Spelling(["$x", "y", "$X"]).known() == ("$x", "y")


def test_what_a_change_does() -> None:
    add = FlagChange(FlagOp.ADD, Flag.SEEN, ("b",), None)
    remove = FlagChange(FlagOp.REMOVE, Flag.SEEN, ("b",), None)
    replace = FlagChange(FlagOp.REPLACE, Flag.SEEN, ("b",), None)
    draft = int(Flag.DRAFT)
    assert [change.apply_flags(draft) for change in (add, remove, replace)] == [17, 16, 1]
    assert remove.apply_flags(17) == 16
    assert add.apply_keywords(("a", "b")) == ("a", "b")
    assert add.apply_keywords(("a",)) == ("a", "b")
    assert remove.apply_keywords(("a", "b")) == ("a",)
    assert replace.apply_keywords(("a",)) == ("b",)
