"""The ESMTP parameters of MAIL and RCPT: read by the server, written by the client.

SIZE (RFC 1870), BODY (RFC 6152), SMTPUTF8 (RFC 6531), RET, ENVID, NOTIFY and ORCPT (RFC 3461), AUTH (RFC 4954 §5).
A parameter whose extension the server has not offered is not recognised (RFC 5321 §4.1.1.11).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, replace

from paquebot.wire.smtp.xtext import BadXtext, decode_utf8_xtext, decode_xtext, encode_utf8_xtext, encode_xtext

MAX_ENVID = 100  # characters of xtext that the client sends; RFC 3461 §4.4
MAX_ORCPT = 500  # characters of xtext that the client sends; RFC 3461 §4.2
_MAX_VALUE = 900
"""Characters of xtext in ENVID and ORCPT that the server accepts, and that fit into a line of a DSN: an original
recipient may be as long as any address. Values that are too long to send on are used in our own DSNs only."""
_MAX_SIZE_DIGITS = 20  # RFC 1870 §4
_KEYWORD = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-")
_Reader = Callable[[str | None], dict[str, object]]


class BadParameter(ValueError):
    """A parameter's value is not of its grammar; `keyword` names it in upper case. Reply 501 5.5.4."""

    def __init__(self, keyword: str, reason: str) -> None:
        super().__init__(f"{keyword}: {reason}")
        self.keyword = keyword


class UnknownParameter(BadParameter):
    """Not a parameter of the offered extensions. Reply 555 5.5.4."""

    def __init__(self, keyword: str) -> None:
        super().__init__(keyword, "not recognised")


class Body(enum.Enum):
    """RFC 6152 §2 and RFC 3030 §3."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT_MIME = "8BITMIME"
    BINARY_MIME = "BINARYMIME"
    """Only as a client: the server does not offer it."""


class Ret(enum.IntEnum):
    """RFC 3461 §4.3; numbers as in paquebot.v1.Ret."""

    FULL = 1
    HDRS = 2


class Notify(enum.IntEnum):
    """RFC 3461 §4.1; numbers as in paquebot.v1.Notify."""

    NEVER = 1
    SUCCESS = 2
    FAILURE = 3
    DELAY = 4


@dataclass(frozen=True, slots=True)
class MailParameters:
    """Of MAIL. `size` in octets, 0: absent; `envid` decoded; `auth` decoded mailbox, "<>" or empty: absent."""

    size: int = 0
    body: Body | None = None
    smtputf8: bool = False
    ret: Ret | None = None
    envid: str = ""
    auth: str = ""

    def narrowed_to(self, extensions: Container[str]) -> MailParameters:
        """Only what a server that offers `extensions` (EHLO keywords in upper case) understands.

        SMTPUTF8 is not narrowed: without it such a message cannot go to that server at all (RFC 6531 §3.2).
        """
        kept = self if "SIZE" in extensions else replace(self, size=0)
        binary = kept.body is Body.BINARY_MIME
        kept = kept if ("BINARYMIME" if binary else "8BITMIME") in extensions else replace(kept, body=None)
        kept = kept if "DSN" in extensions else replace(kept, ret=None, envid="")
        kept = kept if len(encode_xtext(kept.envid)) <= MAX_ENVID else replace(kept, envid="")
        return kept if "AUTH" in extensions else replace(kept, auth="")

    def __str__(self) -> str:
        """As written after the reverse-path: ` SIZE=100 BODY=8BITMIME`, with a leading space, or empty."""
        words = [
            f" SIZE={self.size}" if self.size else "",
            f" BODY={self.body.value}" if self.body else "",
            " SMTPUTF8" if self.smtputf8 else "",
            f" RET={self.ret.name}" if self.ret else "",
            f" ENVID={encode_xtext(self.envid)}" if self.envid else "",
            f" AUTH={self.auth if self.auth == '<>' else encode_xtext(self.auth)}" if self.auth else "",
        ]
        return "".join(words)


@dataclass(frozen=True, slots=True)
class RcptParameters:
    """Of RCPT. `notify` empty: absent; `orcpt` decoded, `addr-type;address`, empty: absent."""

    notify: tuple[Notify, ...] = ()
    orcpt: str = ""

    def narrowed_to(self, extensions: Container[str]) -> RcptParameters:
        """Only what a server that offers `extensions` (EHLO keywords in upper case) understands."""
        if "DSN" not in extensions:
            return _NO_RCPT_PARAMETERS
        return self if len(print_orcpt(self.orcpt)) <= MAX_ORCPT else replace(self, orcpt="")

    def __str__(self) -> str:
        """As written after the forward-path: ` NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a@b`, or empty."""
        notify = f" NOTIFY={','.join(item.name for item in self.notify)}" if self.notify else ""
        return f"{notify} ORCPT={print_orcpt(self.orcpt)}" if self.orcpt else notify


_NO_MAIL_PARAMETERS = MailParameters()
_NO_RCPT_PARAMETERS = RcptParameters()


def print_orcpt(orcpt: str) -> str:
    """RFC 3461 §4.2: original-recipient-address = addr-type ";" xtext; of type utf-8 by RFC 6533 §3."""
    addr_type, _, address = orcpt.partition(";")
    if addr_type.lower() == "utf-8" or not address.isascii():
        return f"utf-8;{encode_utf8_xtext(address)}"
    return f"{addr_type};{encode_xtext(address)}"


def parse_mail_parameters(text: str, extensions: Container[str]) -> MailParameters:
    """The parameters behind the reverse-path, e.g. `SIZE=100 BODY=8BITMIME`. `extensions` are those offered at EHLO, in
    upper case; none after HELO. Raises UnknownParameter and BadParameter."""
    if not text:
        return _NO_MAIL_PARAMETERS
    return MailParameters(**_fields(text, _MAIL, extensions))  # type: ignore[arg-type]


def parse_rcpt_parameters(text: str, extensions: Container[str]) -> RcptParameters:
    """The parameters behind the forward-path, e.g. `NOTIFY=NEVER`. Raises UnknownParameter and BadParameter."""
    if not text:
        return _NO_RCPT_PARAMETERS
    return RcptParameters(**_fields(text, _RCPT, extensions))  # type: ignore[arg-type]


def _fields(text: str, readers: Mapping[str, tuple[str, _Reader]], extensions: Container[str]) -> dict[str, object]:
    """The fields that the parameters set. Reading stops at the first that is wrong, unknown or repeated, so it never
    reads more parameters than there are keywords."""
    fields: dict[str, object] = {}
    seen: set[str] = set()
    for keyword, value in _esmtp_params(text):
        if keyword in seen:
            raise BadParameter(keyword, "given twice")  # RFC 5321 §4.1.1.11
        seen.add(keyword)
        extension, read = readers.get(keyword, ("", _refuse))
        if extension not in extensions:
            raise UnknownParameter(keyword)
        fields.update(read(value))
    return fields


def _esmtp_params(text: str) -> Iterator[tuple[str, str | None]]:
    """RFC 5321 §4.1.2: esmtp-param *(SP esmtp-param), each as (KEYWORD, value); value None: no `=`."""
    for word in text.replace("\t", " ").split(" "):
        if not word:
            continue  # clients send several spaces between parameters, and tabs
        keyword, equals, value = word.partition("=")
        if not keyword or not _KEYWORD.issuperset(keyword) or keyword[0] == "-":
            raise BadParameter("parameter", "expected a keyword")
        # esmtp-value = 1*(%d33-60 / %d62-126); RFC 6531 §3.3 adds UTF-8
        if equals and (not value or "=" in value or any(c < "!" or c == "\x7f" for c in value)):
            raise BadParameter(keyword.upper(), "expected a value")
        yield keyword.upper(), value if equals else None


def _refuse(value: str | None) -> dict[str, object]:
    raise AssertionError("no extension has an empty name")


def _size(value: str | None) -> dict[str, object]:
    """RFC 1870 §4: size-value = 1*20DIGIT"""
    if not value or not value.isascii() or not value.isdecimal() or len(value) > _MAX_SIZE_DIGITS:
        raise BadParameter("SIZE", "expected 1 to 20 digits")
    return {"size": int(value)}


def _body(value: str | None) -> dict[str, object]:
    """RFC 6152 §2: body-value = "7BIT" / "8BITMIME"; BINARYMIME (RFC 3030) is not offered."""
    word = (value or "").upper()
    if word not in (Body.SEVEN_BIT.value, Body.EIGHT_BIT_MIME.value):
        raise BadParameter("BODY", "expected 7BIT or 8BITMIME")
    return {"body": Body(word)}


def _smtputf8(value: str | None) -> dict[str, object]:
    """RFC 6531 §3.1: the parameter has no value."""
    if value is not None:
        raise BadParameter("SMTPUTF8", "takes no value")
    return {"smtputf8": True}


def _ret(value: str | None) -> dict[str, object]:
    """RFC 3461 §4.3: ret-value = "FULL" / "HDRS" """
    ret = Ret.__members__.get((value or "").upper())
    if ret is None:
        raise BadParameter("RET", "expected FULL or HDRS")
    return {"ret": ret}


def _envid(value: str | None) -> dict[str, object]:
    """RFC 3461 §4.4: envid-parameter = "ENVID=" xtext"""
    if not value or len(value) > _MAX_VALUE:
        raise BadParameter("ENVID", f"expected 1 to {_MAX_VALUE} characters")
    return {"envid": _decoded("ENVID", decode_xtext, value)}


def _auth(value: str | None) -> dict[str, object]:
    """RFC 4954 §5: AUTH=<> or the xtext of a mailbox. Passed on, never trusted."""
    if not value:
        raise BadParameter("AUTH", "expected <> or a mailbox")
    return {"auth": value if value == "<>" else _decoded("AUTH", decode_xtext, value)}


def _notify(value: str | None) -> dict[str, object]:
    """RFC 3461 §4.1: notify-esmtp-value = "NEVER" / ( "SUCCESS" / "FAILURE" / "DELAY" ) #, each once."""
    items = tuple(Notify.__members__.get(word) for word in (value or "").upper().split(","))
    known = tuple(item for item in items if item is not None)
    if len(known) < len(items) or len(set(known)) < len(known) or (Notify.NEVER in known and len(known) > 1):
        raise BadParameter("NOTIFY", "expected NEVER alone, or SUCCESS, FAILURE and DELAY, each once")
    return {"notify": known}


def _orcpt(value: str | None) -> dict[str, object]:
    """RFC 3461 §4.2: addr-type ";" xtext; of type utf-8 by RFC 6533 §3."""
    addr_type, semicolon, encoded = (value or "").partition(";")
    if not semicolon or not addr_type or not encoded or not _KEYWORD.issuperset(addr_type):
        raise BadParameter("ORCPT", "expected an address type, a semicolon and an address")
    if len(value or "") > _MAX_VALUE:
        raise BadParameter("ORCPT", f"expected at most {_MAX_VALUE} characters")
    if addr_type.lower() == "utf-8":
        addr_type, decode = "utf-8", decode_utf8_xtext  # in lower case, as it is written
    else:
        decode = decode_xtext
    return {"orcpt": f"{addr_type};{_decoded('ORCPT', decode, encoded)}"}


def _decoded(keyword: str, decode: Callable[[str], str], value: str) -> str:
    try:
        return decode(value)
    except BadXtext as error:
        raise BadParameter(keyword, str(error)) from None


_MAIL: dict[str, tuple[str, _Reader]] = {
    "SIZE": ("SIZE", _size),
    "BODY": ("8BITMIME", _body),
    "SMTPUTF8": ("SMTPUTF8", _smtputf8),
    "RET": ("DSN", _ret),
    "ENVID": ("DSN", _envid),
    "AUTH": ("AUTH", _auth),
}
_RCPT: dict[str, tuple[str, _Reader]] = {"NOTIFY": ("DSN", _notify), "ORCPT": ("DSN", _orcpt)}
