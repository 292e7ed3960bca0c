"""Where mail for addresses goes: aliases followed to accounts and remote addresses, bounded and loop-safe.

All addresses of a request are followed together, level by level, with one lookup a level: one statement for
accounts, one more for each level of aliases. An alias that leads to more than `MAX_LEVELS` levels or
`MAX_RECIPIENTS` recipients is refused as a loop; one that leads back to itself loses only that branch. Targets
that nobody has are dropped while others remain.
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
    """Why mail for an address goes nowhere; of an alias with several, the last in this order is told."""

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
    """`aliased`: an alias of ours leads there."""

    address: Address
    aliased: bool


@dataclass(frozen=True, slots=True)
class Resolution:
    """Targets without duplicates, or a refusal.

    `dropped` counts targets of aliases that were left out; `by_name`: no catch-all or postmaster rule was needed.
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
    (RFC 5321 §4.1.3). `may_relay` admits addresses at domains of others, `other_literals`
    with it those at address literals of others: whoever names one chooses where we connect to.
    """
    walks = [_start(path, own_literals, may_relay=may_relay, literals=other_literals) for path in forward_paths]
    for _ in range(MAX_LEVELS):
        asked = list({step.address: None for walk in walks for step in walk.pending})
        if not asked:
            break
        entries = await lookup(asked)
        for walk in walks:
            walk.advance(entries)
    return [walk.end() for walk in walks]


@dataclass(frozen=True, slots=True)
class _Step:
    address: Address
    detail: str  # of the address that led here; an account without a detail of its own inherits it
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
    """The way from one forward-path to its recipients."""

    may_relay: bool
    literals: bool
    pending: list[_Step] = field(default_factory=list)
    refusals: list[ResolutionRefusal] = field(default_factory=list)
    by_name: bool = True
    _seen: set[Address] = field(default_factory=set)
    _local: dict[int, LocalTarget] = field(default_factory=dict)
    _remote: dict[Address, RemoteTarget] = field(default_factory=dict)

    def go(self, address: Address, detail: str, *, aliased: bool) -> None:
        """Look `address` up at the next level, unless it was on the way already."""
        if address not in self._seen:
            self._seen.add(address)
            self.pending.append(_Step(address, detail, aliased))

    def advance(self, entries: Mapping[Address, DirectoryEntry]) -> None:
        """Take the entries of what is pending; what they lead to is pending afterwards."""
        steps, self.pending = self.pending, []
        for step in steps:
            self._take(step, entries[step.address])
            if len(self._seen) > MAX_RECIPIENTS:  # at once: each level could have a hundred times as many as the last
                self._give_up()
                return

    def end(self) -> Resolution:
        if self.pending:  # deeper than MAX_LEVELS
            self._give_up()
        if self._local or self._remote:
            return Resolution(
                local=tuple(self._local.values()),
                remote=tuple(self._remote.values()),
                dropped=len(self.refusals),
                by_name=self.by_name,
            )
        # Without recipients and without a refusal, every branch came back to where it had been.
        refusal = max(self.refusals, key=lambda one: one.value, default=ResolutionRefusal.ALIAS_LOOP)
        return Resolution(refusal=refusal, by_name=self.by_name)

    def _give_up(self) -> None:
        self.pending.clear()
        self._local.clear()
        self._remote.clear()
        self.refusals.append(ResolutionRefusal.ALIAS_LOOP)

    def _take(self, step: _Step, entry: DirectoryEntry) -> None:
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
        if not step.address.domain:  # no domain of our own exists yet
            self.refusals.append(ResolutionRefusal.NO_SUCH_ACCOUNT)
        elif not (step.aliased or self.may_relay):
            self.refusals.append(ResolutionRefusal.RELAY_DENIED)
        elif step.address.domain.startswith("[") and not self.literals:
            self.refusals.append(ResolutionRefusal.DOMAIN_DISABLED)
        else:
            self._remote[step.address] = RemoteTarget(step.address, step.aliased)
