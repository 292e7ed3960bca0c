"""What `paquebot up` prints when it is ready: where everything is, how to set up a mail program, what to try.

Plain lines, which can be copied from any terminal and read in a log.
"""

import shlex
from pathlib import Path

from paquebot.cli.admin.connection import DEFAULT_DATA
from paquebot.cli.demo.accounts import DEMO_PASSWORD, DEMO_READER, DEMO_SENDER
from paquebot.cli.engines.ports import LOOPBACK
from paquebot.cli.up.environment import PlatformPlan
from paquebot.cli.up.layout import SERVICES

_HOST = "localhost"
"""For mail programs: some expect a name in the certificate and accept no address."""


def addresses(plan: PlatformPlan) -> str:
    """Every listener, and the files that a user needs."""
    ports, engines = plan.ports.services, plan.ports.engines
    rows = [
        ("SMTP from other servers", f"{LOOPBACK}:{ports.smtp}", "STARTTLS"),
        ("submission", f"{LOOPBACK}:{ports.submission}", "STARTTLS, login"),
        ("submissions", f"{LOOPBACK}:{ports.submissions}", "TLS, login"),
        ("IMAP", f"{LOOPBACK}:{ports.imap}", "STARTTLS, login"),
        ("IMAPS", f"{LOOPBACK}:{ports.imaps}", "TLS, login"),
        ("POP3", f"{LOOPBACK}:{ports.pop3}", "STLS, login"),
        ("POP3S", f"{LOOPBACK}:{ports.pop3s}", "TLS, login"),
        ("NATS JetStream", f"{LOOPBACK}:{engines.nats}", "queue"),
        ("S3", f"{LOOPBACK}:{engines.s3}", "messages"),
        ("PostgreSQL", f"{LOOPBACK}:{engines.postgres}", "directory, mailboxes"),
    ]
    lines = [f"  {what:24} {address:17} {how}" for what, address, how in rows]
    for service in SERVICES:
        lines.append(f"  metrics, /livez, /readyz  http://{LOOPBACK}:{ports.metrics(service)}/metrics  {service}")
    grpc = f", {LOOPBACK}:{ports.grpc}" if ports.grpc else ""
    lines.append(f"  gRPC                     unix:{plan.layout.socket}{grpc}  validation, administration")
    lines.append(f"  certificate              {plan.certificate}")
    lines.append(f"  logs                     {plan.layout.logs}")
    return "Paquebot on this machine:\n" + "\n".join(lines)


def mail_programs(plan: PlatformPlan) -> str:
    """What a mail program asks for."""
    ports = plan.ports.services
    rows = [
        ("addresses", f"{DEMO_SENDER}@{plan.domain}, {DEMO_READER}@{plan.domain}; the user name is the whole address"),
        ("password", f"{DEMO_PASSWORD}; method: normal password (PLAIN)"),
        ("incoming, IMAP", f"{_HOST}, port {ports.imaps}, SSL/TLS; or port {ports.imap}, STARTTLS"),
        ("incoming, POP3", f"{_HOST}, port {ports.pop3s}, SSL/TLS; or port {ports.pop3}, STARTTLS"),
        ("outgoing, SMTP", f"{_HOST}, port {ports.submissions}, SSL/TLS; or port {ports.submission}, STARTTLS"),
    ]
    lines = [f"  {what:24} {value}" for what, value in rows]
    return "\nIn a mail program:\n" + "\n".join(lines + _trust(plan.authority))


def _trust(authority: Path | None) -> list[str]:
    """How to trust the authority, a line for each kind of program; none when the user supplied the certificate."""
    if authority is None:
        return []
    path = shlex.quote(str(authority))
    copy = "sudo cp {} /usr/local/share/ca-certificates/paquebot.crt && sudo update-ca-certificates"
    add = "security add-trusted-cert -r trustRoot -p ssl -k ~/Library/Keychains/login.keychain-db {}"
    chosen = "Settings, Privacy & Security, View Certificates, Authorities, Import {}, for websites"
    rows = [
        ("certificate authority", "{} (trust it once):"),
        ("  Thunderbird", chosen.replace("View", "Manage")),
        ("  Firefox", chosen),
        ("  macOS", add),
        ("  Debian", copy),
    ]
    return [f"  {what:24} {how.format(path)}" for what, how in rows]


def examples(plan: PlatformPlan) -> str:
    """Commands to try."""
    ports = plan.ports.services
    login = f"{DEMO_READER}@{plan.domain}"
    sender = f"{DEMO_SENDER}@{plan.domain}"
    data = "" if plan.layout.data == DEFAULT_DATA.absolute() else f" --data {shlex.quote(str(plan.layout.data))}"
    authority = shlex.quote(str(plan.authority)) if plan.authority else ""
    trust = f" --cacert {authority}" if authority else ""
    verify = f" --tls-verify --tls-ca-path {authority}" if authority else ""
    return f"""
Try it from another terminal:
  swaks --server {_HOST}:{ports.submission} -tls{verify} -au {sender} -ap {DEMO_PASSWORD} --from {sender} --to {login}
  curl{trust} imaps://{_HOST}:{ports.imaps}/INBOX -u {login}:{DEMO_PASSWORD} -X 'FETCH 1:* (FLAGS ENVELOPE)'
  curl{trust} pop3s://{_HOST}:{ports.pop3s}/1 -u {login}:{DEMO_PASSWORD}
  curl http://{LOOPBACK}:{ports.metrics("smtp_ingress")}/metrics
  .venv/bin/paquebot account list{data}
  .venv/bin/paquebot queue list{data}
Ctrl-C stops the platform; all mail stays in {plan.layout.data}.
"""
