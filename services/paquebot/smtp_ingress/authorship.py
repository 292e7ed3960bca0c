"""Whom a submitted message may name as its author and its sender (RFC 6409 §6.1, §8.1; RFC 5322 §3.6.2).

From names authors that belong to the login, and Sender nobody else. A message that names no author, or a foreign
Sender, is refused or gets the login's address there, as the operator says; a foreign author is always refused.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from paquebot.message import MailAddress, add_trace, addresses, field_value, fields, remove_header
from paquebot.rpc import Identity, ValidationClient
from paquebot.smtp_ingress.session import Session, Transaction
from paquebot.smtp_ingress.settings import SenderPolicy
from paquebot.wire.address import Address, BadAddress, canonical, parse_address
from paquebot.wire.smtp import replies
from paquebot.wire.smtp.replies import Reply

_MAX_AUTHORS = 16  # addresses of From and Sender that are checked
_WHITE_SPACE = (b" ", b"\t")


class _Foreign(Exception):
    """An address does not belong to the login."""


@dataclass(frozen=True, slots=True)
class Authorship:
    """One for a process."""

    validation: ValidationClient
    policy: SenderPolicy

    async def owns(self, session: Session, address: Address | str, trace: str = "") -> bool:
        """May the session's identity send as `address`? Raises DirectoryUnavailable."""
        assert session.identity is not None
        try:
            wanted = str(canonical(address if isinstance(address, Address) else parse_address(address)))
        except BadAddress:
            return False
        if wanted == session.identity.address or wanted in session.owned:
            return True
        allowed = await self.validation.authorize_sender(session.identity.account_id, wanted, trace=trace)
        if allowed:
            session.remember_owned(wanted)
        return allowed

    async def checked(self, session: Session, transaction: Transaction, content: bytes) -> bytes | Reply:
        """The message as it may be sent by the session's identity, or why it may not. Raises DirectoryUnavailable."""
        assert session.identity is not None
        smtputf8 = transaction.parameters.smtputf8
        try:
            has_author = await self._owned(session, content, b"from", transaction.trace)
        except _Foreign:
            return replies.FROM_NOT_OWNED
        if not has_author:
            if not self._may_write(session.identity, smtputf8=smtputf8):
                return replies.FROM_MISSING
            content = _with_login(content, b"from", session.identity)
        try:
            foreign = _has(content, b"sender") and not await self._owned(session, content, b"sender", transaction.trace)
        except _Foreign:
            foreign = True
        if not foreign:
            return content
        if not self._may_write(session.identity, smtputf8=smtputf8):
            return replies.SENDER_FIELD_NOT_OWNED
        return _with_login(content, b"sender", session.identity)

    def _may_write(self, identity: Identity, *, smtputf8: bool) -> bool:
        """An address beyond ASCII may stand in a header only where SMTPUTF8 was asked for (RFC 6531 §3.2)."""
        return self.policy is SenderPolicy.REWRITE and (smtputf8 or identity.address.isascii())

    async def _owned(self, session: Session, content: bytes, name: bytes, trace: str) -> bool:
        """Does a field of that name have an address? Each must belong to the login. Raises _Foreign."""
        named = [entry for entry in _named(content, name) if entry.mailbox is not None and entry.host is not None]
        if len(named) > _MAX_AUTHORS:
            raise _Foreign
        for entry in named:
            if not await self.owns(session, f"{_text(entry.mailbox)}@{_text(entry.host)}", trace):
                raise _Foreign
        return bool(named)


def _values(content: bytes, name: bytes) -> list[bytes]:
    """A message that starts with white space has no header: what looks like one is stored as its text."""
    if content.startswith(_WHITE_SPACE):
        return []
    return [field_value(field) for found, field in fields(content) if found == name]


def _has(content: bytes, name: bytes) -> bool:
    return bool(_values(content, name))


def _named(content: bytes, name: bytes) -> Iterator[MailAddress]:
    for value in _values(content, name):
        yield from addresses(value)


def _with_login(content: bytes, name: bytes, identity: Identity) -> bytes:
    """The message whose field of that name is the login's address, and no other's."""
    if not content.startswith(_WHITE_SPACE):
        content = remove_header(content, name, lambda value: True)
    return add_trace(content, b"%s: <%s>\r\n" % (name.capitalize(), identity.address.encode()))


def _text(octets: bytes | None) -> str:
    return (octets or b"").decode("utf-8", "replace")
