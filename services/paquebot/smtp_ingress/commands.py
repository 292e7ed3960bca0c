"""The table of commands: the handler of each, and the rules that hold before it (RFC 5321 §4.1, §4.1.4)."""

from collections.abc import Mapping
from typing import Final

from paquebot.smtp_ingress.content import bdat, data
from paquebot.smtp_ingress.envelope import mail, rcpt
from paquebot.smtp_ingress.hello import ehlo, expn, helo, help_, noop, quit_, rset, starttls, vrfy
from paquebot.smtp_ingress.login import auth
from paquebot.smtp_ingress.session import CommandRule
from paquebot.wire.smtp.commands import Verb

# RFC 2920 §3.1 wants NOOP, VRFY and EXPN last in a group too; they do not change how later commands are read, so
# other commands may follow them here.
COMMANDS: Final[Mapping[Verb, CommandRule]] = {
    Verb.EHLO: CommandRule(ehlo, alone=True, before_tls=True, after_bdat=True),
    Verb.HELO: CommandRule(helo, alone=True, before_tls=True, after_bdat=True),
    Verb.STARTTLS: CommandRule(starttls, alone=True, before_tls=True),
    Verb.AUTH: CommandRule(auth, alone=True, before_tls=True),
    Verb.MAIL: CommandRule(mail),
    Verb.RCPT: CommandRule(rcpt, progress=True),
    Verb.DATA: CommandRule(data, alone=True, progress=True),
    Verb.BDAT: CommandRule(bdat, after_bdat=True, progress=True),
    Verb.RSET: CommandRule(rset, before_tls=True, after_bdat=True),
    Verb.NOOP: CommandRule(noop, before_tls=True, after_bdat=True),
    Verb.HELP: CommandRule(help_, before_tls=True),
    Verb.VRFY: CommandRule(vrfy),
    Verb.EXPN: CommandRule(expn),
    Verb.QUIT: CommandRule(quit_, before_tls=True, after_bdat=True),
}
