"""The IMAP grammar: octets to commands and values to octets, without I/O or clock.

Reading
    CommandAssembler(limits)                 feed lines and literals, it says what it wants next
        .authenticated: bool                 set by the service after login: wider limits
        .start() -> NeedLine                 begin the next command
        .line(line: bytes) -> Want           one line, without its CRLF
        .line_too_long(head: bytes) -> Want  no CRLF within NeedLine.maximum octets; head is what came
        .literal(payload: bytes) -> Want     the octets asked for by NeedLiteral (NORMAL, LITERAL8)
        .message_read() -> Want              an APPEND_MESSAGE literal was read in full by the service
        .refuse(response: bytes) -> Want     the service declines the literal asked for (no such mailbox, quota)
        .drained() -> Want                   the octets of Drain were read and thrown away
    Want = NeedLine(maximum)
         | NeedLiteral(size, synchronising, kind: LiteralKind, append: Append | None)
               synchronising: send a continuation before reading. For APPEND_MESSAGE, `append` is the command
               as far as it was read, its last message being the one that follows.
         | Drain(size)                       read and throw away, then .drained()
         | Complete(assembled)               parse_command(assembled); then .start() again
         | Refuse(response, close)           send response (whole lines); the command is over; then .start() or close
    parse_command(assembled, *, utf8=False, limits=DEFAULT_LIMITS) -> Command    raises BadSyntax
    BadSyntax(tag: bytes | None, message: str, position: int)
    parse_done(line: bytes) -> None                         the line that ends IDLE; raises BadSyntax
    parse_authenticate_line(line: bytes) -> bytes | None    a client's SASL response, None for "*"; raises BadSyntax
    COMMAND_STATES: Mapping[type, frozenset[State]]

Names
    decode_mailbox_name(raw, *, utf8=False) -> str          raises MailboxNameError
    encode_mailbox_name(name, *, utf8=False) -> bytes       the wire form, before quoting
    check_new_name(name) -> str                             for CREATE and RENAME; raises MailboxNameError
    list_matches(pattern, name, delimiter="/") -> bool
    section_text(section) -> bytes, item_name(attribute) -> bytes

Writing: paquebot.wire.imap.responses, .response_codes and .fetch_response.
"""
