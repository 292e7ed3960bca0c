"""Keywords of a mailbox: compared without case (RFC 9051 §2.3.2), each kept in the spelling that came first.

The mailbox's row holds every keyword its messages may have, bounded; so a message's keywords compare exactly.
"""

from collections.abc import Collection, Iterable

from paquebot.mailstore.errors import BadKeyword, TooManyKeywords
from paquebot.mailstore.locks import LockedMailbox
from paquebot.mailstore.types import MailstoreLimits
from paquebot.runtime.postgres.pool import Connection

BYTES = 25_600
"""Of a mailbox's keywords together: each of its messages may have them all, and a session holds them in memory."""
_MOST_BYTES = 1000
_SPECIAL = frozenset('(){"')


def is_keyword(word: str) -> bool:
    """Can it stand in a response as a flag (RFC 3501 §9)? What the grammar of commands does not let through and does no
    harm in a response, such as "]", is one too."""
    is_text = word.isascii() and word.isprintable() and " " not in word
    return is_text and 0 < len(word) <= _MOST_BYTES and _SPECIAL.isdisjoint(word)


def need_keywords(words: Iterable[str]) -> None:
    """Raises BadKeyword, before PostgreSQL is asked."""
    for word in words:
        if not is_keyword(word):
            raise BadKeyword


class Spelling:
    """The mailbox's spelling of keywords."""

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
        """May a mailbox know so many?"""
        return len(self._spellings) <= limits.keywords and sum(map(len, self._spellings)) <= BYTES


_SET_KEYWORDS = """
    UPDATE mailstore.mailboxes SET keywords = $3 WHERE account_id = $1 AND mailbox_id = $2
"""
_IN_USE = """
    SELECT DISTINCT unnest(keywords) AS word FROM mailstore.messages WHERE account_id = $1 AND mailbox_id = $2
"""


async def spell(
    connection: Connection, mailbox: LockedMailbox, words: Collection[str], limits: MailstoreLimits
) -> Spelling:
    """Make `words` known to the locked mailbox. Raises BadKeyword, TooManyKeywords."""
    before = Spelling(mailbox.keywords)
    need_keywords(words)
    new = [word for word in words if not before([word])]
    if not new:
        return before
    known = Spelling((*mailbox.keywords, *new))
    if not known.fits(limits):  # rare: see which are still in use
        rows = await connection.fetch(_IN_USE, mailbox.account_id, mailbox.mailbox_id)
        known = Spelling((*sorted(row["word"] for row in rows), *before(words), *new))
        if not known.fits(limits):
            raise TooManyKeywords(limits.keywords)
    await connection.execute(_SET_KEYWORDS, mailbox.account_id, mailbox.mailbox_id, known.known())
    return known
