"""Delivery status notifications as messages: text for people, fields for programs, and the message it is about.

Invariants: every line ends with CRLF, with at most 998 bytes before it; text of other hosts never starts a field or a
line; the result is 7-bit unless the returned message, or the address it goes to, is not.
RFC 3464 (delivery-status), RFC 6522 (multipart/report), RFC 3461 §6 (what ENVID, ORCPT and RET become),
RFC 6533 (international addresses), RFC 3834 §5 (Auto-Submitted).
"""

import contextlib
import hashlib
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from string import hexdigits
from typing import Final

from paquebot.message.conversion.fields import Unconvertible
from paquebot.message.conversion.fields import folded as folded_field
from paquebot.message.conversion.message import ConversionRules, conversion, pieces
from paquebot.message.conversion.transfer_encoding import quoted_printable
from paquebot.message.dsn.report import Action, DeliveryReport, RecipientReport
from paquebot.message.dsn.text import human_text, one_line, subject
from paquebot.message.header import field_spans, first_value, split_header
from paquebot.message.summary.conversation import first_message_id
from paquebot.wire.smtp.parameters import Ret
from paquebot.wire.smtp.xtext import encode_utf8_xtext

MAX_RETURNED: Final = 1024 * 1024
"""Bytes; of a longer message only the header is returned."""

_MAX_RETURNED_HEADER: Final = 64 * 1024
_MAX_FIELD: Final = 900  # bytes; with its name a field stays under RFC 5322 §2.1.1's 998
_FOLD_AT: Final = 76

_FULL_TEXT: Final = "Your message is attached."
_HEADER_TEXT: Final = "The first lines of your message, which identify it, are attached."
_DEFAULT_STATUS: Final = {Action.FAILED: "5.0.0", Action.DELAYED: "4.0.0"}


@dataclass(frozen=True, slots=True)
class _Part:
    content_type: str
    encoding: str
    body: bytes

    def to_bytes(self) -> bytes:
        lines = f"Content-Type: {self.content_type}\r\nContent-Transfer-Encoding: {self.encoding}\r\n\r\n"
        return lines.encode("ascii") + self.body


def build_dsn(report: DeliveryReport) -> bytes:
    """The notification as an RFC 5322 message.

    To be sent with the null reverse-path (RFC 3464 §2); it needs SMTPUTF8 when `report.return_path` is not
    ASCII, and 8BITMIME when the result has bytes over 127. Raises ValueError for a report without recipients, or to
    the null reverse-path.
    """
    if not report.recipients or not report.return_path:
        raise ValueError("a notification needs a reverse-path and at least one recipient")
    returned, sentence = _returned(report)
    parts = [_text_part(human_text(report, sentence)), _status_part(report), returned]
    data = [part.to_bytes() for part in parts]
    boundary = _boundary(report.message_id, data)
    delimiter = f"\r\n--{boundary}\r\n".encode("ascii")
    eight_bit = any(part.encoding == "8bit" for part in parts)
    return b"".join(
        (
            _header(report, boundary, eight_bit=eight_bit),
            b"This is a delivery report in MIME format.\r\n",
            *(delimiter + part for part in data),
            f"\r\n--{boundary}--\r\n".encode("ascii"),
        )
    )


def _header(report: DeliveryReport, boundary: str, *, eight_bit: bool) -> bytes:
    host = one_line(report.reporting_mta)
    about = first_message_id(first_value(report.original, b"message-id") or b"")
    lines = [
        f"From: Mail Delivery System <postmaster@{host}>",
        f"To: <{one_line(report.return_path)}>",
        f"Subject: {subject(report)}",
        f"Date: {format_datetime(report.now)}",
        f"Message-ID: {one_line(report.message_id)}",
    ]
    if about is not None and len(about) <= _FOLD_AT * 3 and about.isascii():
        # RFC 5322 §3.6.4: clients show the report beside the message it is about.
        lines += [f"{name}: <{one_line(about.decode('ascii'))}>" for name in ("In-Reply-To", "References")]
    lines += [
        "Auto-Submitted: auto-replied",  # RFC 3834 §5
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f'\tboundary="{boundary}"',
        f"Content-Transfer-Encoding: {'8bit' if eight_bit else '7bit'}",
    ]
    return "\r\n".join((*lines, "", "")).encode()


def _boundary(message_id: str, parts: list[bytes]) -> str:
    """A boundary that no part contains (RFC 2046 §5.1.1), the same for the same report."""
    digest = hashlib.sha256(message_id.encode())
    while True:
        boundary = f"=_{digest.hexdigest()[:32]}"
        if not any(boundary.encode("ascii") in part for part in parts):
            return boundary
        digest.update(b"again")


def _text_part(text: str) -> _Part:
    if text.isascii():
        return _Part("text/plain; charset=utf-8", "7bit", text.replace("\n", "\r\n").encode("ascii"))
    return _Part("text/plain; charset=utf-8", "quoted-printable", quoted_printable(text.encode()))


def _status_part(report: DeliveryReport) -> _Part:
    """RFC 3464 §2: delivery-status-content = per-message-fields 1*(CRLF per-recipient-fields)"""
    # RFC 6533 §3: UTF-8 in the fields needs the global form; without it addresses are written in ASCII.
    utf8 = not report.return_path.isascii()
    groups = [_message_fields(report), *(_recipient_fields(item, utf8=utf8) for item in report.recipients)]
    body = "\r\n".join("".join(_field(name, value, utf8=utf8) for name, value in group) for group in groups)
    if utf8 and not body.isascii():
        return _Part("message/global-delivery-status", "8bit", body.encode())
    return _Part("message/delivery-status", "7bit", body.encode("ascii"))


_Fields = list[tuple[str, str | None]]


def _message_fields(report: DeliveryReport) -> _Fields:
    """RFC 3464 §2.2"""
    return [
        ("Original-Envelope-Id", xtext_decoded(report.envelope_id) if report.envelope_id else None),
        ("Reporting-MTA", f"dns; {report.reporting_mta}"),
        ("Arrival-Date", _date(report.arrival_date)),
    ]


def _recipient_fields(item: RecipientReport, *, utf8: bool) -> _Fields:
    """RFC 3464 §2.3"""
    retry = item.will_retry_until if item.action is Action.DELAYED else None  # §2.3.9
    return [
        ("Original-Recipient", _original_recipient(item.original_recipient, utf8=utf8)),
        ("Final-Recipient", _typed_address(item.final_recipient, utf8=utf8)),
        ("Action", item.action.value),
        ("Status", _status(item)),
        ("Remote-MTA", f"dns; {item.remote_mta}" if item.remote_mta else None),
        ("Diagnostic-Code", _diagnostic(item.diagnostic_code)),
        ("Last-Attempt-Date", _date(item.last_attempt)),
        ("Will-Retry-Until", _date(retry)),
    ]


def _status(item: RecipientReport) -> str:
    """RFC 3464 §2.3.4: status-code = DIGIT "." 1*3DIGIT "." 1*3DIGIT"""
    digits = item.status.split(".")
    well_formed = len(digits) == 3 and digits[0] in ("2", "4", "5") and item.status.isascii()
    if well_formed and all(part.isdigit() and len(part) <= 3 for part in digits):
        return item.status
    return _DEFAULT_STATUS.get(item.action, "2.0.0")


def _diagnostic(text: str | None) -> str | None:
    """RFC 3464 §2.3.6: diagnostic-type ";" *text; the type smtp is for SMTP replies alone (§2.1.2 allows x-)."""
    if not text:
        return None
    return f"smtp; {text}" if text[:3].isdigit() else f"x-paquebot; {text}"


def _date(moment: datetime | None) -> str | None:
    return None if moment is None else format_datetime(moment)


def _typed_address(address: str, *, utf8: bool) -> str:
    """RFC 3464 §2.1.2: address-type ";" generic-address, with the type utf-8 of RFC 6533 §3 where needed"""
    if address.isascii():
        return f"rfc822; {address}"
    return f"utf-8; {address if utf8 else encode_utf8_xtext(address)}"


def _original_recipient(orcpt: str | None, *, utf8: bool) -> str | None:
    """RFC 3461 §6.3: the ORCPT value, its xtext decoded."""
    if orcpt is None:
        return None
    kind, _, address = orcpt.partition(";")
    if kind.lower() == "utf-8":
        address = address if address.isascii() or utf8 else encode_utf8_xtext(address)
        return f"utf-8; {address}"
    return f"{kind}; {xtext_decoded(address)}"


def xtext_decoded(text: str) -> str:
    """RFC 3461 §4: xtext = *( xchar / "+" 2HEXDIGIT ); as it is when that gives no printable ASCII."""
    pieces = text.split("+")
    decoded = [pieces[0]]
    for piece in pieces[1:]:
        digits = piece[:2]
        if len(digits) < 2 or not all(digit in hexdigits for digit in digits):
            return text
        char = chr(int(digits, 16))
        if not (char.isascii() and char.isprintable()):
            return text
        decoded += (char, piece[2:])
    return "".join(decoded)


def _field(name: str, value: str | None, *, utf8: bool) -> str:
    """One field, folded at spaces; nothing for None."""
    if value is None:
        return ""
    text = one_line(value).encode("utf-8" if utf8 else "ascii", "replace")[:_MAX_FIELD].decode("utf-8", "ignore")
    lines = [f"{name}:"]
    for word in text.split(" "):
        if len(lines[-1]) + 1 + len(word) > _FOLD_AT and lines[-1].strip() != f"{name}:":
            lines.append("")
        lines[-1] += f" {word}"
    return "\r\n".join(lines) + "\r\n"


def _returned(report: DeliveryReport) -> tuple[_Part, str]:
    """RFC 3461 §4.3: the whole message only when RET asks for it, and only for a failure."""
    header = _crlf(_bounded_header(report.original))
    failed = any(item.action is Action.FAILED for item in report.recipients)
    if report.ret is Ret.FULL and failed and len(report.original) <= MAX_RETURNED:
        with contextlib.suppress(Unconvertible):
            return _whole_part(header, _with_short_lines(_crlf(report.original))), _FULL_TEXT
    return _header_part(header), _HEADER_TEXT


def _with_short_lines(message: bytes) -> bytes:
    """RFC 5322 §2.1.1. Signatures of the returned message need not stay valid, but for those inside its parts. Raises
    Unconvertible."""
    return b"".join(pieces(message, conversion(message, ConversionRules())))


def _bounded_header(original: bytes) -> bytes:
    end = split_header(original)
    if end <= _MAX_RETURNED_HEADER:
        return original[:end]
    return original[: original.rfind(b"\n", 0, _MAX_RETURNED_HEADER) + 1 or _MAX_RETURNED_HEADER]


def _whole_part(header: bytes, message: bytes) -> _Part:
    # RFC 6533 §5: UTF-8 in the header makes it message/global.
    content_type = "message/global" if _is_utf8(header) else "message/rfc822"
    return _Part(content_type, "7bit" if message.isascii() else "8bit", message)


def _header_part(header: bytes) -> _Part:
    if header.isascii():
        spans = [(start, end) for _, start, _, end in field_spans(header, 0, len(header))]
        folded = b"".join(folded_field(header[start:end]) for start, end in spans)
        return _Part("text/rfc822-headers", "7bit", folded + header[spans[-1][1] if spans else 0 :])
    content_type = "message/global-headers" if _is_utf8(header) else "text/rfc822-headers"
    return _Part(content_type, "quoted-printable", quoted_printable(header))


def _is_utf8(data: bytes) -> bool:
    """Whether the bytes are UTF-8 and more than ASCII."""
    if data.isascii():
        return False
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _crlf(data: bytes) -> bytes:
    """Every line end as CRLF; NUL, which no mail may carry, removed (RFC 5322 §2.2)."""
    lines = data.replace(b"\0", b"").replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    return lines if lines.endswith(b"\r\n") else lines + b"\r\n"
