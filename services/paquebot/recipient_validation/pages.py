"""Page tokens: opaque to the client; the last key of the previous page."""

import base64
import binascii
import json

from paquebot.directory.errors import InvalidValue

DEFAULT_PAGE = 100
MAX_PAGE = 1000


def page_size(asked: int) -> int:
    """Entries of a page; 0 asks for the default."""
    return min(asked or DEFAULT_PAGE, MAX_PAGE)


def page_token(*key: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def page_key(token: str, parts: int) -> list[str]:
    """The key in `token`, of so many parts; an empty token is before every key. Raises InvalidValue."""
    if not token:
        return [""] * parts
    try:
        key = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (binascii.Error, ValueError, RecursionError):
        key = None
    if not isinstance(key, list) or len(key) != parts or not all(map(_is_name, key)):
        raise InvalidValue("not a page token of this service")
    return key


def _is_name(part: object) -> bool:
    """Whether PostgreSQL can compare names with it: without NUL, and without the lone surrogates that JSON permits."""
    return isinstance(part, str) and "\0" not in part and part.encode("utf-8", "ignore").decode() == part
