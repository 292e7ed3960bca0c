"""What a FETCH needs for its items, so that it reads no more than that: the view, the row, the summary, the body."""

import enum
from dataclasses import dataclass

from paquebot.imap import flags, sections
from paquebot.imap.sections import Needs
from paquebot.imap.view import View
from paquebot.mailstore.types import StoredMessage
from paquebot.message import MessageSummary
from paquebot.wire.imap.ast import (
    FetchAttribute,
    FetchBinary,
    FetchBinarySize,
    FetchItem,
    FetchPreview,
    FetchSection,
    SectionForm,
    SectionSpecifier,
)
from paquebot.wire.imap.fetch_response import FetchResponse

_OF_VIEW = frozenset({FetchItem.FLAGS, FetchItem.UID, FetchItem.MODSEQ})
_OF_SUMMARY = frozenset({FetchItem.ENVELOPE, FetchItem.BODY, FetchItem.BODYSTRUCTURE})


class Source(enum.IntEnum):
    """Where the items of a FETCH come from, each including those before it."""

    VIEW = 0
    ROW = 1
    SUMMARY = 2
    BODY = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """A FETCH's items. `source` is what every message surely needs; one may still need more (a header field
    that did not fit into its summary)."""

    attributes: tuple[FetchAttribute, ...]
    source: Source
    sets_seen: bool
    with_flags: bool


def plan(attributes: tuple[FetchAttribute, ...]) -> Plan:
    """The plan for the items of a FETCH."""
    return Plan(
        attributes,
        max((_source(attribute) for attribute in attributes), default=Source.VIEW),
        any(_sets_seen(attribute) for attribute in attributes),
        not {FetchItem.FLAGS, FetchItem.MODSEQ}.isdisjoint(attributes),
    )


def _source(attribute: FetchAttribute) -> Source:
    match attribute:
        case FetchSection(section):
            # A list of common fields is in the summary; the summary itself says when it is not.
            cached = section.specifier is SectionSpecifier.HEADER_FIELDS and not section.path
            return Source.SUMMARY if cached else Source.BODY
        case FetchBinary() | FetchBinarySize() | FetchPreview():
            return Source.BODY
        case _ if attribute in _OF_VIEW:
            return Source.VIEW
        case _:
            return Source.SUMMARY if attribute in _OF_SUMMARY else Source.ROW


def _sets_seen(attribute: FetchAttribute) -> bool:
    """RFC 3501 §6.4.5: BODY[...], RFC822 and RFC822.TEXT do; RFC822.HEADER is a BODY.PEEK."""
    match attribute:
        case FetchSection():
            return not attribute.peek and attribute.form is not SectionForm.RFC822_HEADER
        case FetchBinary():
            return not attribute.peek
        case _:
            return False


class NeedsBody(Exception):
    """An item of this message cannot be answered without its body."""


def write_view_items(response: FetchResponse, attributes: tuple[FetchAttribute, ...], view: View, number: int) -> None:
    """The items that the view answers, in the client's order."""
    for attribute in attributes:
        match attribute:
            case FetchItem.UID:
                response.uid(view.uid(number))
            case FetchItem.FLAGS:
                response.flags(flags.of_message(view, number))
            case FetchItem.MODSEQ:
                response.mod_seq(view.mod_seq_of(number))
            case _:
                continue


def write_items(
    response: FetchResponse,
    attributes: tuple[FetchAttribute, ...],
    message: StoredMessage,
    summary: MessageSummary,
    body: bytes | None,
) -> None:
    """The items that the row, the summary and the body answer. Raises NeedsBody; then `response` is spoilt."""
    for attribute in attributes:
        match attribute:
            case FetchItem():
                _write_row_item(response, attribute, message, summary)
            case FetchSection():
                response.section(attribute, _known(sections.section(message, summary, body, attribute)))
            case FetchBinary():
                found = _known(sections.binary(message, summary, body, attribute.path))
                response.binary(attribute, None if found is None else sections.cut(found, attribute.partial))
            case FetchBinarySize():
                found = _known(sections.binary(message, summary, body, attribute.path))
                response.binary_size(attribute, len(found or b""))
            case FetchPreview():
                response.preview(None)


def _known(found: bytes | Needs | None) -> bytes | None:
    if isinstance(found, Needs):
        raise NeedsBody
    return found


def _write_row_item(response: FetchResponse, item: FetchItem, message: StoredMessage, summary: MessageSummary) -> None:
    match item:
        case FetchItem.INTERNALDATE:
            response.internal_date(message.internal_date)
        case FetchItem.RFC822_SIZE:
            response.size(message.size)
        case FetchItem.SAVEDATE:
            response.save_date(message.save_date)
        case FetchItem.EMAILID:
            response.email_id(message.email_id)
        case FetchItem.THREADID:
            response.thread_id(message.thread_id)
        case FetchItem.ENVELOPE:
            response.envelope(summary.envelope)
        case FetchItem.BODY:
            response.body(summary.body)
        case FetchItem.BODYSTRUCTURE:
            response.body_structure(summary.body)
        case _:  # UID, FLAGS and MODSEQ are the view's
            return
