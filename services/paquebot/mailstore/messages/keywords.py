"""Keywords of a mailbox: compared without case (RFC 9051 §2.3.2), each kept in the spelling that came first.

The mailbox's row holds every keyword its messages may have, bounded; so a message's keywords compare exactly.
"""

from collections.abc import Collection, Iterable

from paquebot.mailstore.errors import BadKeyword, TooManyKeywords
from paquebot.mailstore.limits import MailstoreLimits
from paquebot.mailstore.locks import LockedMailbox
from paquebot.runtime.postgres.pool import Connection

MAX_TOTAL_SIZE = 25_600
"""Bytes of a mailbox's keywords together: each of its messages may have them all, and a session holds them in
memory."""
_MAX_SIZE = 1000
_SPECIAL = frozenset('(){"')


def is_keyword(word: str) -> bool:
    """Whether the word can stand in a response as a flag (RFC 3501 §9). Characters such as "]" count as valid: the
    grammar of commands excludes them, but they do no harm in a response."""
    is_text = word.isascii() and word.isprintable() and " " not in word
    return is_text and 0 < len(word) <= _MAX_SIZE and _SPECIAL.isdisjoint(word)


def need_keywords(words: Iterable[str]) -> None:
    """Raises BadKeyword, before PostgreSQL is asked."""
    for word in words:
        if not is_keyword(word):
            raise BadKeyword


class KeywordSpellings:
    """The mailbox's spelling of each keyword."""

    __slots__ = ("_spellings",)

    def __init__(self, known: Iterable[str]) -> None:
        self._spellings: dict[str, str] = {}
        for word in known:
            self._spellings.setdefault(word.lower(), word)

    def __call__(self, words: Iterable[str]) -> tuple[str, ...]:
        """The known ones of `words`, spelled as in the mailbox, each once, in order."""
        return tuple(dict.fromkeys(self._spellings[word.lower()] for word in words if word.lower() in self._spellings))

    def known(self) -> tuple[str, ...]:
        return tuple(self._spellings.values())

    def fits(self, limits: MailstoreLimits) -> bool:
        """Whether a mailbox may have these keywords."""
        return len(self._spellings) <= limits.keywords and sum(map(len, self._spellings)) <= MAX_TOTAL_SIZE


_SET_KEYWORDS = """
    UPDATE mailstore.mailboxes SET keywords = $3 WHERE account_id = $1 AND mailbox_id = $2
"""
_IN_USE = """
    SELECT DISTINCT unnest(keywords) AS word FROM mailstore.messages WHERE account_id = $1 AND mailbox_id = $2
"""


async def add_keywords(
    connection: Connection, mailbox: LockedMailbox, words: Collection[str], limits: MailstoreLimits
) -> KeywordSpellings:
    """Add `words` to the keywords of the locked mailbox. Raises BadKeyword, TooManyKeywords."""
    before = KeywordSpellings(mailbox.keywords)
    need_keywords(words)
    new = [word for word in words if not before([word])]
    if not new:
        return before
    known = KeywordSpellings((*mailbox.keywords, *new))
    if not known.fits(limits):  # rare: keep those that are still in use
        rows = await connection.fetch(_IN_USE, mailbox.account_id, mailbox.mailbox_id)
        known = KeywordSpellings((*sorted(row["word"] for row in rows), *before(words), *new))
        if not known.fits(limits):
            raise TooManyKeywords(limits.keywords)
    await connection.execute(_SET_KEYWORDS, mailbox.account_id, mailbox.mailbox_id, known.known())
    return known
