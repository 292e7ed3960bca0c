"""The handler of each command: one table, typed by the command and by the states that allow it.

The grammar's COMMAND_STATES lists the states of each command; a handler's own state type must agree, and a test
compares the two.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar, cast

from paquebot.imap.commands import (
    any_state,
    append,
    authenticated,
    fetch,
    idle,
    listing,
    login,
    search,
    select,
    selected,
    store,
)
from paquebot.imap.commands.context import CommandContext
from paquebot.imap.reply import Reply, Stream
from paquebot.imap.states import Authenticated, LoggedIn, LoggedOut, NotAuthenticated, Selected, SessionState
from paquebot.wire.imap import COMMAND_STATES, State, ast

C = TypeVar("C", bound=ast.Command)
S = TypeVar("S", bound=SessionState)
Answer = Awaitable[Reply | Stream]
Handler = Callable[[CommandContext, SessionState, ast.Command], Answer]
_TypedHandler = Callable[[CommandContext, S, C], Answer]
_Entry = tuple[type[object], Handler]


def _in_any(command: type[C], handler: _TypedHandler[SessionState, C]) -> _Entry:
    def handle(context: CommandContext, state: SessionState, given: ast.Command) -> Answer:
        return handler(context, state, cast(C, given))

    return command, handle


def _before_login(command: type[C], handler: _TypedHandler[NotAuthenticated, C]) -> _Entry:
    def handle(context: CommandContext, state: SessionState, given: ast.Command) -> Answer:
        assert isinstance(state, NotAuthenticated)
        return handler(context, state, cast(C, given))

    return command, handle


def _in_authenticated(command: type[C], handler: _TypedHandler[Authenticated, C]) -> _Entry:
    def handle(context: CommandContext, state: SessionState, given: ast.Command) -> Answer:
        assert isinstance(state, Authenticated)
        return handler(context, state, cast(C, given))

    return command, handle


def _logged_in(command: type[C], handler: _TypedHandler[LoggedIn, C]) -> _Entry:
    def handle(context: CommandContext, state: SessionState, given: ast.Command) -> Answer:
        assert isinstance(state, Authenticated | Selected)
        return handler(context, state, cast(C, given))

    return command, handle


def _in_selected(command: type[C], handler: _TypedHandler[Selected, C]) -> _Entry:
    def handle(context: CommandContext, state: SessionState, given: ast.Command) -> Answer:
        assert isinstance(state, Selected)
        return handler(context, state, cast(C, given))

    return command, handle


_HANDLERS: Mapping[type[object], Handler] = dict(
    (
        # RFC 3501 §6.1
        _in_any(ast.Capability, any_state.capability),
        _in_any(ast.Noop, any_state.noop),
        _in_any(ast.Logout, any_state.logout),
        _in_any(ast.Id, any_state.identify),
        # §6.2
        _before_login(ast.StartTls, login.start_tls),
        _before_login(ast.Authenticate, login.authenticate),
        _before_login(ast.Login, login.login),
        # §6.3
        _in_authenticated(ast.Enable, authenticated.enable),
        _logged_in(ast.Select, select.select),
        _logged_in(ast.Examine, select.examine),
        _logged_in(ast.Create, authenticated.create),
        _logged_in(ast.Delete, authenticated.delete),
        _logged_in(ast.Rename, authenticated.rename),
        _logged_in(ast.Subscribe, authenticated.subscribe),
        _logged_in(ast.Unsubscribe, authenticated.unsubscribe),
        _logged_in(ast.List, listing.list_mailboxes),
        _logged_in(ast.Lsub, listing.lsub),
        _logged_in(ast.Status, listing.status),
        _logged_in(ast.Namespace, authenticated.namespace),
        _logged_in(ast.Append, append.append),
        _logged_in(ast.Idle, idle.idle),
        # §6.4
        _in_selected(ast.Check, selected.check),
        _in_selected(ast.Close, selected.close),
        _in_selected(ast.Unselect, selected.unselect),
        _in_selected(ast.Expunge, selected.expunge),
        _in_selected(ast.UidExpunge, selected.uid_expunge),
        _in_selected(ast.Search, search.search),
        _in_selected(ast.Fetch, fetch.fetch),
        _in_selected(ast.Store, store.store),
        _in_selected(ast.Copy, selected.copy),
        _in_selected(ast.Move, selected.move),
    )
)


def handler_of(command: ast.Command, state: SessionState) -> Handler | None:
    """The handler, or None: the command is unknown, or not allowed in this state."""
    if isinstance(state, LoggedOut) or _state_name(state) not in COMMAND_STATES[type(command)]:
        return None
    return _HANDLERS.get(type(command))


def _state_name(state: NotAuthenticated | Authenticated | Selected) -> State:
    match state:
        case NotAuthenticated():
            return State.NOT_AUTHENTICATED
        case Authenticated():
            return State.AUTHENTICATED
        case Selected():
            return State.SELECTED
