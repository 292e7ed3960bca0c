"""Mailbox names: Unicode in NFC, levels separated by "/", INBOX in any case (RFC 3501 §5.1); pure.

The encoding of a name on the wire (modified UTF-7, UTF-8) is the protocol's matter.
"""

import unicodedata

from paquebot.mailstore.errors import BadMailboxName, NoSuchMailbox
from paquebot.mailstore.limits import MailstoreLimits
from paquebot.mailstore.mailboxes.mailbox import SpecialUse

SEPARATOR = "/"
INBOX = "INBOX"
INBOX_ID = 1
"""INBOX is the first mailbox of every account and is never deleted, so its id is always this one."""

FIRST_MAILBOXES: tuple[tuple[str, SpecialUse | None], ...] = (
    (INBOX, None),
    ("Drafts", SpecialUse.DRAFTS),
    ("Sent", SpecialUse.SENT),
    ("Trash", SpecialUse.TRASH),
    ("Junk", SpecialUse.JUNK),
    ("Archive", SpecialUse.ARCHIVE),
)
"""The mailboxes of a new account; ids count from INBOX_ID."""


_INDEXED_BYTES = 2400  # of UTF-8: an entry of PostgreSQL's indexes has at most a third of a page


def normal(name: str) -> str:
    """The one spelling of a name: NFC, INBOX upper case at the first level, no separator at the end.

    A trailing separator only announces that inferiors will follow (RFC 3501 §6.3.3).
    """
    first, separator, rest = unicodedata.normalize("NFC", name).removesuffix(SEPARATOR).partition(SEPARATOR)
    if first.isascii() and first.upper() == INBOX:  # in Turkish other letters too are an I in upper case
        first = INBOX
    return first + separator + rest


def valid(name: str, limits: MailstoreLimits) -> str:
    """The normal spelling of a name for a new mailbox. Raises BadMailboxName."""
    name = normal(name)
    levels = name.split(SEPARATOR)
    if not all(levels):
        raise BadMailboxName(name, "a level of the name is empty")
    if len(name) > limits.name_length:
        raise BadMailboxName(name, f"the name is longer than {limits.name_length} characters")
    if len(levels) > limits.depth:
        raise BadMailboxName(name, f"the name has more than {limits.depth} levels")
    if any(_is_not_text(character) for character in name):
        raise BadMailboxName(name, "the name has a character that is not text")
    if len(name.encode()) > _INDEXED_BYTES:
        raise BadMailboxName(name, f"the name is longer than {_INDEXED_BYTES} bytes")
    return name


def _is_not_text(character: str) -> bool:
    """Controls, surrogates and noncharacters; not what Unicode assigned after this Python was made."""
    code = ord(character)
    return unicodedata.category(character) in ("Cc", "Cs") or code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF


def sought(name: str) -> str:
    """The normal spelling of a name to look up. Raises NoSuchMailbox for one that no mailbox can have."""
    if not comparable(name):
        raise NoSuchMailbox(name)
    return normal(name)


def comparable(name: str) -> bool:
    """Whether PostgreSQL takes the name at all: it has no NUL and no surrogates."""
    return "\0" not in name and not any("\ud800" <= character <= "\udfff" for character in name)


def superiors(name: str) -> list[str]:
    """The names above `name`, from the root: a/b/c gives a, a/b."""
    levels = name.split(SEPARATOR)
    return [SEPARATOR.join(levels[:depth]) for depth in range(1, len(levels))]


def is_inferior(name: str, superior: str) -> bool:
    """Whether `name` is anywhere below `superior`."""
    return name.startswith(superior + SEPARATOR)
