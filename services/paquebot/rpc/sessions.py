"""The logins of a process's sessions, and whether the directory still permits them.

A disabled or removed account, a changed password, a removed app password: each ends the sessions of that login. A hint
(`hint.directory`) names accounts to check at once; without one, all logins are checked together every `interval`
seconds, and a session whose last check is older checks before its next command. The directory decides, never the hint
(invariant 4). While the directory is away sessions go on, for `grace` seconds after their last check.
"""

import asyncio
import enum
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from paquebot.observability.log import Log
from paquebot.observability.metrics import counter
from paquebot.queue import Queue
from paquebot.queue.hints import DirectoryHint
from paquebot.rpc.authentication import MAX_CHECKED, AuthenticationClient, Credential, Identity
from paquebot.rpc.channel import CallFailed, DirectoryUnavailable
from paquebot.runtime.process.tasks import background
from paquebot.runtime.settings import Seconds, setting
from paquebot.v1 import authentication_pb2 as pb

_log = Log("paquebot.rpc")
_EARLY = 0.8  # of the interval: commands then find an answer that is new enough
_COMMAND_SECONDS = 2.0  # maximum that a command waits for the directory
_MAX_HINTS = 1000
_HINT_SECONDS = 10.0  # a login this soon after a hint is checked once more: it may have been under way


class LoginEnd(enum.Enum):
    """Why a login is no longer valid; the values are labels."""

    DISABLED = "disabled"
    REMOVED = "removed"
    REVOKED = "revoked"
    """The password was changed, or the app password was removed."""
    UNCHECKED = "unchecked"
    """The directory has not answered for too long."""


_ENDS = {
    pb.SESSION_VERDICT_ACCOUNT_DISABLED: LoginEnd.DISABLED,
    pb.SESSION_VERDICT_ACCOUNT_REMOVED: LoginEnd.REMOVED,
    pb.SESSION_VERDICT_CREDENTIAL_REVOKED: LoginEnd.REVOKED,
}
ENDED = counter(
    "paquebot_rpc_ended_logins_total",
    "Sessions whose login is no longer valid",
    {"reason": tuple(end.value for end in LoginEnd)},
)


@dataclass(frozen=True, slots=True)
class SessionCheckSettings:
    interval: Seconds = setting(
        "SESSION_CHECK", Seconds(30.0), help="maximum age of the check of a session's login at a command"
    )
    grace: Seconds = setting(
        "SESSION_CHECK_GRACE",
        Seconds(900.0),
        help="maximum time that sessions go on while the directory does not answer",
    )

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not 0 < self.interval <= self.grace:
            raise ValueError("PAQUEBOT_SESSION_CHECK must be above 0 and at most PAQUEBOT_SESSION_CHECK_GRACE")


@dataclass(slots=True, eq=False)
class SessionLogin:
    """The login of one session. `on_end` is called once, when the login is no longer valid; `end` then says why."""

    account_id: int
    credential: Credential
    on_end: Callable[[], None]
    checked: float
    end: LoginEnd | None = None
    left: bool = field(default=False, repr=False)


class Logins:
    """The logins of a process; `run` must run. `clock` is monotonic seconds."""

    def __init__(
        self,
        authentication: AuthenticationClient,
        settings: SessionCheckSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._authentication = authentication
        self._settings = settings
        self._clock = clock
        self._accounts: dict[int, set[SessionLogin]] = {}
        self._hinted: dict[int | None, float] = {}
        self._away_until = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, queue: Queue) -> None:
        """Subscribe to hints of changes."""
        await queue.subscribe_directory(self.on_hint)

    def enter(self, identity: Identity, on_end: Callable[[], None]) -> SessionLogin:
        """A session has logged in; call `leave` when it ends."""
        login = SessionLogin(identity.account_id, identity.credential, on_end, self._clock())
        self._accounts.setdefault(login.account_id, set()).add(login)
        if self._was_hinted(login.account_id):
            self._spawn([login])
        return login

    def leave(self, login: SessionLogin) -> None:
        """The session has ended. Idempotent."""
        login.left = True
        found = self._accounts.get(login.account_id)
        if found is not None:
            found.discard(login)
            if not found:
                del self._accounts[login.account_id]

    async def check(self, login: SessionLogin, *, again: bool = False) -> LoginEnd | None:
        """Before a command: why the session must end, or None. `again`: ask the directory in any case."""
        now = self._clock()
        if login.end is not None or (not again and now - login.checked < self._settings.interval):
            return login.end
        if now >= self._away_until:
            await self._ask([login], seconds=_COMMAND_SECONDS)
        self._expire(login)
        return login.end

    def on_hint(self, hint: DirectoryHint) -> None:
        """Check the logins to the accounts of a hint at once."""
        now = self._clock()
        if len(self._hinted) > _MAX_HINTS:
            self._hinted = {None: now}  # counts as a hint for all accounts
        self._hinted.update(dict.fromkeys(hint.account_ids if hint.account_ids is not None else (None,), now))
        named = self._accounts.keys() if hint.account_ids is None else hint.account_ids & self._accounts.keys()
        self._spawn([login for account_id in named for login in self._accounts[account_id]])

    async def run(self) -> None:
        """Check all logins again and again, until cancelled."""
        try:
            while True:
                await asyncio.sleep(self._settings.interval * _EARLY)
                try:
                    await self.check_all()
                except Exception:  # noqa: BLE001 - the next round asks about all of them again
                    _log.exception("session_check_failed")
        finally:
            for task in self._tasks:
                task.cancel()

    async def check_all(self) -> None:
        """Check every login, however new its answer is."""
        logins = [login for found in self._accounts.values() for login in found]
        await self._ask(logins)
        for login in logins:
            self._expire(login)

    def _was_hinted(self, account_id: int) -> bool:
        latest = max(self._hinted.get(account_id, 0.0), self._hinted.get(None, 0.0))
        return bool(latest) and self._clock() - latest < _HINT_SECONDS

    def _spawn(self, logins: list[SessionLogin]) -> None:
        if logins:
            task = background(self._ask(logins), "session_check")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _ask(self, logins: Iterable[SessionLogin], *, seconds: float | None = None) -> None:
        """Apply the verdicts of the directory; while it is away nothing changes. Asks once for equal logins."""
        equal: dict[tuple[int, Credential], list[SessionLogin]] = {}
        for login in logins:
            equal.setdefault((login.account_id, login.credential), []).append(login)
        keys = list(equal)
        for start in range(0, len(keys), MAX_CHECKED):
            part = keys[start : start + MAX_CHECKED]
            asked = self._clock()
            try:
                verdicts = await self._authentication.check_sessions(part, timeout=seconds)
            except (DirectoryUnavailable, CallFailed):
                self._away_until = self._clock() + self._settings.interval / 3  # until then commands do not wait for it
                return
            self._away_until = 0.0
            for key, verdict in zip(part, verdicts, strict=True):
                for login in equal[key]:
                    self._apply(login, verdict, asked)

    def _apply(self, login: SessionLogin, verdict: "pb.SessionVerdict.ValueType", asked: float) -> None:
        login.checked = max(login.checked, asked)
        if (end := _ENDS.get(verdict)) is not None:
            self._end(login, end)

    def _expire(self, login: SessionLogin) -> None:
        if self._clock() - login.checked > self._settings.grace:
            self._end(login, LoginEnd.UNCHECKED)

    def _end(self, login: SessionLogin, end: LoginEnd) -> None:
        if login.end is None and not login.left:
            login.end = end
            ENDED.labels(end.value).inc()
            _log.info("login_ended", account_id=login.account_id, reason=end.value)
            login.on_end()
