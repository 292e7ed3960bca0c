"""FETCH: which items of which messages; macros expanded, sections parsed.

RFC 3501 §6.4.5 and §9; RFC 3516 (BINARY), RFC 7162 §3.1.4 (CHANGEDSINCE, VANISHED), RFC 8970 (PREVIEW).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from paquebot.wire.cursor import DIGITS
from paquebot.wire.imap.ast import (
    Fetch,
    FetchAttribute,
    FetchBinary,
    FetchBinarySize,
    FetchItem,
    FetchPreview,
    FetchSection,
    Partial,
    Section,
    SectionForm,
    SectionSpecifier,
)
from paquebot.wire.imap.grammar.tokens import (
    MAX_NUMBER64,
    CommandCursor,
    astring,
    mod_sequence,
    nz_number,
    sequence_set,
    word,
)

_HEADER_LINES: Final[Mapping[bytes, SectionSpecifier]] = {  # RFC 1730 §6.4.5
    b"RFC822.HEADER.LINES": SectionSpecifier.HEADER_FIELDS,
    b"RFC822.HEADER.LINES.NOT": SectionSpecifier.HEADER_FIELDS_NOT,
}
_FAST = (FetchItem.FLAGS, FetchItem.INTERNALDATE, FetchItem.RFC822_SIZE)
_MACROS: Final[Mapping[bytes, tuple[FetchAttribute, ...]]] = {
    b"FAST": _FAST,
    b"ALL": (*_FAST, FetchItem.ENVELOPE),
    b"FULL": (*_FAST, FetchItem.ENVELOPE, FetchItem.BODY),
}
_ITEMS: Final[Mapping[bytes, FetchItem]] = {item.value: item for item in FetchItem if item is not FetchItem.BODY}
_RFC822: Final[Mapping[bytes, FetchSection]] = {
    b"RFC822": FetchSection(Section(), form=SectionForm.RFC822),
    # IMAP2bis and RFC 1730, not in later grammars; Outlook sends it.
    b"RFC822.PEEK": FetchSection(Section(), peek=True, form=SectionForm.RFC822),
    b"RFC822.TEXT.PEEK": FetchSection(Section((), SectionSpecifier.TEXT), peek=True, form=SectionForm.RFC822_TEXT),
    b"RFC822.HEADER": FetchSection(Section((), SectionSpecifier.HEADER), peek=True, form=SectionForm.RFC822_HEADER),
    b"RFC822.TEXT": FetchSection(Section((), SectionSpecifier.TEXT), form=SectionForm.RFC822_TEXT),
}


def fetch(cur: CommandCursor, *, uid: bool) -> Fetch:
    """fetch = "FETCH" SP sequence-set SP ("ALL" / "FULL" / "FAST" / fetch-att / "(" fetch-att ... ")")
    [fetch-modifiers], after the command's name. Some clients leave out the parentheses, or put macros into them."""
    cur.space()
    messages = sequence_set(cur)
    cur.space()
    attributes = dict.fromkeys(_attributes(cur))
    changed_since, vanished = _modifiers(cur, uid=uid)
    if uid:
        # RFC 3501 §6.4.8: the responses to UID FETCH always have UID.
        attributes = {FetchItem.UID: None, **attributes}
    if changed_since is not None:
        attributes[FetchItem.MODSEQ] = None  # RFC 7162 §3.1.4.1
    return Fetch(cur.tag, uid, messages, tuple(attributes), changed_since, vanished)


def _attributes(cur: CommandCursor) -> tuple[FetchAttribute, ...]:
    if not cur.at(b"("):
        return _listed(cur)
    cur.opens("( before fetch items")
    found = _listed(cur)
    cur.closes("a space or ) after a fetch item")
    return found


def _listed(cur: CommandCursor) -> tuple[FetchAttribute, ...]:
    """The items, with or without parentheses, up to the modifiers."""
    found = list(_macro_or_item(cur))
    here = cur.position
    while cur.more() and not cur.at(b"("):
        if len(found) >= cur.limits.fetch_attributes:
            raise cur.failure(f"at most {cur.limits.fetch_attributes} fetch items")
        found += _macro_or_item(cur)
        here = cur.position
    if cur.at(b"("):
        cur.back_to(here)
    return tuple(found)


def _macro_or_item(cur: CommandCursor) -> tuple[FetchAttribute, ...]:
    start = cur.position
    macro = _MACROS.get(word(cur, "a fetch item or macro"))
    if macro is not None:
        return macro
    cur.back_to(start)
    return (fetch_attribute(cur),)


def fetch_attribute(cur: CommandCursor) -> FetchAttribute:
    """fetch-att"""
    start = cur.position
    name = word(cur, "a fetch item")
    if cur.at(b"["):
        return _sectioned(cur, name, start)
    item = _ITEMS.get(name) or _RFC822.get(name)
    if item is not None:
        return item
    if name == b"BODY":
        return FetchItem.BODY
    if name in _HEADER_LINES:
        cur.space()
        section = Section((), _HEADER_LINES[name], _header_list(cur))
        return FetchSection(section, peek=True, form=SectionForm.RFC822_HEADER)
    if name == b"PREVIEW":
        return FetchPreview(_lazy(cur))
    raise cur.failure("a fetch item", at=start)


def _sectioned(cur: CommandCursor, name: bytes, start: int) -> FetchAttribute:
    """BODY[...], BODY.PEEK[...], BINARY[...], BINARY.PEEK[...], BINARY.SIZE[...]"""
    if name in (b"BODY", b"BODY.PEEK"):
        section = _section(cur)
        return FetchSection(section, _partial(cur), name == b"BODY.PEEK")
    if name in (b"BINARY", b"BINARY.PEEK"):
        path = _binary_section(cur)
        return FetchBinary(path, _partial(cur), name == b"BINARY.PEEK")
    if name == b"BINARY.SIZE":
        return FetchBinarySize(_binary_section(cur))
    raise cur.failure("a fetch item that takes a section", at=start)


def _section(cur: CommandCursor) -> Section:
    """section = "[" [section-spec] "]" """
    cur.expect(b"[", "[ before a section")
    path = _path(cur)
    specifier: SectionSpecifier | None = None
    fields: tuple[bytes, ...] = ()
    if path:
        if cur.take(b"."):
            specifier = _specifier(cur, inside_part=True)
    elif not cur.at(b"]"):
        specifier = _specifier(cur, inside_part=False)
    if specifier in (SectionSpecifier.HEADER_FIELDS, SectionSpecifier.HEADER_FIELDS_NOT):
        if not cur.at(b"("):
            cur.space()
        fields = _header_list(cur)
    cur.expect(b"]", "] after a section")
    return Section(path, specifier, fields)


def _path(cur: CommandCursor) -> tuple[int, ...]:
    """section-part = nz-number *("." nz-number); a "." before a letter belongs to section-text"""
    if cur.peek() not in DIGITS:
        return ()
    path = [nz_number(cur, "a part's number")]
    while cur.at(b".") and cur.data[cur.position + 1 : cur.position + 2].isdigit():
        if len(path) >= cur.limits.section_depth:
            raise cur.failure(f"at most {cur.limits.section_depth} levels of parts")
        cur.take(b".")
        path.append(nz_number(cur, "a part's number"))
    return tuple(path)


def _specifier(cur: CommandCursor, *, inside_part: bool) -> SectionSpecifier:
    """section-msgtext, and inside a part section-text, which adds MIME"""
    start = cur.position
    try:
        found = SectionSpecifier(word(cur, "a section"))
    except ValueError:
        found = None
    if found is None or (found is SectionSpecifier.MIME and not inside_part):
        raise cur.failure(
            "HEADER, HEADER.FIELDS, HEADER.FIELDS.NOT, TEXT" + (" or MIME" if inside_part else ""), at=start
        )
    return found


def _header_list(cur: CommandCursor) -> tuple[bytes, ...]:
    """header-list = "(" header-fld-name *(SP header-fld-name) ")" """
    cur.opens("( before header field names")
    found = [_field_name(cur)]
    while cur.more():
        if len(found) >= cur.limits.header_fields:
            raise cur.failure(f"at most {cur.limits.header_fields} header field names")
        found.append(_field_name(cur))
    cur.closes("a space or ) after a header field name")
    return tuple(found)


def _field_name(cur: CommandCursor) -> bytes:
    """header-fld-name = astring; kept as written, because the response repeats it"""
    return astring(cur, "a header field name")


def _binary_section(cur: CommandCursor) -> tuple[int, ...]:
    """section-binary = "[" [section-part] "]" (RFC 3516 §7)"""
    cur.expect(b"[", "[ before a section")
    path = _path(cur)
    cur.expect(b"]", "a part's number or ]")
    return path


def _partial(cur: CommandCursor) -> Partial | None:
    """["<" number "." nz-number ">"]"""
    if not cur.take(b"<"):
        return None
    offset = cur.number("an offset in octets", high=MAX_NUMBER64)
    cur.expect(b".", ". between offset and count")
    count = cur.number("a count of octets", low=0 if cur.liberal else 1, high=MAX_NUMBER64)
    cur.expect(b">", "> after the count")
    return Partial(offset, count)


def _lazy(cur: CommandCursor) -> bool:
    """ "PREVIEW" [SP "(" "LAZY" ")"] (RFC 8970 §6)"""
    start = cur.position
    if cur.more() and cur.take(b"("):
        cur.pass_spaces()
        if cur.take_word(b"LAZY"):
            cur.closes(") after LAZY")
            return True
    cur.back_to(start)
    return False


def _modifiers(cur: CommandCursor, *, uid: bool) -> tuple[int | None, bool]:
    """fetch-modifiers = SP "(" fetch-modifier *(SP fetch-modifier) ")" (RFC 4466 §2.4)"""
    if not cur.more():
        return None, False
    cur.opens("( before fetch modifiers")
    changed_since: int | None = None
    vanished = False
    while True:
        start = cur.position
        name = word(cur, "CHANGEDSINCE or VANISHED")
        if name == b"CHANGEDSINCE" and changed_since is None:
            cur.space()
            changed_since = mod_sequence(cur)
        elif name == b"VANISHED" and uid and not vanished:
            vanished = True
        else:
            raise cur.failure("CHANGEDSINCE or, for UID FETCH, VANISHED; each once", at=start)
        if not cur.more():
            break
    if vanished and changed_since is None:
        raise cur.failure("CHANGEDSINCE with VANISHED")  # RFC 7162 §3.2.6
    cur.closes(") after fetch modifiers")
    return changed_since, vanished
