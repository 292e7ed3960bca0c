"""Metrics of smtp_ingress. Every label value is a name of ours."""

from prometheus_client import Counter, Gauge, Histogram

from paquebot.observability.metrics import FAST, SIZES
from paquebot.wire.smtp.commands import Verb

SESSIONS = Counter("paquebot_smtp_sessions_total", "Connections that began a session", ["listener"])
OPEN_SESSIONS = Gauge("paquebot_smtp_open_sessions", "Sessions now", ["listener"])
REFUSED = Counter("paquebot_smtp_refused_connections_total", "Connections over a limit", ["listener"])
ENDS = Counter("paquebot_smtp_session_ends_total", "Why sessions ended", ["reason"])
COMMANDS = Counter("paquebot_smtp_commands_total", "Commands by verb", ["verb"])
REPLIES = Counter("paquebot_smtp_replies_total", "Replies by class of code", ["class"])
MESSAGES = Counter("paquebot_smtp_messages_total", "Messages: accepted, rejected, deferred", ["listener", "result"])
RECIPIENTS = Counter("paquebot_smtp_recipients_total", "RCPT: accepted, rejected, deferred", ["result"])
MESSAGE_OCTETS = Histogram("paquebot_smtp_message_octets", "Octets of accepted messages", buckets=SIZES)
ACCEPT_SECONDS = Histogram(
    "paquebot_smtp_accept_seconds", "From the end of the message to the reply", ["listener"], buckets=FAST
)
AUTH = Counter("paquebot_smtp_auth_total", "Logins by mechanism and result", ["mechanism", "result"])
TLS = Counter("paquebot_smtp_tls_total", "TLS sessions by version; failed: no handshake", ["listener", "version"])
INCIDENTS = Counter("paquebot_smtp_incidents_total", "Unexpected errors answered with 451")

# Children are looked up once: labels() costs more than inc().
COMMAND = {verb: COMMANDS.labels(verb.value) for verb in Verb}
REPLY = {digit: REPLIES.labels(f"{digit}xx") for digit in range(2, 6)}
RECIPIENT = {digit: RECIPIENTS.labels(name) for digit, name in ((2, "accepted"), (4, "deferred"), (5, "rejected"))}
RESULT = {2: "accepted", 4: "deferred", 5: "rejected"}
TLS_VERSIONS = frozenset({"TLSv1.2", "TLSv1.3"})
