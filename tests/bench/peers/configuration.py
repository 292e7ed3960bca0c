"""The configuration of the two programs. What is not here is as Debian's programs have it built in.

Both sync each message to disk by default (Postfix its queue file, Dovecot the Maildir file); nothing here changes
that. Two things are not defaults: no chroot (it needs copies of system files), and logs go to a file of ours, since
there may be no syslog.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.bench.rows import LOOPBACK, user

MAIL_USER = "mail"
"""Who owns the Maildirs; an account that every Debian has."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where one private pair keeps its files. The path of `lmtp_socket` must fit into 107 bytes."""

    base: Path

    @property
    def postfix(self) -> Path:
        return self.base / "postfix"

    @property
    def dovecot(self) -> Path:
        return self.base / "dovecot"

    @property
    def queue(self) -> Path:
        return self.base / "queue"

    @property
    def data(self) -> Path:
        return self.base / "postfix-data"

    @property
    def mail(self) -> Path:
        return self.base / "mail"

    @property
    def lmtp_socket(self) -> Path:
        return self.dovecot / "lmtp"

    @property
    def certificate(self) -> Path:
        return self.base / "tls.crt"

    @property
    def key(self) -> Path:
        return self.base / "tls.key"

    @property
    def postfix_log(self) -> Path:
        return self.base / "postfix.log"

    @property
    def dovecot_log(self) -> Path:
        return self.base / "dovecot.log"


def postfix_main(places: Places, domain: str) -> str:
    """`main.cf`. maillog_file needs postlogd in `master.cf`."""
    return f"""\
compatibility_level = 3.6
queue_directory = {places.queue}
data_directory = {places.data}
maillog_file = {places.postfix_log}
maillog_file_prefixes = {places.base}
myhostname = mail.{domain}
mydestination =
inet_interfaces = {LOOPBACK}
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
virtual_mailbox_domains = {domain}
virtual_mailbox_maps = hash:{places.postfix}/mailboxes
virtual_transport = lmtp:unix:{places.lmtp_socket}
alias_maps =
alias_database =
biff = no
"""


def postfix_master(smtp_port: int) -> str:
    """`master.cf`: the services of Debian's that a message can meet here, without chroot."""
    return f"""\
{LOOPBACK}:{smtp_port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


def postfix_mailboxes(domain: str, accounts: int) -> str:
    """The table of addresses that exist; the value says nothing with LMTP."""
    return "".join(f"{user(number)}@{domain} {user(number)}\n" for number in range(accounts))


def dovecot(places: Places, domain: str, imap_port: int, imaps_port: int, password: str, uid: int, gid: int) -> str:
    """`dovecot.conf`: IMAP and LMTP, one password for everybody, Maildir."""
    return f"""\
base_dir = {places.dovecot}/run
state_dir = {places.dovecot}/state
protocols = imap lmtp
listen = {LOOPBACK}
log_path = {places.dovecot_log}
postmaster_address = postmaster@{domain}
hostname = mail.{domain}
ssl = yes
ssl_cert = <{places.certificate}
ssl_key = <{places.key}
disable_plaintext_auth = no
first_valid_uid = {uid}
first_valid_gid = {gid}
mail_location = maildir:{places.mail}/%n
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={places.mail}/%n allow_all_users=yes
}}
service lmtp {{
  unix_listener {places.lmtp_socket} {{
    mode = 0600
    user = postfix
  }}
}}
service imap-login {{
  inet_listener imap {{
    port = {imap_port}
  }}
  inet_listener imaps {{
    port = {imaps_port}
  }}
}}
"""
