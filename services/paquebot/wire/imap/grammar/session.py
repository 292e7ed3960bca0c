"""The commands about the session itself: those of any state, and those before login.

RFC 3501 §6.1 and §6.2; RFC 2971 (ID), RFC 4959 (SASL-IR), RFC 5161 (ENABLE),
RFC 2177 (IDLE's DONE).
"""

from __future__ import annotations

import binascii

from paquebot.wire.cursor import Cursor
from paquebot.wire.imap.ast import Authenticate, Enable, Id, Login
from paquebot.wire.imap.errors import BadSyntax
from paquebot.wire.imap.grammar.tokens import CommandCursor, astring, atom, string


def login(cur: CommandCursor) -> Login:
    """login = "LOGIN" SP userid SP password"""
    cur.space()
    userid = astring(cur, "a login name")
    cur.space()
    return Login(cur.tag, userid, astring(cur, "a password"))


def authenticate(cur: CommandCursor) -> Authenticate:
    """authenticate = "AUTHENTICATE" SP auth-type [SP (base64 / "=")] (RFC 4959 §7)"""
    cur.space()
    mechanism = atom(cur, "a SASL mechanism").upper().decode("ascii")
    if cur.at_end():
        return Authenticate(cur.tag, mechanism, None)
    cur.space()
    if cur.take(b"="):
        return Authenticate(cur.tag, mechanism, b"")
    return Authenticate(cur.tag, mechanism, _base64(cur))


def _base64(cur: Cursor) -> bytes:
    """base64 = *(4base64-char) [base64-terminal], to the end of the line"""
    start = cur.position
    text = cur.rest()
    try:
        if text:
            return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        pass
    raise cur.failure("base64", at=start)


def parse_authenticate_line(line: bytes) -> bytes | None:
    """A client's answer to a SASL challenge, without CRLF: its octets, or None for "*", which cancels
    (RFC 3501 §6.2.2). An empty line is an empty answer. Raises BadSyntax."""
    if line == b"*":
        return None
    try:
        return binascii.a2b_base64(line, strict_mode=True) if line else b""
    except binascii.Error:
        raise BadSyntax(None, "expected base64 or *", 0) from None


def parse_done(line: bytes) -> None:
    """The line that ends IDLE, without CRLF (RFC 2177 §3). Raises BadSyntax for any other."""
    if line.strip(b" ").upper() != b"DONE":
        raise BadSyntax(None, "expected DONE", 0)


def identify(cur: CommandCursor) -> Id:
    """id = "ID" SP id-params-list; "(" #(string SP nstring) ")" / nil. Some clients leave out the quotes, or the
    list."""
    if cur.at_end():
        return Id(cur.tag, None)
    cur.space()
    if cur.at_end():
        return Id(cur.tag, None)
    if not cur.at(b"("):
        if _value(cur) not in (None, b"NIL"):  # Jakarta Mail had it in quotes
            raise cur.failure("( or NIL")
        return Id(cur.tag, None)
    cur.opens("( or NIL")
    found: list[tuple[bytes, bytes | None]] = []
    more = not cur.at(b")")
    while more:
        if len(found) >= cur.limits.id_parameters:
            raise cur.failure(f"at most {cur.limits.id_parameters} parameters")
        name = astring(cur, "a parameter's name")
        cur.space()
        found.append((name, _value(cur)))
        more = cur.more()
    cur.closes("a space or ) after a parameter")
    return Id(cur.tag, tuple(found))


def _value(cur: CommandCursor) -> bytes | None:
    """nstring, or an atom"""
    if cur.at(b'"') or cur.at(b"{"):
        return string(cur)
    found = astring(cur, "a string or NIL")
    return None if found.upper() == b"NIL" else found


def enable(cur: CommandCursor) -> Enable:
    """enable = "ENABLE" 1*(SP capability)"""
    names: dict[str, None] = {}
    cur.space()
    names[atom(cur, "a capability").upper().decode("ascii")] = None
    while cur.more():
        names[atom(cur, "a capability").upper().decode("ascii")] = None
    return Enable(cur.tag, tuple(names))
