"""Addresses and domain names as an administrator writes them, to the forms that are stored."""

from paquebot.directory.errors import InvalidValue
from paquebot.wire.address import Address, BadAddress, canonical, normal_domain, parse_address

MAX_TARGETS = 100
_MAX_SHOWN = 300
MAX_DISPLAY_NAME = 200
MAX_LOCAL = 255
"""Bytes of a local part of our own: what keys of the database hold. Those of others may be longer."""


def domain_name(text: str) -> str:
    """A domain of our own: no address literal. Raises Invalid."""
    try:
        name = normal_domain(text.strip())
    except BadAddress as error:
        raise InvalidValue(f"{_shown(text)} is not a domain name: {error}") from None
    if name.startswith("["):
        raise InvalidValue("a domain cannot be an address literal")
    return name


def local_address(text: str) -> Address:
    """An address in canonical form: how accounts and aliases are stored. Raises Invalid."""
    address = canonical(_address(text))
    if len(address.local.encode()) > MAX_LOCAL:
        raise InvalidValue(f"the part before the @ has at most {MAX_LOCAL} bytes")
    return address


def target_address(text: str) -> str:
    """Where an alias leads, local or remote; the case of the local part is kept. Raises Invalid."""
    return str(_address(text))


def target_addresses(texts: list[str]) -> list[str]:
    """An alias's targets in the order given, duplicates dropped. Raises Invalid."""
    targets = list(dict.fromkeys(target_address(text) for text in texts))
    if not 1 <= len(targets) <= MAX_TARGETS:
        raise InvalidValue(f"an alias has 1 to {MAX_TARGETS} targets")
    return targets


def quota(octets: int) -> int:
    """Bytes; 0: none. Raises Invalid."""
    if octets < 0:
        raise InvalidValue("a quota is a number of bytes, or 0 for none")
    return octets


def display_name(text: str) -> str:
    """Raises Invalid."""
    if len(text) > MAX_DISPLAY_NAME or not text.isprintable():
        raise InvalidValue(f"a display name is printable text of at most {MAX_DISPLAY_NAME} characters")
    return text


def _address(text: str) -> Address:
    try:
        return parse_address(text.strip())
    except BadAddress as error:
        raise InvalidValue(f"{_shown(text)} is not a mail address: {error}") from None


def _shown(text: str) -> str:
    """Within a sentence, and within what a status of gRPC holds."""
    return repr(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}...")
