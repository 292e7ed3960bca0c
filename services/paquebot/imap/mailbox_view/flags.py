"""Flags between the words of IMAP and the columns of the mailstore (RFC 3501 §2.3.2)."""

from collections.abc import Iterable

from paquebot.imap.mailbox_view.view import View
from paquebot.mailstore import NO_FLAGS, Flag

_NAMES = {
    "\\Answered": Flag.ANSWERED,
    "\\Flagged": Flag.FLAGGED,
    "\\Deleted": Flag.DELETED,
    "\\Seen": Flag.SEEN,
    "\\Draft": Flag.DRAFT,
}
SYSTEM_FLAGS = tuple(_NAMES)
_COMBINATIONS = tuple(
    tuple(name for name, flag in _NAMES.items() if flag.value & bits) for bits in range(1 << len(_NAMES))
)


def parse_flags(names: Iterable[str]) -> tuple[Flag, tuple[str, ...]]:
    """System flags and keywords of a flag list; \\Recent, which nobody can store, is passed over."""
    flags = NO_FLAGS
    keywords: list[str] = []
    for name in names:
        if name in _NAMES:
            flags |= _NAMES[name]
        elif not name.startswith("\\"):
            keywords.append(name)
    return flags, tuple(keywords)


def flag_names(view: View, number: int) -> tuple[str, ...]:
    """The flags of a message as its session sees them."""
    names = _COMBINATIONS[view.flags(number)]
    keywords = view.keywords(number)
    if keywords:
        names = (*names, *keywords)
    return (*names, "\\Recent") if view.is_recent(number) else names
