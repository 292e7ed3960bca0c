"""The small productions that every IMAP command is made of: atoms, strings, numbers, flags, dates, names.

One function per production of RFC 3501 §9, each leaving the cursor after what it read. A command's text holds
`{n}` CRLF where a literal stood; the literals themselves are beside it, in order.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

from paquebot.wire.cursor import ALPHA, BACKSLASH, CR, DIGITS, DQUOTE, LF, Cursor, GrammarError
from paquebot.wire.imap.errors import MailboxNameError
from paquebot.wire.imap.limits import DEFAULT_LIMITS, Limits
from paquebot.wire.imap.mailbox_name import decode_name_text, fold_inbox
from paquebot.wire.imap.sequence_set import SAVED_RESULT, SeqRange, SequenceSet

MAX_NUMBER64 = 0x7FFF_FFFF_FFFF_FFFF  # RFC 9051 §9 number64, RFC 7162 §7 mod-sequence-value

# ATOM-CHAR: any CHAR except ( ) { SP CTL % * " \ ]
ATOM_CHARS = frozenset(range(0x21, 0x7F)) - frozenset(b'(){%*"\\]')
ASTRING_CHARS = ATOM_CHARS | frozenset(b"]")
TAG_CHARS = ASTRING_CHARS - frozenset(b"+")
LIST_CHARS = ASTRING_CHARS | frozenset(b"%*")
WORD_CHARS = ALPHA | DIGITS | frozenset(b".-")
OBJECT_ID_CHARS = ALPHA | DIGITS | frozenset(b"_-")
_NUMBER_OR_STAR = "a message number or *"

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH_NUMBERS = {name.upper().encode(): number for number, name in enumerate(MONTHS, 1)}
_SYSTEM_FLAGS = {name.upper().encode(): "\\" + name for name in ("Answered", "Flagged", "Deleted", "Seen", "Draft")}


@dataclass(frozen=True, slots=True)
class Literal:
    """The octets of a literal or, `binary`, of a literal8."""

    payload: bytes = field(repr=False)  # may be a password
    binary: bool = False


@dataclass(frozen=True, slots=True)
class MessageLiteral:
    """Where a message of APPEND stood; its octets went to the service."""

    size: int
    binary: bool = False


@dataclass(frozen=True, slots=True)
class AssembledCommand:
    """One command: its lines, joined by CRLF after each `{n}`, and its literals in the order of these."""

    text: bytes = field(repr=False)  # may hold a password
    literals: tuple[Literal | MessageLiteral, ...] = ()


class CommandCursor(Cursor):
    """A cursor that also hands out the literals, and knows the limits and the encoding of names."""

    __slots__ = ("_next_literal", "limits", "literals", "tag", "utf8")

    def __init__(self, command: AssembledCommand, *, utf8: bool, limits: Limits = DEFAULT_LIMITS) -> None:
        super().__init__(command.text)
        self.literals = command.literals
        self.limits = limits
        self.utf8 = utf8
        self.tag: bytes = b""
        self._next_literal = 0

    def any_literal(self) -> Literal | MessageLiteral:
        """literal = "{" number ["+"] "}" CRLF, literal8 = "~" literal; the octets come from beside the text."""
        start = self.position
        self.take(b"~")
        self.expect(b"{", "a literal")
        self.number("the size of a literal", high=MAX_NUMBER64)
        self.take(b"+")  # RFC 7888
        self.expect(b"}\r\n", "the end of a literal's size")
        if self._next_literal >= len(self.literals):
            raise self.failure("a literal's octets", at=start)
        found = self.literals[self._next_literal]
        self._next_literal += 1
        return found


def tag(cur: CommandCursor) -> bytes:
    """tag = 1*<any ASTRING-CHAR except "+">"""
    return cur.run1(TAG_CHARS, "a tag")


def atom(cur: CommandCursor, expected: str = "an atom") -> bytes:
    """atom = 1*ATOM-CHAR"""
    return cur.run1(ATOM_CHARS, expected)


def word(cur: CommandCursor, expected: str) -> bytes:
    """A keyword of the grammar, in upper case: letters, digits, dot and hyphen."""
    return cur.run1(WORD_CHARS, expected).upper()


def quoted(cur: CommandCursor) -> bytes:
    """quoted = DQUOTE *QUOTED-CHAR DQUOTE; octets above 127 as RFC 9051 §9 allows for UTF-8."""
    start = cur.position
    cur.expect(b'"', "a quoted string")
    data, position = cur.data, cur.position
    size = len(data)
    # Nearly every string holds nothing special: it is a slice.
    end = data.find(b'"', position)
    plain = data[position:end]
    if end >= 0 and not any(special in plain for special in (b"\\", b"\0", b"\r", b"\n")):
        cur.position = end + 1
        return plain
    out = bytearray()
    while position < size:
        octet = data[position]
        if octet == DQUOTE:
            cur.position = position + 1
            return bytes(out)
        if octet == BACKSLASH:
            position += 1
            if position >= size or data[position] not in (DQUOTE, BACKSLASH):
                raise cur.failure('" or \\ after \\', at=position)
            octet = data[position]
        elif octet in (0, CR, LF):
            break
        out.append(octet)
        position += 1
    raise cur.failure('a closing "', at=start)


def literal(cur: CommandCursor) -> bytes:
    """literal = "{" number ["+"] "}" CRLF *CHAR8, where CHAR8 excludes NUL"""
    start = cur.position
    found = cur.any_literal()
    if not isinstance(found, Literal) or found.binary or b"\0" in found.payload:
        raise cur.failure("a literal without NUL octets", at=start)
    return found.payload


def string(cur: CommandCursor, expected: str = "a string") -> bytes:
    """string = quoted / literal"""
    if cur.at(b'"'):
        return quoted(cur)
    if cur.at(b"{"):
        return literal(cur)
    raise cur.failure(expected)


def astring(cur: CommandCursor, expected: str = "a string or an atom") -> bytes:
    """astring = 1*ASTRING-CHAR / string"""
    if cur.at(b'"') or cur.at(b"{"):
        return string(cur)
    return cur.run1(ASTRING_CHARS, expected)


def nstring(cur: CommandCursor) -> bytes | None:
    """nstring = string / nil"""
    if cur.take_word(b"NIL"):
        return None
    return string(cur, "a string or NIL")


def mailbox(cur: CommandCursor) -> str:
    """mailbox = "INBOX" / astring"""
    start = cur.position
    return fold_inbox(_name(cur, astring(cur, "a mailbox name"), start))


def reference(cur: CommandCursor) -> str:
    """LIST's reference: a mailbox production that is a prefix, perhaps empty, not a name."""
    start = cur.position
    return _name(cur, astring(cur, "a reference name"), start)


def list_mailbox(cur: CommandCursor) -> str:
    """list-mailbox = 1*list-char / string"""
    start = cur.position
    if cur.at(b'"') or cur.at(b"{"):
        return _name(cur, string(cur), start)
    return _name(cur, cur.run1(LIST_CHARS, "a mailbox name or pattern"), start)


class UnreadableName(GrammarError):
    """The octets follow the grammar of a string, but not the encoding of mailbox names."""


def _name(cur: CommandCursor, raw: bytes, start: int) -> str:
    try:
        return decode_name_text(raw, utf8=cur.utf8)
    except MailboxNameError:
        form = "UTF-8" if cur.utf8 else "modified UTF-7"
        raise UnreadableName(f"a mailbox name in {form}", start) from None


def nz_number(cur: CommandCursor, expected: str) -> int:
    """nz-number: 1 to 2**32-1"""
    return cur.number(expected, low=1)


def sequence_set(cur: CommandCursor) -> SequenceSet:
    """sequence-set = (seq-number / seq-range) *("," ...) / "$" (RFC 5182)"""
    if cur.take(b"$"):
        return SAVED_RESULT
    ranges = [_seq_range(cur)]
    while cur.take(b","):
        if len(ranges) >= cur.limits.sequence_ranges:
            raise cur.failure(f"at most {cur.limits.sequence_ranges} ranges in a set")
        ranges.append(_seq_range(cur))
    return SequenceSet(tuple(ranges))


def _seq_range(cur: CommandCursor) -> SeqRange:
    """seq-range = seq-number [":" seq-number]"""
    first = _seq_number(cur)
    return SeqRange(first, _seq_number(cur) if cur.take(b":") else first)


def _seq_number(cur: CommandCursor) -> int | None:
    """seq-number = nz-number / "*" """
    return None if cur.take(b"*") else nz_number(cur, _NUMBER_OR_STAR)


def known_set(cur: CommandCursor) -> SequenceSet:
    """known-uids, known-sequence-set: a sequence-set without "*" or "$" (RFC 7162 §7)"""
    start = cur.position
    found = sequence_set(cur)
    if found.saved or found.has_star():
        raise cur.failure("a set without * or $", at=start)
    return found


def flag(cur: CommandCursor) -> str:
    """flag = system flag / flag-keyword; \\Recent cannot be set by a client (RFC 3501 §2.3.2)"""
    start = cur.position
    is_system = cur.take(b"\\")
    name = atom(cur, "a flag's name" if is_system else "a flag")
    if len(name) > cur.limits.flag_octets:
        raise cur.failure(f"a flag of at most {cur.limits.flag_octets} octets", at=start)
    if not is_system:
        return name.decode("ascii")
    if name.upper() == b"RECENT":
        raise cur.failure("a flag that a client may set", at=start)
    return _SYSTEM_FLAGS.get(name.upper(), "\\" + name.decode("ascii"))


def flag_list(cur: CommandCursor) -> tuple[str, ...]:
    """flag-list = "(" [flag *(SP flag)] ")"; repeated flags are given once"""
    cur.expect(b"(", "a list of flags")
    if cur.take(b")"):
        return ()
    found = flags(cur)
    cur.expect(b")", "a space or ) after a flag")
    return found


def flags(cur: CommandCursor) -> tuple[str, ...]:
    """flag *(SP flag), as STORE allows without parentheses; repeated flags are given once"""
    found = [flag(cur)]
    while cur.take(b" "):
        if len(found) >= cur.limits.flags:
            raise cur.failure(f"at most {cur.limits.flags} flags")
        found.append(flag(cur))
    return tuple(dict.fromkeys(found))


def date(cur: CommandCursor) -> datetime.date:
    """date = date-text / DQUOTE date-text DQUOTE; date-text = 1*2DIGIT "-" date-month "-" 4DIGIT"""
    start = cur.position
    in_quotes = cur.take(b'"')
    day = cur.run1(DIGITS, "a date such as 1-Feb-1994")
    month, year = _month_and_year(cur)
    if in_quotes:
        cur.expect(b'"', 'a closing "')
    if len(day) <= 2:
        try:
            return datetime.date(year, month, int(day))
        except ValueError:
            pass
    raise cur.failure("a day of the calendar", at=start)


def _month_and_year(cur: CommandCursor) -> tuple[int, int]:
    """ "-" date-month "-" date-year"""
    cur.expect(b"-", "- after the day")
    start = cur.position
    month = _MONTH_NUMBERS.get(cur.fixed(ALPHA, 3, "a month such as Feb").upper())
    if month is None:
        raise cur.failure("a month such as Feb", at=start)
    cur.expect(b"-", "- after the month")
    return month, int(cur.fixed(DIGITS, 4, "a year of four digits"))


def date_time(cur: CommandCursor) -> datetime.datetime:
    """date-time = DQUOTE date-day-fixed "-" date-month "-" date-year SP time SP zone DQUOTE"""
    start = cur.position
    cur.expect(b'"', "a date and time in quotes")
    day = int(cur.fixed(DIGITS, 1 if cur.take(b" ") else 2, "a day of two places"))
    month, year = _month_and_year(cur)
    cur.space()
    hour = int(cur.fixed(DIGITS, 2, "hours of two digits"))
    cur.expect(b":", ": after the hours")
    minute = int(cur.fixed(DIGITS, 2, "minutes of two digits"))
    cur.expect(b":", ": after the minutes")
    second = int(cur.fixed(DIGITS, 2, "seconds of two digits"))
    cur.space()
    zone = _zone(cur)
    cur.expect(b'"', 'a closing "')
    try:
        # A leap second is told as the second before it: datetime has none.
        return datetime.datetime(year, month, day, hour, minute, 59 if second == 60 else second, 0, zone)
    except ValueError:
        raise cur.failure("a date and time of the calendar", at=start) from None


def _zone(cur: CommandCursor) -> datetime.timezone:
    """zone = ("+" / "-") 4DIGIT"""
    negative = cur.take(b"-")
    if not negative:
        cur.expect(b"+", "a zone such as +0100")
    start = cur.position
    digits = cur.fixed(DIGITS, 4, "a zone of four digits")
    offset = datetime.timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    if int(digits[:2]) > 23 or int(digits[2:]) > 59:
        raise cur.failure("a zone below 24 hours", at=start)
    return datetime.timezone(-offset if negative else offset)


def object_id(cur: CommandCursor) -> str:
    """objectid = 1*255(ALPHA / DIGIT / "_" / "-") (RFC 8474 §7)"""
    start = cur.position
    found = cur.run1(OBJECT_ID_CHARS, "an object id")
    if len(found) > 255:
        raise cur.failure("an object id of at most 255 octets", at=start)
    return found.decode("ascii")


def mod_sequence(cur: CommandCursor, *, low: int = 0) -> int:
    """mod-sequence-valzer, or with low=1 mod-sequence-value (RFC 7162 §7): 63 bits"""
    return cur.number("a mod-sequence", low=low, high=MAX_NUMBER64)
