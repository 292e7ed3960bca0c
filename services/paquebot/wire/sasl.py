"""SASL PLAIN and LOGIN: reads and writes responses with credentials, for SMTP, IMAP and POP3.

RFC 4422, RFC 4616 (PLAIN), the expired draft-murchison-sasl-login (LOGIN). A repr never shows a password.
"""

import base64
import binascii
from dataclasses import dataclass, field

MAX_FIELD = 1024  # octets of a login or a password; RFC 4616 §2 asks for at least 255
MAX_RESPONSE = 12288  # octets of base64 in one line; RFC 4954 §4


class BadSasl(ValueError):
    """The response breaks its mechanism's grammar; the text states what was expected, never what was sent."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """`authorization_id` is empty when the client asks to act as itself."""

    login: str
    password: str = field(repr=False)
    authorization_id: str = ""

    @property
    def acts_as_itself(self) -> bool:
        """RFC 4616 §2: a server may allow acting for another account; this one never does."""
        return self.authorization_id in ("", self.login)


def decode_response(text: bytes) -> bytes:
    """The octets of one base64 response without line end; `=` alone is the empty one (RFC 4954 §4, RFC 5034 §4).

    Raises BadSasl for anything but canonical base64.
    """
    if text == b"=":
        return b""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadSasl("expected base64") from None


def parse_plain(message: bytes) -> Credentials:
    """RFC 4616 §2: message = [authzid] UTF8NUL authcid UTF8NUL passwd. Raises BadSasl."""
    parts = message.split(b"\0")
    if len(parts) != 3:
        raise BadSasl("expected an authorization identity, a login and a password, separated by NUL")
    authorization_id = _text(parts[0]) if parts[0] else ""
    return Credentials(_text(parts[1]), _text(parts[2]), authorization_id)


def print_plain(credentials: Credentials) -> bytes:
    """The base64 of PLAIN's one message, for a client."""
    fields = (credentials.authorization_id, credentials.login, credentials.password)
    return base64.b64encode("\0".join(fields).encode())


def parse_login(username: bytes, password: bytes) -> Credentials:
    """The two decoded responses of LOGIN. Raises BadSasl."""
    return Credentials(_text(username), _text(password))


def print_login(credentials: Credentials) -> tuple[bytes, bytes]:
    """The base64 of LOGIN's two responses, for a client."""
    return base64.b64encode(credentials.login.encode()), base64.b64encode(credentials.password.encode())


def _text(value: bytes) -> str:
    """RFC 4616 §2: 1*SAFE, UTF-8 without NUL, bounded by MAX_FIELD."""
    if not 0 < len(value) <= MAX_FIELD:
        raise BadSasl(f"expected 1 to {MAX_FIELD} octets in each field")
    if b"\0" in value:
        raise BadSasl("expected no NUL in a login or a password")
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise BadSasl("expected UTF-8") from None
