"""One assembled command to one typed value: the table of commands, and in which states each is allowed.

The only error that leaves this module is BadSyntax. RFC 3501 §6 and §9.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from paquebot.wire.cursor import GrammarError
from paquebot.wire.imap import ast
from paquebot.wire.imap.ast import Command, State
from paquebot.wire.imap.errors import BadMailboxEncoding, BadSyntax
from paquebot.wire.imap.grammar import fetch, mailbox, message, search, session
from paquebot.wire.imap.grammar.tokens import ATOM_CHARS, AssembledCommand, CommandCursor, UnreadableName, tag
from paquebot.wire.imap.limits import DEFAULT_LIMITS, ImapLimits

_Reader = Callable[[CommandCursor], Command]

_COMMANDS: Final[Mapping[bytes, _Reader]] = {
    # any state: RFC 3501 §6.1
    b"CAPABILITY": lambda cur: ast.Capability(cur.tag),
    b"NOOP": lambda cur: ast.Noop(cur.tag),
    b"LOGOUT": lambda cur: ast.Logout(cur.tag),
    b"ID": session.identify,
    # not authenticated: RFC 3501 §6.2
    b"STARTTLS": lambda cur: ast.StartTls(cur.tag),
    b"AUTHENTICATE": session.authenticate,
    b"LOGIN": session.login,
    # authenticated: RFC 3501 §6.3
    b"ENABLE": session.enable,
    b"SELECT": mailbox.select,
    b"EXAMINE": mailbox.examine,
    b"CREATE": mailbox.create,
    b"DELETE": mailbox.delete,
    b"RENAME": mailbox.rename,
    b"SUBSCRIBE": mailbox.subscribe,
    b"UNSUBSCRIBE": mailbox.unsubscribe,
    b"LIST": mailbox.list_mailboxes,
    b"LSUB": mailbox.lsub,
    b"STATUS": mailbox.status,
    b"NAMESPACE": lambda cur: ast.Namespace(cur.tag),
    b"APPEND": message.append,
    b"IDLE": lambda cur: ast.Idle(cur.tag),
    # selected: RFC 3501 §6.4
    b"CHECK": lambda cur: ast.Check(cur.tag),
    b"CLOSE": lambda cur: ast.Close(cur.tag),
    b"UNSELECT": lambda cur: ast.Unselect(cur.tag),
    b"EXPUNGE": lambda cur: ast.Expunge(cur.tag),
    b"SEARCH": lambda cur: search.search(cur, uid=False),
    b"FETCH": lambda cur: fetch.fetch(cur, uid=False),
    b"STORE": lambda cur: message.store(cur, uid=False),
    b"COPY": lambda cur: message.copy(cur, uid=False),
    b"MOVE": lambda cur: message.move(cur, uid=False),
}

_UID_COMMANDS: Final[Mapping[bytes, _Reader]] = {
    b"SEARCH": lambda cur: search.search(cur, uid=True),
    b"FETCH": lambda cur: fetch.fetch(cur, uid=True),
    b"STORE": lambda cur: message.store(cur, uid=True),
    b"COPY": lambda cur: message.copy(cur, uid=True),
    b"MOVE": lambda cur: message.move(cur, uid=True),
    b"EXPUNGE": message.uid_expunge,
}

_ANY = frozenset(State)
_BEFORE_LOGIN = frozenset({State.NOT_AUTHENTICATED})
_AFTER_LOGIN = frozenset({State.AUTHENTICATED, State.SELECTED})
_SELECTED = frozenset({State.SELECTED})

COMMAND_STATES: Final[Mapping[type[Command], frozenset[State]]] = {
    ast.Capability: _ANY,
    ast.Noop: _ANY,
    ast.Logout: _ANY,
    ast.Id: _ANY,
    ast.UnknownCommand: _ANY,
    ast.StartTls: _BEFORE_LOGIN,
    ast.Authenticate: _BEFORE_LOGIN,
    ast.Login: _BEFORE_LOGIN,
    # RFC 5161 §3.1: ENABLE only in the authenticated state, before a mailbox is selected.
    ast.Enable: frozenset({State.AUTHENTICATED}),
    ast.Select: _AFTER_LOGIN,
    ast.Examine: _AFTER_LOGIN,
    ast.Create: _AFTER_LOGIN,
    ast.Delete: _AFTER_LOGIN,
    ast.Rename: _AFTER_LOGIN,
    ast.Subscribe: _AFTER_LOGIN,
    ast.Unsubscribe: _AFTER_LOGIN,
    ast.List: _AFTER_LOGIN,
    ast.Lsub: _AFTER_LOGIN,
    ast.Status: _AFTER_LOGIN,
    ast.Namespace: _AFTER_LOGIN,
    ast.Append: _AFTER_LOGIN,
    ast.Idle: _AFTER_LOGIN,
    ast.Check: _SELECTED,
    ast.Close: _SELECTED,
    ast.Unselect: _SELECTED,
    ast.Expunge: _SELECTED,
    ast.UidExpunge: _SELECTED,
    ast.Search: _SELECTED,
    ast.Fetch: _SELECTED,
    ast.Store: _SELECTED,
    ast.Copy: _SELECTED,
    ast.Move: _SELECTED,
}


def parse_command(
    assembled: AssembledCommand, *, utf8: bool = False, liberal: bool = True, limits: ImapLimits = DEFAULT_LIMITS
) -> Command:
    """The command. `utf8`: the client has enabled UTF8=ACCEPT, names are UTF-8 (RFC 6855 §3). `liberal`: it has logged
    in, so common mistakes are accepted if they can mean one thing only.

    Raises BadSyntax, with the tag if one could be read.
    """
    cur = CommandCursor(assembled, utf8=utf8, liberal=liberal, limits=limits)
    try:
        command = _command(cur)
        if not isinstance(command, ast.UnknownCommand):
            cur.pass_spaces()
            cur.end("the end of the command")
    except GrammarError as fault:
        raise _bad_syntax(cur, fault) from None
    return command


def parse_append_so_far(
    assembled: AssembledCommand, *, utf8: bool = False, limits: ImapLimits = DEFAULT_LIMITS
) -> ast.Append:
    """APPEND up to the literal of a message that has not been read yet; its size is the last literal's.

    Raises BadSyntax.
    """
    cur = CommandCursor(assembled, utf8=utf8, liberal=True, limits=limits)
    try:
        cur.tag = tag(cur)
        cur.space()
        cur.expect_word(b"APPEND", "APPEND")
        return message.append(cur, partial=True)
    except GrammarError as fault:
        raise _bad_syntax(cur, fault) from None


def _bad_syntax(cur: CommandCursor, fault: GrammarError) -> BadSyntax:
    """The error for the service."""
    kind = BadMailboxEncoding if isinstance(fault, UnreadableName) else BadSyntax
    return kind(cur.tag or None, f"expected {fault.expected}", fault.position)


def _command(cur: CommandCursor) -> Command:
    """command = tag SP (command-any / command-auth / command-nonauth / command-select)"""
    found = tag(cur)
    cur.space()
    cur.tag = found
    name = cur.run1(ATOM_CHARS, "a command").upper()
    read = _COMMANDS.get(name)
    if name == b"UID":
        cur.space()
        name = cur.run1(ATOM_CHARS, "a command after UID").upper()
        read = _UID_COMMANDS.get(name)
        name = b"UID " + name
    if read is None:
        return ast.UnknownCommand(cur.tag, name[:64].decode("ascii"))
    return read(cur)
