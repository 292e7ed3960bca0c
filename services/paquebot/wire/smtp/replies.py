"""SMTP replies: the value, its octets, the reading of a server's reply, and a name for every reply that we send.

A reply has a code (RFC 5321 §4.2), an enhanced status (RFC 3463, on the wire by RFC 2034) and text for people.
The text of our replies never holds what a client sent, nor the text of an exception.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAX_REPLY_LINE = 512  # octets with CRLF; RFC 5321 §4.5.3.1.5


class BadReply(ValueError):
    """The line is not an SMTP reply; the text states what was expected."""


@dataclass(frozen=True, slots=True)
class Reply:
    """`code` 200-599; `enhanced_status` such as "5.1.1", empty: none; `text` without line ends but "\\n" between
    the lines of a reply of several."""

    code: int
    enhanced_status: str
    text: str

    def __str__(self) -> str:
        """One line, for logs and Diagnostic-Code fields (RFC 3464 §2.3.6)."""
        status = f" {self.enhanced_status}" if self.enhanced_status else ""
        return f"{self.code}{status} {self.text}".replace("\n", " ").rstrip()

    @property
    def is_positive(self) -> bool:
        """2yz or 3yz: done, or continue (RFC 5321 §4.2.1)."""
        return self.code < 400

    @property
    def is_temporary(self) -> bool:
        """4yz: transient negative (RFC 5321 §4.2.1)."""
        return 400 <= self.code < 500

    @property
    def is_permanent(self) -> bool:
        """5yz: permanent negative (RFC 5321 §4.2.1)."""
        return self.code >= 500

    def with_text(self, text: str) -> Reply:
        """The same codes with a different text."""
        return Reply(self.code, self.enhanced_status, text)

    def encode(self) -> bytes:
        """The octets of the reply; the enhanced status stands on every line (RFC 2034 §4)."""
        status = f"{self.enhanced_status} " if self.enhanced_status else ""
        if "\n" not in self.text:
            return f"{self.code} {status}{self.text}\r\n".encode("utf-8", "replace")
        lines = self.text.split("\n")
        last = len(lines) - 1
        return "".join(
            f"{self.code}{' ' if number == last else '-'}{status}{line}\r\n" for number, line in enumerate(lines)
        ).encode("utf-8", "replace")


# --- reading ---


@dataclass(frozen=True, slots=True)
class ReplyLine:
    """One line of a reply; `last` is False on a line with a hyphen after the code."""

    code: int
    last: bool
    text: str


def parse_reply_line(line: bytes) -> ReplyLine:
    """RFC 5321 §4.2: Reply-line = *( Reply-code "-" [ textstring CRLF ] ) Reply-code [ SP textstring ] CRLF

    `line` with or without its line end; octets that are not UTF-8 become U+FFFD. Raises BadReply.
    """
    line = line.rstrip(b"\r\n")
    code, separator = line[:3], line[3:4]
    # Reply-code = %x32-35 %x30-35 %x30-39; servers send second digits above 5, which are harmless.
    if len(code) != 3 or not code.isdigit() or not b"200" <= code <= b"599":
        raise BadReply("expected a reply code from 200 to 599")
    if separator not in (b"", b" ", b"-"):
        raise BadReply("expected a space or a hyphen after the reply code")
    return ReplyLine(int(code), separator != b"-", line[4:].decode("utf-8", "replace"))


def join_reply(lines: Sequence[ReplyLine]) -> Reply:
    """The reply that the lines form, with the enhanced status removed from the text. Raises BadReply.

    RFC 5321 §4.2.1: every line has the same code. An enhanced status of another class than the code is part of the
    text (RFC 2034 §4).
    """
    if not lines or not lines[-1].last:
        raise BadReply("the reply has no last line")
    code = lines[-1].code
    if any(line.code != code for line in lines):
        raise BadReply("the lines of the reply have different codes")
    status = _enhanced_status(lines[-1].text, code)
    texts = [_without_status(line.text, status) for line in lines] if status else [line.text for line in lines]
    return Reply(code, status, "\n".join(texts))


def _enhanced_status(text: str, code: int) -> str:
    """RFC 3463 §2: status-code = class "." subject "." detail; class 2, 4 or 5, the others 1*3digit. Or empty."""
    word = text.split(" ", 1)[0]
    parts = word.split(".")
    if len(parts) != 3 or parts[0] != str(code // 100) or parts[0] == "3":
        return ""
    return word if all(part.isdecimal() and part.isascii() and len(part) <= 3 for part in parts) else ""


def _without_status(text: str, status: str) -> str:
    return text[len(status) :].lstrip(" ") if text == status or text.startswith(f"{status} ") else text


# --- what we send: success ---

OK = Reply(250, "2.0.0", "Ok")  # RFC 3463 §3.1
NOOP_OK = Reply(250, "2.0.0", "Ok")
RESET = Reply(250, "2.0.0", "Ok")
SENDER_OK = Reply(250, "2.1.0", "Sender ok")  # RFC 3463 §3.2: X.1.0 other address status
RECIPIENT_OK = Reply(250, "2.1.5", "Recipient ok")  # RFC 3463 §3.2: destination address valid
START_DATA = Reply(354, "", "End data with <CR><LF>.<CR><LF>")  # RFC 5321 §4.1.1.4; 3yz has no enhanced status
READY_FOR_TLS = Reply(220, "2.0.0", "Ready to start TLS")  # RFC 3207 §4
CHALLENGE_USERNAME = Reply(334, "", "VXNlcm5hbWU6")  # AUTH LOGIN: base64 of "Username:"
CHALLENGE_PASSWORD = Reply(334, "", "UGFzc3dvcmQ6")  # AUTH LOGIN: base64 of "Password:"
CHALLENGE_EMPTY = Reply(334, "", "")  # RFC 4954 §4: an empty server challenge
AUTHENTICATED = Reply(235, "2.7.0", "Authentication succeeded")  # RFC 4954 §6
CANNOT_VERIFY = Reply(252, "2.5.0", "Send some mail, I will try my best")  # RFC 5321 §3.5.3
BYE = Reply(221, "2.0.0", "Bye")  # RFC 5321 §4.1.1.10

# --- what we send: the session itself (RFC 3463 §3.6) ---

BARE_LF_IN_COMMAND = Reply(500, "5.5.2", "Line ends must be CRLF")  # RFC 5321 §2.3.8
UNRECOGNISED = Reply(500, "5.5.2", "Command not recognised")  # RFC 5321 §4.2.2
LINE_TOO_LONG = Reply(500, "5.5.6", "Line too long")  # RFC 5321 §4.5.3.1.9, RFC 4954 §6 for 5.5.6
BAD_SYNTAX = Reply(501, "5.5.4", "Syntax error in parameters or arguments")  # RFC 5321 §4.2.2
BAD_PARAMETER = Reply(501, "5.5.4", "Invalid value of a parameter")  # RFC 5321 §4.1.1.11
UNKNOWN_PARAMETER = Reply(555, "5.5.4", "Parameter not recognised or not implemented")  # RFC 5321 §4.1.1.11
NOT_IMPLEMENTED = Reply(502, "5.5.1", "Command not implemented")  # RFC 5321 §4.2.4
BAD_SEQUENCE = Reply(503, "5.5.1", "Bad sequence of commands")  # RFC 5321 §4.2.2
HELLO_FIRST = Reply(503, "5.5.1", "Send HELO or EHLO first")  # RFC 5321 §4.1.4
NESTED_MAIL = Reply(503, "5.5.1", "Sender already given")  # RFC 5321 §4.1.4
MAIL_FIRST = Reply(503, "5.5.1", "Send MAIL first")  # RFC 5321 §3.3
NO_VALID_RECIPIENTS = Reply(554, "5.5.1", "No valid recipients")  # RFC 5321 §4.1.1.4
BDAT_THEN_DATA = Reply(503, "5.5.1", "DATA is not allowed after BDAT")  # RFC 3030 §2
AFTER_BDAT = Reply(503, "5.5.1", "Only BDAT, RSET or QUIT after BDAT")  # RFC 3030 §2
BDAT_SYNTAX = Reply(501, "5.5.4", "Syntax: BDAT chunk-size [LAST]")  # RFC 3030 §2
PIPELINING_ERROR = Reply(503, "5.5.0", "Improper use of pipelining")  # RFC 2920 §3.1
NOT_SMTP = Reply(554, "5.7.0", "Not an SMTP client, closing")  # RFC 3463 §3.8: X.7.0
PROXY_HEADER = Reply(554, "5.7.0", "No PROXY header is accepted from here, closing")  # RFC 3463 §3.8: X.7.0
EARLY_TALKER = Reply(554, "5.5.0", "Client spoke before the greeting")  # RFC 5321 §4.3.1
TOO_MANY_ERRORS = Reply(421, "4.7.0", "Too many errors, closing")  # RFC 5321 §3.8
TOO_MANY_BEFORE_LOGIN = Reply(421, "4.7.0", "Too many commands before login, closing")
TOO_MANY_COMMANDS = Reply(421, "4.7.0", "Too many commands without mail, closing")

# --- what we send: TLS and authentication (RFC 3207, RFC 4954) ---

TLS_UNAVAILABLE = Reply(454, "4.7.0", "TLS not available due to temporary reason")  # RFC 3207 §4
TLS_ACTIVE = Reply(503, "5.5.1", "TLS already active")  # RFC 3207 §4.2
TLS_REQUIRED = Reply(530, "5.7.0", "Must issue a STARTTLS command first")  # RFC 3207 §4
AUTH_NEEDS_TLS = Reply(538, "5.7.11", "Encryption required for authentication")  # RFC 4954 §6
LOGIN_ENDED = Reply(421, "4.7.0", "Your login has ended, log in again")  # RFC 5321 §3.8
LOGIN_UNCHECKED = Reply(421, "4.3.0", "Your login cannot be checked now, try again later")  # RFC 5321 §3.8
LOGIN_DISABLED = Reply(550, "5.7.13", "Your account is disabled, closing")  # RFC 5248 §2.4
AUTH_REQUIRED = Reply(530, "5.7.0", "Authentication required")  # RFC 4954 §6
AUTH_UNKNOWN_MECHANISM = Reply(504, "5.5.4", "Unrecognised authentication type")  # RFC 4954 §4
AUTH_AGAIN = Reply(503, "5.5.1", "Already authenticated")  # RFC 4954 §4
AUTH_IN_TRANSACTION = Reply(503, "5.5.1", "AUTH is not allowed during a mail transaction")  # RFC 4954 §4
AUTH_CANCELLED = Reply(501, "5.7.0", "Authentication cancelled")  # RFC 4954 §4
AUTH_BAD_BASE64 = Reply(501, "5.5.2", "Cannot decode the response")  # RFC 4954 §4
AUTH_TOO_LONG = Reply(500, "5.5.6", "Authentication exchange line is too long")  # RFC 4954 §6
AUTH_INVALID = Reply(535, "5.7.8", "Authentication credentials invalid")  # RFC 4954 §6
AUTH_DISABLED = Reply(535, "5.7.13", "Account disabled")  # RFC 5248 §2.4: X.7.13 user account disabled
AUTH_TOO_MANY = Reply(454, "4.7.0", "Too many connections of this account")  # RFC 4954 §6
AUTH_RATE_LIMITED = Reply(454, "4.7.0", "Too many failures, try again later")  # RFC 4954 §6
AUTH_UNAVAILABLE = Reply(454, "4.7.0", "Temporary authentication failure")  # RFC 4954 §6

# --- what we send: addresses (RFC 3463 §3.2, §3.3) ---

BAD_REVERSE_PATH = Reply(501, "5.1.7", "Bad sender address syntax")  # RFC 3463 §3.2: X.1.7
BAD_FORWARD_PATH = Reply(501, "5.1.3", "Bad recipient address syntax")  # RFC 3463 §3.2: X.1.3
BAD_ADDRESS = Reply(553, "5.1.3", "Recipient address not allowed")  # RFC 5321 §4.2.2
NON_ASCII_ADDRESS = Reply(553, "5.6.7", "Non-ASCII addresses need SMTPUTF8")  # RFC 6531 §3.5
NO_SUCH_ACCOUNT = Reply(550, "5.1.1", "No such mailbox here")  # RFC 3463 §3.2: X.1.1
ACCOUNT_DISABLED = Reply(550, "5.2.1", "Mailbox disabled, not accepting messages")  # RFC 3463 §3.3: X.2.1
OVER_QUOTA = Reply(452, "4.2.2", "Mailbox full")  # RFC 3463 §3.3: X.2.2
# RFC 5321 §4.2.3: exceeded storage allocation; RFC 3463 §3.3: X.2.3
TOO_LARGE_FOR_MAILBOX = Reply(552, "5.2.3", "Message too big for this mailbox")
DOMAIN_DISABLED = Reply(550, "5.1.2", "Domain does not accept mail")  # RFC 3463 §3.2: X.1.2
RELAY_DENIED = Reply(550, "5.7.1", "Relaying denied")  # RFC 3463 §3.8: X.7.1
ALIAS_LOOP = Reply(550, "5.4.6", "Alias loop")  # RFC 3463 §3.5: X.4.6 routing loop
SENDER_NOT_OWNED = Reply(553, "5.7.1", "Sender address does not belong to the login")  # RFC 3463 §3.8, RFC 6409 §6.1
FROM_MISSING = Reply(550, "5.7.1", "From names no author")  # RFC 5322 §3.6.2, RFC 6409 §6.1
SENDER_FIELD_NOT_OWNED = Reply(550, "5.7.1", "Sender field does not belong to the login")  # RFC 6409 §8.1
FROM_NOT_OWNED = Reply(550, "5.7.1", "From address does not belong to the login")  # RFC 6409 §6.1
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients")  # RFC 5321 §4.5.3.1.10, RFC 3463 §3.6
# RFC 5321 §4.2.2: policy; RFC 3463 §3.8: X.7.1; trying again helps when an hour has passed
TOO_MANY_IN_AN_HOUR = Reply(450, "4.7.1", "Too many recipients of this account in an hour, try again later")

# --- what we send: the message (RFC 3463 §3.4, §3.6, §3.7) ---

TOO_BIG = Reply(552, "5.3.4", "Message too big")  # RFC 1870 §6.1, RFC 3463 §3.4
HEADER_TOO_BIG = Reply(552, "5.3.4", "Header of the message too big")  # RFC 3463 §3.4
CANNOT_KEEP = Reply(552, "5.3.4", "Message and recipients are too big to be stored")  # RFC 3463 §3.4
OUT_OF_MEMORY = Reply(452, "4.3.1", "Too many messages under way, try again later")  # RFC 1870 §6.1, RFC 3463 §3.4
BARE_LINE_END = Reply(554, "5.6.0", "Line ends must be CRLF: bare CR or LF found")  # RFC 5321 §2.3.8, RFC 3463 §3.7
TEXT_LINE_TOO_LONG = Reply(554, "5.6.0", "Line of the message too long")  # RFC 5321 §4.5.3.1.6
TOO_MANY_HOPS = Reply(554, "5.4.6", "Too many hops")  # RFC 5321 §6.3, RFC 3463 §3.5

# --- what we send: the system (RFC 3463 §3.4, §3.5) ---

TEMPORARY_FAILURE = Reply(451, "4.3.0", "Temporary failure, try again later")  # RFC 3463 §3.4
SHUTTING_DOWN = Reply(421, "4.3.2", "Server shutting down")  # RFC 3463 §3.4: X.3.2
TOO_MANY_CONNECTIONS = Reply(421, "4.7.0", "Too many connections, try again later")  # RFC 5321 §3.8
NO_MAIL_IN_TIME = Reply(421, "4.4.2", "No mail in time, closing")  # RFC 3463 §3.5: X.4.2
NO_LOGIN_IN_TIME = Reply(421, "4.4.2", "No login in time, closing")
TIMED_OUT = Reply(421, "4.4.2", "Timeout, closing")  # RFC 5321 §4.5.3.2.7, RFC 3463 §3.5: X.4.2


def greeting(hostname: str) -> Reply:
    """RFC 5321 §4.2: Greeting."""
    return Reply(220, "", f"{hostname} ESMTP Paquebot")


def queued(queue_id: str) -> Reply:
    """The message is stored (invariant: S3 and JetStream have acknowledged it)."""
    return Reply(250, "2.0.0", f"Ok: queued as {queue_id}")


def chunk_received(size: int) -> Reply:
    """RFC 3030 §2: the reply to a BDAT without LAST."""
    return Reply(250, "2.0.0", f"{size} octets received")


def incident(incident_id: str, *, permanent: bool = False) -> Reply:
    """A fault of ours; the log has the cause under `incident_id`. `permanent`: a person waits for the reply."""
    if permanent:
        return Reply(554, "5.3.0", f"The server failed, please report incident {incident_id}")  # RFC 3463 §3.4
    return Reply(451, "4.3.0", f"Temporary failure, try again later (incident {incident_id})")
