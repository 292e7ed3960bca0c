"""The POP3 grammar, RFC 1939 with its extensions: reads commands, writes responses and dot-stuffed messages. No I/O.

RFC 1939, RFC 2449 (CAPA, response codes, line limits), RFC 2595 (STLS), RFC 3206 (SYS and AUTH codes), RFC 5034 (AUTH).
"""

from paquebot.wire.pop3.commands import (
    MAX_COMMAND,
    Auth,
    Capa,
    Command,
    Dele,
    List,
    Noop,
    NotOffered,
    Pass,
    Quit,
    Retr,
    Rset,
    Stat,
    Stls,
    Top,
    Uidl,
    Unknown,
    User,
    parse_command,
)
from paquebot.wire.pop3.content import stuffed, top_of
from paquebot.wire.pop3.responses import END, MAX_RESPONSE, Code, challenge, err, multi_line, ok

__all__ = [
    "END",
    "MAX_COMMAND",
    "MAX_RESPONSE",
    "Auth",
    "Capa",
    "Code",
    "Command",
    "Dele",
    "List",
    "Noop",
    "NotOffered",
    "Pass",
    "Quit",
    "Retr",
    "Rset",
    "Stat",
    "Stls",
    "Top",
    "Uidl",
    "Unknown",
    "User",
    "challenge",
    "err",
    "multi_line",
    "ok",
    "parse_command",
    "stuffed",
    "top_of",
]
