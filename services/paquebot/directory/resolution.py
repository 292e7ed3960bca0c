"""Resolves addresses: follows aliases to accounts and remote addresses, within limits and safe from loops.

All addresses of a request are resolved together, level by level, with one lookup for each level: one statement for
accounts, one more for each level of aliases. An alias that leads to more than `MAX_LEVELS` levels or `MAX_RECIPIENTS`
recipients is refused as a loop; an alias that leads back to itself loses only that branch. Targets that do not exist
are dropped while others remain.
"""

import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from paquebot.directory.lookup import (
    POSTMASTER,
    AccountEntry,
    AliasEntry,
    DirectoryEntry,
    DisabledDomain,
    ForeignDomain,
    NoEntry,
)
from paquebot.wire.address import Address, BadAddress, Postmaster, parse_address, parse_forward_path

MAX_LEVELS = 10
MAX_RECIPIENTS = 500

Lookup = Callable[[Sequence[Address]], Awaitable[Mapping[Address, DirectoryEntry]]]


class ResolutionRefusal(enum.Enum):
    """Why mail for an address is refused; for an alias with several reasons, the last one in this order."""

    BAD_ADDRESS = enum.auto()
    RELAY_DENIED = enum.auto()
    DOMAIN_DISABLED = enum.auto()
    NO_SUCH_ACCOUNT = enum.auto()
    DISABLED = enum.auto()
    ALIAS_LOOP = enum.auto()


@dataclass(frozen=True, slots=True)
class LocalTarget:
    """`address` is the account's own; `quota_bytes` 0: none."""

    account_id: int
    address: Address
    detail: str
    quota_bytes: int


@dataclass(frozen=True, slots=True)
class RemoteTarget:
    """`aliased`: an alias of ours leads to it."""

    address: Address
    aliased: bool


@dataclass(frozen=True, slots=True)
class Resolution:
    """Targets without duplicates, or a refusal.

    `dropped` counts dropped targets of aliases; `by_name`: no catch-all or postmaster rule was used.
    """

    local: tuple[LocalTarget, ...] = ()
    remote: tuple[RemoteTarget, ...] = ()
    refusal: ResolutionRefusal | None = None
    dropped: int = 0
    by_name: bool = True


async def resolve(
    forward_paths: Sequence[str],
    lookup: Lookup,
    *,
    may_relay: bool = False,
    own_literals: frozenset[str] = frozenset(),
    other_literals: bool = False,
) -> list[Resolution]:
    """A Resolution for each forward-path, in order.

    `own_literals` are address literals of this host in normal form: mail for them is mail for the default domain
    (RFC 5321 §4.1.3). `may_relay` admits addresses at other domains, and with `other_literals` also those at other
    address literals: with one, a client chooses the host that we connect to.
    """
    walks = [_start(path, own_literals, may_relay=may_relay, literals=other_literals) for path in forward_paths]
    for _ in range(MAX_LEVELS):
        pending = list({step.address: None for walk in walks for step in walk.pending})
        if not pending:
            break
        entries = await lookup(pending)
        for walk in walks:
            walk.advance(entries)
    return [walk.resolution() for walk in walks]


@dataclass(frozen=True, slots=True)
class _Step:
    address: Address
    detail: str  # of the address that led here; inherited by an account without a detail of its own
    aliased: bool


def _start(path: str, own_literals: frozenset[str], *, may_relay: bool, literals: bool) -> "_Walk":
    walk = _Walk(may_relay, literals)
    try:
        parsed = parse_forward_path(path)
    except BadAddress:
        walk.refusals.append(ResolutionRefusal.BAD_ADDRESS)
        return walk
    if isinstance(parsed, Postmaster):  # RFC 5321 §4.1.1.3
        parsed = Address(POSTMASTER, "")
    elif parsed.domain in own_literals:
        parsed = Address(parsed.local, "")
    walk.go(parsed, "", aliased=False)
    return walk


@dataclass(slots=True)
class _Walk:
    """The steps from one forward-path to its recipients."""

    may_relay: bool
    literals: bool
    pending: list[_Step] = field(default_factory=list)
    refusals: list[ResolutionRefusal] = field(default_factory=list)
    by_name: bool = True
    _seen: set[Address] = field(default_factory=set)
    _local: dict[int, LocalTarget] = field(default_factory=dict)
    _remote: dict[Address, RemoteTarget] = field(default_factory=dict)

    def go(self, address: Address, detail: str, *, aliased: bool) -> None:
        """Look `address` up at the next level, unless it was looked up already."""
        if address not in self._seen:
            self._seen.add(address)
            self.pending.append(_Step(address, detail, aliased))

    def advance(self, entries: Mapping[Address, DirectoryEntry]) -> None:
        """Apply the entries of the pending steps; the steps that follow from them are pending afterwards."""
        steps, self.pending = self.pending, []
        for step in steps:
            self._apply(step, entries[step.address])
            if len(self._seen) > MAX_RECIPIENTS:  # now: each level could have a hundred times as many as the last
                self._give_up()
                return

    def resolution(self) -> Resolution:
        if self.pending:  # deeper than MAX_LEVELS
            self._give_up()
        if self._local or self._remote:
            return Resolution(
                local=tuple(self._local.values()),
                remote=tuple(self._remote.values()),
                dropped=len(self.refusals),
                by_name=self.by_name,
            )
        # Without recipients and without a refusal, every branch led back to an earlier address.
        refusal = max(self.refusals, key=lambda one: one.value, default=ResolutionRefusal.ALIAS_LOOP)
        return Resolution(refusal=refusal, by_name=self.by_name)

    def _give_up(self) -> None:
        self.pending.clear()
        self._local.clear()
        self._remote.clear()
        self.refusals.append(ResolutionRefusal.ALIAS_LOOP)

    def _apply(self, step: _Step, entry: DirectoryEntry) -> None:
        match entry:
            case ForeignDomain():
                self._foreign(step)
            case DisabledDomain():
                self.refusals.append(ResolutionRefusal.DOMAIN_DISABLED)
            case NoEntry():
                self.refusals.append(ResolutionRefusal.NO_SUCH_ACCOUNT)
            case AccountEntry(enabled=False) | AliasEntry(enabled=False):
                self.refusals.append(ResolutionRefusal.DISABLED)
            case AccountEntry():
                self.by_name &= entry.by_name
                target = LocalTarget(entry.account_id, entry.address, entry.detail or step.detail, entry.quota_bytes)
                self._local.setdefault(entry.account_id, target)
            case AliasEntry():
                self.by_name &= entry.by_name
                for target_text in entry.targets:
                    self.go(parse_address(target_text), entry.detail or step.detail, aliased=True)

    def _foreign(self, step: _Step) -> None:
        if not step.address.domain:  # there is no domain of ours yet
            self.refusals.append(ResolutionRefusal.NO_SUCH_ACCOUNT)
        elif not (step.aliased or self.may_relay):
            self.refusals.append(ResolutionRefusal.RELAY_DENIED)
        elif step.address.domain.startswith("[") and not self.literals:
            self.refusals.append(ResolutionRefusal.DOMAIN_DISABLED)
        else:
            self._remote[step.address] = RemoteTarget(step.address, step.aliased)
