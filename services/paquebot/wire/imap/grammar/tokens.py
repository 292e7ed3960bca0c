"""The small productions that every IMAP command is made of: atoms, strings, numbers, flags, names.

One function per production of RFC 3501 §9, each leaving the cursor after what it read. A command's text holds
`{n}` CRLF where a literal stood; the literals themselves are beside it, in order.

Before login the grammar is strict. After login a cursor accepts common mistakes of clients that can mean one thing
only: more than one space, 8-bit octets and wildcards in an unquoted string, dates with missing places.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from paquebot.wire.cursor import ALPHA, BACKSLASH, CR, DIGITS, DQUOTE, LF, Cursor, GrammarError
from paquebot.wire.imap.errors import MailboxNameError
from paquebot.wire.imap.limits import DEFAULT_LIMITS, ImapLimits
from paquebot.wire.imap.mailbox_name import NO_NAME, decode_name_text, fold_inbox
from paquebot.wire.imap.sequence_set import SAVED_RESULT, SeqRange, SequenceSet

MAX_NUMBER64 = 0x7FFF_FFFF_FFFF_FFFF  # RFC 9051 §9 number64, RFC 7162 §7 mod-sequence-value

# ATOM-CHAR: any CHAR except ( ) { SP CTL % * " \ ]
ATOM_CHARS = frozenset(range(0x21, 0x7F)) - frozenset(b'(){%*"\\]')
ASTRING_CHARS = ATOM_CHARS | frozenset(b"]")
LIST_CHARS = ASTRING_CHARS | frozenset(b"%*")
# Characters that clients leave unquoted against the grammar; an atom still ends at a space or a parenthesis.
_LIBERAL_CHARS = LIST_CHARS | frozenset(b"\\") | frozenset(range(0x80, 0x100))
_SET_CHARS = DIGITS | frozenset(b"*:,")
_ODD_FLAG_CHARS = frozenset(range(0x21, 0x100)) - frozenset(b"()")
MAX_TAG = 256  # octets
WORD_CHARS = ALPHA | DIGITS | frozenset(b".-")
OBJECT_ID_CHARS = ALPHA | DIGITS | frozenset(b"_-")
_NUMBER_OR_STAR = "a message number or *"
_MAX_NUMBER = 0xFFFF_FFFF

_SYSTEM_FLAGS = {name.upper().encode(): "\\" + name for name in ("Answered", "Flagged", "Deleted", "Seen", "Draft")}


@dataclass(frozen=True, slots=True)
class Literal:
    """The octets of a literal or, `binary`, of a literal8."""

    payload: bytes = field(repr=False)  # may be a password
    binary: bool = False


@dataclass(frozen=True, slots=True)
class MessageLiteral:
    """The place of a message of APPEND; the service has its octets."""

    size: int
    binary: bool = False


@dataclass(frozen=True, slots=True)
class AssembledCommand:
    """One command: its lines, joined by CRLF after each `{n}`, and its literals in the order of these."""

    text: bytes = field(repr=False)  # may hold a password
    literals: tuple[Literal | MessageLiteral, ...] = ()


class CommandCursor(Cursor):
    """A cursor with the command's literals, the limits, the encoding of names, and whether to be liberal."""

    __slots__ = ("_next_literal", "liberal", "limits", "literals", "tag", "utf8")

    def __init__(
        self, command: AssembledCommand, *, utf8: bool, liberal: bool, limits: ImapLimits = DEFAULT_LIMITS
    ) -> None:
        super().__init__(command.text)
        self.literals = command.literals
        self.limits = limits
        self.utf8 = utf8
        self.liberal = liberal
        self.tag: bytes = b""
        self._next_literal = 0

    def space(self) -> None:
        """SP; for a liberal cursor at least one."""
        super().space()
        self.pass_spaces()

    def pass_spaces(self) -> None:
        """Skip spaces that the grammar does not have, if the cursor is liberal."""
        while self.liberal and self.take(b" "):
            pass

    def more(self) -> bool:
        """Does another element of a list follow? Skips the space before it."""
        if not self.take(b" "):
            return False
        self.pass_spaces()
        return not (self.liberal and (self.at_end() or self.at(b")")))

    def opens(self, expected: str) -> None:
        """The parenthesis that begins a list."""
        self.expect(b"(", expected)
        self.pass_spaces()

    def closes(self, expected: str) -> None:
        """The parenthesis that ends a list."""
        self.pass_spaces()
        self.expect(b")", expected)

    def take_keyword(self, word: bytes) -> bool:
        """Skip `word` (given in upper case) and the space after it, if they are next."""
        if not self.take_word(word + b" "):
            return False
        self.pass_spaces()
        return True

    def any_literal(self) -> Literal | MessageLiteral:
        """literal = "{" number ["+"] "}" CRLF, literal8 = "~" literal; returns its octets."""
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


_TAG = re.compile(rb"[!-)\x2c-~][!-~]{0,%d}(?= |\Z)" % (MAX_TAG - 1))


def tag(cur: CommandCursor) -> bytes:
    """tag = 1*<any ASTRING-CHAR except "+">. The response repeats the tag, which means nothing else; so any printable
    octets are one, except those that would look like another kind of response."""
    found = _TAG.match(cur.data)
    if found is None:
        raise cur.failure("a tag")
    cur.position = found.end()
    return found[0]


def tag_of(line: bytes) -> bytes | None:
    """The tag of a line that has one and more after it."""
    found = _TAG.match(line)
    return found[0] if found is not None and found.end() < len(line) else None


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
    # Nearly every string has nothing special: it is a slice.
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
            follows = data[position + 1 : position + 2]
            if follows in (b'"', b"\\"):
                position += 1
                octet = data[position]
            elif not cur.liberal:
                raise cur.failure('" or \\ after \\', at=position + 1)
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
    return cur.run1(_LIBERAL_CHARS if cur.liberal else ASTRING_CHARS, expected)


def mailbox(cur: CommandCursor) -> str:
    """mailbox = "INBOX" / astring"""
    start = cur.position
    return fold_inbox(_name(cur, astring(cur, "a mailbox name"), start))


def sought_mailbox(cur: CommandCursor) -> str:
    """The name of an existing mailbox: as `mailbox`, but octets that are not a name become NO_NAME, which no mailbox
    has."""
    try:
        return mailbox(cur)
    except UnreadableName:
        return NO_NAME


def reference(cur: CommandCursor) -> str:
    """LIST's reference: a mailbox production that is a prefix, perhaps empty. Octets that are not a name become a
    prefix that no name has."""
    if cur.liberal and cur.take_keyword(b"NIL"):  # no reference
        cur.back_to(cur.position - 1)
        return ""
    try:
        return _name(cur, astring(cur, "a reference name"), cur.position)
    except UnreadableName:
        return NO_NAME


def list_mailbox(cur: CommandCursor) -> str:
    """list-mailbox = 1*list-char / string. Octets that are not a name become a pattern that matches nothing: some
    clients list what a person typed."""
    if cur.at(b'"') or cur.at(b"{"):
        raw = string(cur)
    else:
        raw = cur.run1(_LIBERAL_CHARS if cur.liberal else LIST_CHARS, "a mailbox name or pattern")
    try:
        return _name(cur, raw, cur.position)
    except UnreadableName:
        return NO_NAME


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
    place = cur.position
    parts = cur.run(_SET_CHARS).split(b",")  # not number by number: clients name tens of thousands
    if len(parts) > cur.limits.sequence_ranges:
        raise cur.failure(f"at most {cur.limits.sequence_ranges} ranges in a set", at=place)
    ranges = []
    for part in parts:
        ranges.append(_seq_range(cur, part, place))
        place += len(part) + 1
    return SequenceSet(tuple(ranges))


def _seq_range(cur: CommandCursor, part: bytes, place: int) -> SeqRange:
    """seq-range = seq-number [":" seq-number]"""
    low, colon, high = part.partition(b":")
    first = _seq_number(cur, low, place)
    return SeqRange(first, _seq_number(cur, high, place + len(low) + 1) if colon else first)


def _seq_number(cur: CommandCursor, text: bytes, place: int) -> int | None:
    """seq-number = nz-number / "*" """
    if text == b"*":
        return None
    # Limit before converting, as `Cursor.number`.
    if not text.isdigit() or len(text) > 20 or not 1 <= (number := int(text)) <= _MAX_NUMBER:
        raise cur.failure(_NUMBER_OR_STAR, at=place)
    return number


def known_set(cur: CommandCursor) -> SequenceSet:
    """known-uids, known-sequence-set: a sequence-set without "*" or "$" (RFC 7162 §7)"""
    start = cur.position
    found = sequence_set(cur)
    if found.saved or found.has_star():
        raise cur.failure("a set without * or $", at=start)
    return found


def flag(cur: CommandCursor) -> str | None:
    """flag = system flag / flag-keyword. None for \\Recent and \\*, which cannot be set (RFC 3501 §2.3.2, §7.1):
    clients send back what FLAGS and PERMANENTFLAGS list."""
    start = cur.position
    is_system = cur.take(b"\\")
    if is_system and cur.take(b"*"):
        return None
    name = atom(cur, "a flag's name" if is_system else "a flag")
    if len(name) > cur.limits.flag_octets:
        raise cur.failure(f"a flag of at most {cur.limits.flag_octets} octets", at=start)
    return _spelled(name, is_system=is_system)


def _spelled(name: bytes, *, is_system: bool) -> str | None:
    if not is_system:
        return name.decode("ascii")
    if name.upper() == b"RECENT":
        return None
    return _SYSTEM_FLAGS.get(name.upper(), "\\" + name.decode("ascii"))


def spelled_flag(raw: bytes) -> str:
    """A flag to search for, in the standard's spelling; octets that are not a flag become one that no message has."""
    if raw.upper() == b"\\RECENT":
        return "\\Recent"
    return _SYSTEM_FLAGS.get(raw[1:].upper(), raw.decode("latin-1")) if raw[:1] == b"\\" else raw.decode("latin-1")


def flag_list(cur: CommandCursor) -> tuple[str, ...]:
    """flag-list = "(" [flag *(SP flag)] ")"; repeated flags are given once"""
    cur.opens("a list of flags")
    if cur.take(b")"):
        return ()
    found = flags(cur)
    cur.closes("a space or ) after a flag")
    return found


def flags(cur: CommandCursor) -> tuple[str, ...]:
    """flag *(SP flag), as STORE allows without parentheses; repeated flags are given once"""
    return _flags(cur, flag)


def flags_to_keep(cur: CommandCursor) -> tuple[str, ...]:
    """The flag-list of APPEND: skips what cannot be a flag here, though it was one where the message comes from; better
    to lose a flag than the message."""
    cur.opens("a list of flags")
    if cur.take(b")"):
        return ()
    found = _flags(cur, _flag_to_keep)
    cur.closes("a space or ) after a flag")
    return found


def _flag_to_keep(cur: CommandCursor) -> str | None:
    raw = cur.run1(_ODD_FLAG_CHARS, "a flag")
    is_system = raw.startswith(b"\\")
    name = raw[1:] if is_system else raw
    if not name or len(name) > cur.limits.flag_octets or not ATOM_CHARS.issuperset(name):
        return None
    return _spelled(name, is_system=is_system)


def _flags(cur: CommandCursor, read: Callable[[CommandCursor], str | None]) -> tuple[str, ...]:
    found = [read(cur)]
    while cur.more():
        if len(found) >= cur.limits.flags:
            raise cur.failure(f"at most {cur.limits.flags} flags")
        found.append(read(cur))
    return tuple(dict.fromkeys(name for name in found if name is not None))


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
