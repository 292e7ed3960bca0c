"""The table of commands: who handles each, and the rules that hold before (RFC 5321 §4.1, §4.1.4)."""

from collections.abc import Mapping
from typing import Final

from paquebot.smtp_ingress.content import bdat, data
from paquebot.smtp_ingress.envelope import mail, rcpt
from paquebot.smtp_ingress.hello import ehlo, expn, helo, help_, noop, quit_, rset, starttls, vrfy
from paquebot.smtp_ingress.login import auth
from paquebot.smtp_ingress.session import Entry
from paquebot.wire.smtp.commands import Verb

# RFC 2920 §3.1 lists NOOP, VRFY and EXPN as last in a group too; nothing after them is read differently, so they
# may be followed.
COMMANDS: Final[Mapping[Verb, Entry]] = {
    Verb.EHLO: Entry(ehlo, alone=True, before_tls=True, after_bdat=True),
    Verb.HELO: Entry(helo, alone=True, before_tls=True, after_bdat=True),
    Verb.STARTTLS: Entry(starttls, alone=True, before_tls=True),
    Verb.AUTH: Entry(auth, alone=True, before_tls=True),
    Verb.MAIL: Entry(mail),
    Verb.RCPT: Entry(rcpt, progress=True),
    Verb.DATA: Entry(data, alone=True, progress=True),
    Verb.BDAT: Entry(bdat, after_bdat=True, progress=True),
    Verb.RSET: Entry(rset, before_tls=True, after_bdat=True),
    Verb.NOOP: Entry(noop, before_tls=True, after_bdat=True),
    Verb.HELP: Entry(help_, before_tls=True),
    Verb.VRFY: Entry(vrfy),
    Verb.EXPN: Entry(expn),
    Verb.QUIT: Entry(quit_, before_tls=True, after_bdat=True),
}
