"""Which author and sender a submitted message may name (RFC 6409 §6.1, §8.1; RFC 5322 §3.6.2).

All addresses in From and Sender must belong to the login. A message without an author, or with a foreign Sender, is
refused or gets the login's address in that field, as SUBMISSION_SENDER says; a foreign author is always refused.
A field that breaks its grammar, such as a name with an unquoted comma, is accepted when every reading of it yields the
login's addresses and no others.
"""

import re
import unicodedata
from dataclasses import dataclass

from paquebot.message import (
    NamedAddresses,
    add_trace,
    named_addresses,
    remove_header,
    spans_of,
    split_header,
    unfold,
)
from paquebot.rpc import Identity, ValidationClient
from paquebot.smtp_ingress.offload import offload
from paquebot.smtp_ingress.settings import SenderPolicy
from paquebot.smtp_ingress.state import MailTransaction, SessionState
from paquebot.wire.address import Address, BadAddress, canonical, normal_domain, quoted_local
from paquebot.wire.smtp import replies
from paquebot.wire.smtp.replies import Reply

_MAX_AUTHORS = 16  # addresses of From and Sender that are checked
_MAX_BYTES = 16 * 1024  # of From and of Sender
_WHITE_SPACE = (b" ", b"\t")
_INVISIBLE = bytes((*range(0x21), *range(0x7F, 0x100)))
"""Bytes around the name of a field that some readers ignore: among them are the spaces and byte order marks of Unicode,
in any charset."""
_DISGUISED = re.compile(
    rb"(?:\A|(?<=\n))(?P<before>(?![ \t])[%b]{0,64})(?i:from|sender)(?=(?P<behind>[%b]{0,64}):)"
    % (re.escape(_INVISIBLE.replace(b"\n", b"")), re.escape(_INVISIBLE))
)


class _Foreign(Exception):
    """An address does not belong to the login."""


@dataclass(frozen=True, slots=True)
class Authorship:
    """One for a process."""

    validation: ValidationClient
    policy: SenderPolicy

    async def owns(self, state: SessionState, address: Address, trace: str = "") -> bool:
        """May the session's identity send as `address`? Raises DirectoryUnavailable."""
        assert state.identity is not None
        wanted = str(canonical(address))
        if wanted == state.identity.address or wanted in state.owned:
            return True
        allowed = await self.validation.authorize_sender(state.identity.account_id, wanted, trace=trace)
        if allowed:
            state.remember_owned(wanted)
        return allowed

    async def checked(self, state: SessionState, transaction: MailTransaction, content: bytes) -> bytes | Reply:
        """The message as the session's identity may send it, or the refusal. Raises DirectoryUnavailable."""
        assert state.identity is not None
        if await offload(split_header(content), lambda: _is_disguised(content)):
            return replies.FROM_NOT_OWNED
        smtputf8 = transaction.parameters.smtputf8
        try:
            has_author = await self._owned(state, content, b"from", transaction.trace)
        except _Foreign:
            return replies.FROM_NOT_OWNED
        if not has_author:
            if not self._may_write(state.identity, smtputf8=smtputf8):
                return replies.FROM_MISSING
            content = _with_login(content, b"from", state.identity)
        try:
            foreign = _has(content, b"sender") and not await self._owned(state, content, b"sender", transaction.trace)
        except _Foreign:
            foreign = True
        if not foreign:
            return content
        if not self._may_write(state.identity, smtputf8=smtputf8):
            return replies.SENDER_FIELD_NOT_OWNED
        return _with_login(content, b"sender", state.identity)

    def _may_write(self, identity: Identity, *, smtputf8: bool) -> bool:
        """A header may hold an address beyond ASCII only if the client asked for SMTPUTF8 (RFC 6531 §3.2)."""
        return self.policy is SenderPolicy.REWRITE and (smtputf8 or identity.address.isascii())

    async def _owned(self, state: SessionState, content: bytes, name: bytes, trace: str) -> bool:
        """Does a field of that name have an address? Each must belong to the login. Raises _Foreign."""
        assert state.identity is not None
        values = _values(content, name)
        if sum(map(len, values)) > _MAX_BYTES:
            raise _Foreign
        named = [named_addresses(value) for value in values]
        found = [address for one in named for address in _found(one, state)]
        if len(found) > _MAX_AUTHORS:
            raise _Foreign
        for local, domain in found:
            address = _address(local, domain)
            if address is None or not await self.owns(state, address, trace):
                raise _Foreign
            if not _is_one_word(address.local) and str(canonical(address)) != state.identity.address:
                raise _Foreign
        return any(one.certain for one in named)


def _found(named: NamedAddresses, state: SessionState) -> list[tuple[bytes, bytes]]:
    """The addresses that must belong to the login. Raises _Foreign if a field is ambiguous."""
    if not named.readable:
        raise _Foreign
    return [*named.certain, *(one for one in named.possible if _may_be_address(one[1], state))]


def _may_be_address(domain: bytes, state: SessionState) -> bool:
    """Would a reader take it for an address? `arne@home` is a person's name, unless the login's own domain looks like
    that; people, and programs that stop at the quote, read `bob@a.example'` as Bob's address."""
    assert state.identity is not None
    text = unicodedata.normalize("NFKC", domain.decode("utf-8", "replace")).replace("。", ".").strip(" .")
    return "." in text or text.lower() == state.identity.address.rpartition("@")[2]


def _address(local: bytes, domain: bytes) -> Address | None:
    try:
        return Address(local.decode(), normal_domain(domain.decode()))
    except (BadAddress, UnicodeDecodeError):
        return None


def _is_one_word(local: str) -> bool:
    """Not `"alice+ bob"@a.example` or the same with a space of Unicode: some readers take it for Bob's address."""
    return quoted_local(local) == local and not any(unicodedata.category(char)[0] in "CZ" for char in local)


def _is_disguised(content: bytes) -> bool:
    """Is there a From or Sender that only some readers take for one, or one with a byte in its value that some readers
    ignore?"""
    if content.startswith(_WHITE_SPACE):
        return False
    if any(b"\0" in content[at:end] for name in (b"from", b"sender") for at, _, end in spans_of(content, name)):
        return True
    found = _DISGUISED.finditer(content, 0, split_header(content))
    return any(match["before"] or match["behind"].strip(b" \t") for match in found)


def _values(content: bytes, name: bytes) -> list[bytes]:
    """A message that starts with white space has no header: what looks like one is its text."""
    if content.startswith(_WHITE_SPACE):
        return []
    return [unfold(content[value:end]) for _, value, end in spans_of(content, name)]


def _has(content: bytes, name: bytes) -> bool:
    return bool(_values(content, name))


def _with_login(content: bytes, name: bytes, identity: Identity) -> bytes:
    """The message with the login's address, alone, in the field of that name."""
    if not content.startswith(_WHITE_SPACE):
        content = remove_header(content, name, lambda value: True)
    return add_trace(content, b"%s: <%s>\r\n" % (name.capitalize(), identity.address.encode()))
