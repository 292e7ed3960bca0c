"""The IMAP grammar: octets to commands and values to octets, without I/O or a clock.

Reading, in one loop for a connection: `CommandAssembler` takes lines and literals and returns what to read next.

    want = assembler.start()
    while True:
        match want:
            case NeedLine(maximum):            # a line without its CRLF, or line_too_long(head)
                want = assembler.line(...)
            case NeedLiteral(size, synchronising, LiteralKind.APPEND_MESSAGE, append):
                # may refuse(response) first; continuation if synchronising; stream `size` octets
                want = assembler.message_read()
            case NeedLiteral(size, synchronising):   # continuation if synchronising
                want = assembler.literal(...)
            case Drain(size):                  # read and discard
                want = assembler.drained()
            case Refuse(response, close):      # send; then start() or close
            case Complete(assembled):          # parse_command(assembled), BadSyntax; then start()

Names: `decode_mailbox_name`, `encode_mailbox_name`, `check_new_name`, `ListPatterns`. Writing: the modules
`responses`, `response_codes` and `fetch_response`.
"""

from paquebot.wire.imap.assembler import (
    CommandAssembler,
    Complete,
    Drain,
    LiteralKind,
    NeedLine,
    NeedLiteral,
    Refuse,
    Want,
)
from paquebot.wire.imap.ast import Command, State
from paquebot.wire.imap.errors import BadMailboxEncoding, BadSyntax, MailboxNameError
from paquebot.wire.imap.fetch_response import FetchResponse, internal_date, item_name, section_text
from paquebot.wire.imap.grammar.session import parse_authenticate_line, parse_done
from paquebot.wire.imap.grammar.tokens import AssembledCommand, Literal, MessageLiteral
from paquebot.wire.imap.limits import DEFAULT_LIMITS, ImapLimits
from paquebot.wire.imap.mailbox_name import (
    ListPatterns,
    check_new_name,
    decode_mailbox_name,
    encode_mailbox_name,
    list_matches,
)
from paquebot.wire.imap.parser import COMMAND_STATES, parse_command
from paquebot.wire.imap.sequence_set import SequenceSet, compress, set_of

__all__ = [
    "COMMAND_STATES",
    "DEFAULT_LIMITS",
    "AssembledCommand",
    "BadMailboxEncoding",
    "BadSyntax",
    "Command",
    "CommandAssembler",
    "Complete",
    "Drain",
    "FetchResponse",
    "ImapLimits",
    "ListPatterns",
    "Literal",
    "LiteralKind",
    "MailboxNameError",
    "MessageLiteral",
    "NeedLine",
    "NeedLiteral",
    "Refuse",
    "SequenceSet",
    "State",
    "Want",
    "check_new_name",
    "compress",
    "decode_mailbox_name",
    "encode_mailbox_name",
    "internal_date",
    "item_name",
    "list_matches",
    "parse_authenticate_line",
    "parse_command",
    "parse_done",
    "section_text",
    "set_of",
]
