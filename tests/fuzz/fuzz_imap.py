"""Fuzz the IMAP grammar: on any bytes of a client nothing but BadSyntax is raised, and what is read prints back."""

from paquebot.wire.imap import (
    AssembledCommand,
    BadSyntax,
    Command,
    CommandAssembler,
    Complete,
    ImapLimits,
    ListPatterns,
    Literal,
    MailboxNameError,
    Refuse,
    SequenceSet,
    ast,
    check_new_name,
    decode_mailbox_name,
    encode_mailbox_name,
    item_name,
    parse_authenticate_line,
    parse_command,
    parse_done,
    responses,
)
from tests.fuzz.target import Target
from tests.support.imap_feed import Fed, feed

# Narrow enough for mutations to reach every limit.
_LIMITS = ImapLimits(
    line_before_login=200,
    line=1000,
    literal_before_login=16,
    literal=100,
    append=400,
    command=1500,
    literals_before_login=2,
    literals=6,
    drain_before_login=100,
    drain=1000,
    sequence_ranges=20,
    search_keys=20,
    fetch_attributes=10,
    header_fields=5,
    section_depth=6,
    flags=6,
    list_patterns=3,
)
# What mutations put in: the bytes that decide how a command is read.
_WORDS = (
    b"\r\n", b"\r", b"\n", b"\0", b" ", b"(", b")", b"[", b"]", b"<0.1>", b"{3}\r\n", b"{3+}\r\n", b"~{3}\r\n",
    b"{999+}\r\n", b"{99999999999999999999999}\r\n", b'"', b"\\", b"*", b"%", b"$", b"&", b"&-", b"&AGE-", b"&Jjo-",
    b"1:*", b",", b"4294967296", b"NIL", b"UID ", b"\xff", b"+", b"-", b"\\Seen", b"NOT ", b"OR ", b"((",
    b"a FETCH 1 ", b"a SEARCH ", b"a APPEND x ", b"a LIST ", b"a UID STORE ", b"BODY[", b"RETURN (", b"UTF8 (",
)  # fmt: skip


def check(raw: bytes) -> None:
    """Read the bytes as a client's stream, and as each thing a client may send alone."""
    for authenticated, utf8 in ((False, False), (True, False), (True, True)):
        assembler = CommandAssembler(_LIMITS)
        assembler.authenticated = authenticated
        assembler.utf8 = utf8
        check_stream(feed(raw, assembler), utf8=utf8)
    check_lines(raw)
    check_name(raw)
    check_strings(raw.replace(b"\0", b""))


def check_stream(fed: Fed, *, utf8: bool) -> None:
    """Every outcome is a command, a fault with its place, or a refusal of whole lines; the limits hold."""
    for outcome in fed.outcomes:
        if isinstance(outcome, Refuse):
            assert outcome.response.endswith(b"\r\n")
            assert b"\0" not in outcome.response
            assert all(b"\r" not in line and b"\n" not in line for line in outcome.response[:-2].split(b"\r\n"))
        else:
            check_complete(outcome, utf8=utf8)
    assert all(len(message) <= _LIMITS.append for message in fed.messages)


def check_complete(outcome: Complete, *, utf8: bool) -> None:
    """RFC 3501 §2.2.1: a tag that a response may carry, or none."""
    command = parse(outcome.assembled, utf8=utf8)
    size = sum(len(literal.payload) for literal in outcome.assembled.literals if isinstance(literal, Literal))
    assert size <= _LIMITS.command
    if command is not None:
        assert command.tag
        assert not command.tag.translate(None, bytes(range(0x21, 0x7F)))
        check_command(command, utf8=utf8)


def parse(assembled: AssembledCommand, *, utf8: bool) -> Command | None:
    try:
        return parse_command(assembled, utf8=utf8, limits=_LIMITS)
    except BadSyntax as fault:
        assert 0 <= fault.position <= len(assembled.text)  # noqa: PT017
        assert fault.message.isascii()  # noqa: PT017
        assert fault.message.isprintable()  # noqa: PT017
        return None


def check_command(command: Command, *, utf8: bool) -> None:
    """Sets, names and sections print as they are read."""
    match command:
        case ast.Fetch(sequence_set=found, attributes=attributes):
            check_set(found)
            assert len(set(attributes)) == len(attributes)
            for attribute in attributes:
                if isinstance(attribute, ast.FetchSection | ast.FetchBinary | ast.FetchBinarySize):
                    check_section(attribute)
        case ast.Store(sequence_set=found, flags=flags):
            check_set(found)
            assert "\\Recent" not in flags
        case ast.Copy(sequence_set=found) | ast.Move(sequence_set=found) | ast.UidExpunge(sequence_set=found):
            check_set(found)
        case ast.Select(mailbox=name) | ast.Create(mailbox=name) | ast.Status(mailbox=name):
            assert decode_mailbox_name(encode_mailbox_name(name, utf8=utf8), utf8=utf8) == name
        case ast.List(reference=reference, patterns=patterns):
            for pattern in patterns:
                ListPatterns([reference + pattern]).matches("INBOX/a/b")
        case _:
            pass


def check_set(found: SequenceSet) -> None:
    again = parse(AssembledCommand(f"a UID EXPUNGE {found}".encode("ascii")), utf8=False)
    assert again == ast.UidExpunge(b"a", found)
    for maximum in (0, 1, 50):
        numbers = list(found.iterate(maximum))
        assert numbers == [number for number in range(1, maximum + 1) if found.contains(number, maximum)]


def check_section(attribute: ast.FetchSection | ast.FetchBinary | ast.FetchBinarySize) -> None:
    """The response's name of a section asks for the same section."""
    name = item_name(attribute)
    if not isinstance(attribute, ast.FetchBinarySize) and attribute.partial is not None:
        return  # the response repeats only the offset
    (outcome,) = feed(b"a FETCH 1 " + name + b"\r\n", _wide()).outcomes
    assert isinstance(outcome, Complete)
    again = parse_command(outcome.assembled)
    assert isinstance(again, ast.Fetch)
    (read,) = again.attributes
    assert isinstance(read, type(attribute))
    assert item_name(read) == name


def _wide() -> CommandAssembler:
    assembler = CommandAssembler()
    assembler.authenticated = True
    return assembler


def check_lines(raw: bytes) -> None:
    for read in (parse_done, parse_authenticate_line):
        try:
            read(raw)
        except BadSyntax as fault:
            assert fault.tag is None  # noqa: PT017


def check_name(raw: bytes) -> None:
    """A name that decodes has one encoding; a name that may be made stays as it is."""
    for utf8 in (False, True):
        try:
            name = decode_mailbox_name(raw, utf8=utf8)
        except MailboxNameError:
            continue
        ListPatterns([name]).matches(name)
        assert decode_mailbox_name(encode_mailbox_name(name, utf8=utf8), utf8=utf8) == name
        try:
            made = check_new_name(name)
        except MailboxNameError:
            continue
        assert check_new_name(made) == made


def check_strings(value: bytes) -> None:
    """Whatever is written as a string or astring reads back."""
    out = bytearray(b"a LOGIN ")
    responses.write_astring(out, value)
    out += b" "
    responses.write_string(out, value)
    (outcome,) = feed(bytes(out) + b"\r\n", _wide()).outcomes
    assert isinstance(outcome, Complete)
    assert parse_command(outcome.assembled) == ast.Login(b"a", value, value)


TARGET = Target("imap", check, _WORDS)
