"""RFC 5322 and MIME: bytes in, values out.

Nothing here reads a clock, a file or the network, and no reader raises on any bytes. What other packages use
is re-exported here; each name is documented in its module.
"""

from paquebot.message.addresses.address_list import MailAddress, addresses
from paquebot.message.addresses.address_text import ADDRESS_FIELDS, address_texts
from paquebot.message.addresses.named_addresses import NamedAddresses, named_addresses
from paquebot.message.conversion.fields import Unconvertible
from paquebot.message.conversion.message import ConversionRules, Edit, conversion, pieces
from paquebot.message.conversion.transfer_encoding import MAX_LINE, has_long_line, is_ascii
from paquebot.message.date_time import parse_date
from paquebot.message.dsn.message import build_dsn, xtext_decoded
from paquebot.message.dsn.report import Action, DeliveryReport, RecipientReport
from paquebot.message.header import (
    field_spans,
    field_value,
    fields,
    first_value,
    header_fields,
    spans_of,
    split_header,
    unfold,
)
from paquebot.message.limits import MAX_HEADER, WHOLE, WHOLE_BYTES
from paquebot.message.line_ends import crlf_bytes
from paquebot.message.mime.section import (
    ByteRange,
    SectionText,
    StoredSection,
    charset,
    embedded_message,
    is_multipart,
    part_at,
    section_bytes,
)
from paquebot.message.signatures import Signatures, signatures
from paquebot.message.summary.cached_headers import (
    CACHED_HEADERS,
    SUMMARY_VERSION,
    cached_header_fields,
    knows_header_fields,
)
from paquebot.message.summary.conversation import base_subject, thread_key
from paquebot.message.summary.extent import has_whole_envelope, has_whole_structure, is_surely_whole
from paquebot.message.summary.summarise import summarise
from paquebot.message.text.encoded_text import (
    codec_of,
    decode_charset,
    decode_header_text,
    decode_part_text,
    decode_transfer,
)
from paquebot.message.text.encoded_words import encoded_words
from paquebot.message.text.streamed_text import decoded_pieces, text_pieces
from paquebot.message.trace import (
    add_trace,
    count_received,
    ensure_date_and_message_id,
    is_looping,
    remove_authentication_results,
    remove_header,
)
from paquebot.v1.summary_pb2 import Address, BodyPart, HeaderField, ImapEnvelope, MessageSummary, Parameter

__all__ = [
    "ADDRESS_FIELDS",
    "CACHED_HEADERS",
    "MAX_HEADER",
    "MAX_LINE",
    "SUMMARY_VERSION",
    "WHOLE",
    "WHOLE_BYTES",
    "Action",
    "Address",
    "BodyPart",
    "ByteRange",
    "ConversionRules",
    "DeliveryReport",
    "Edit",
    "HeaderField",
    "ImapEnvelope",
    "MailAddress",
    "MessageSummary",
    "NamedAddresses",
    "Parameter",
    "RecipientReport",
    "SectionText",
    "Signatures",
    "StoredSection",
    "Unconvertible",
    "add_trace",
    "address_texts",
    "addresses",
    "base_subject",
    "build_dsn",
    "cached_header_fields",
    "charset",
    "codec_of",
    "conversion",
    "count_received",
    "crlf_bytes",
    "decode_charset",
    "decode_header_text",
    "decode_part_text",
    "decode_transfer",
    "decoded_pieces",
    "embedded_message",
    "encoded_words",
    "ensure_date_and_message_id",
    "field_spans",
    "field_value",
    "fields",
    "first_value",
    "has_long_line",
    "has_whole_envelope",
    "has_whole_structure",
    "header_fields",
    "is_ascii",
    "is_looping",
    "is_multipart",
    "is_surely_whole",
    "knows_header_fields",
    "named_addresses",
    "parse_date",
    "part_at",
    "pieces",
    "remove_authentication_results",
    "remove_header",
    "section_bytes",
    "signatures",
    "spans_of",
    "split_header",
    "summarise",
    "text_pieces",
    "thread_key",
    "unfold",
    "xtext_decoded",
]
