"""The limits of the IMAP grammar, in one frozen value.

RFC 2683 §3.2.1.5 asks servers for command lines of at least 8,000 octets; RFC 7162 §4 for 8,192. These are minimums:
clients in use name 20,000 messages one by one, or search for thousands of addresses with a chain of ORs.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImapLimits:
    """Octets unless a name says otherwise. Lines are counted without their CRLF."""

    line_before_login: int = 32768  # an ID of 30 values of 1,024 octets (RFC 2971 §3.3)
    line: int = 524288
    line_free: int = 65536  # a longer command is charged to the account while it is under way
    literal_before_login: int = 4096
    literal: int = 65536
    append: int = 64 * 1024 * 1024  # one message of APPEND; advertise it as APPENDLIMIT (RFC 7889)
    command: int = 1048576  # lines and literals of one command together, without APPEND's messages
    literals_before_login: int = 4  # a count
    literals: int = 2048  # a count: some clients write each string of a SEARCH as a literal
    messages: int = 256  # a count, of one APPEND; for each message the command so far is parsed again (RFC 3502)
    # A refused non-synchronising literal up to this size is read and discarded; beyond it the
    # connection is closed with BYE (RFC 7888 §4).
    drain_before_login: int = 8192
    drain: int = 64 * 1024 * 1024
    # Counts inside one command.
    sequence_ranges: int = 32768
    search_keys: int = 32768  # ORs, NOTs and parentheses are counted as keys
    fetch_attributes: int = 256
    header_fields: int = 1024  # names in one HEADER.FIELDS list
    section_depth: int = 64  # numbers in one section path
    flags: int = 1024
    flag_octets: int = 255  # of one keyword: its mailbox and each of its messages store it
    list_patterns: int = 64
    list_characters: int = 4096  # of a LIST's patterns together, each with the reference before it
    id_parameters: int = 256  # RFC 2971 §3.3 limits clients to 30; the parameters are not stored


DEFAULT_LIMITS = ImapLimits()
