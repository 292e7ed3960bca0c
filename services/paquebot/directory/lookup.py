"""Looks up addresses in the directory: one set-based statement for any number of them.

An address finds, in this order: the account or alias of its whole local part; the account or alias of the part
before the separator, with the rest as its detail (RFC 5233); for postmaster those of RFC 5321 §4.5.1 below; the
domain's catch-all; nothing. An alias domain is looked up as the domain that it leads to.

Mail for postmaster always has a recipient (RFC 5321 §4.5.1): an account or alias of that name, else the configured
postmaster address, else the catch-all, else the domain's oldest enabled account, else the oldest enabled account of
all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from paquebot.runtime.postgres.pool import Postgres
from paquebot.wire.address import Address, canonical_local, split_detail

POSTMASTER = "postmaster"


@dataclass(frozen=True, slots=True)
class ForeignDomain:
    """Not a domain of ours."""


@dataclass(frozen=True, slots=True)
class DisabledDomain:
    """A domain of ours that accepts no mail now."""


@dataclass(frozen=True, slots=True)
class NoEntry:
    """A domain of ours without such a local part."""


@dataclass(frozen=True, slots=True)
class AccountEntry:
    """`address` is the account's own; `quota_bytes` 0: none; `by_name` as in AliasThere."""

    account_id: int
    address: Address
    enabled: bool
    quota_bytes: int
    detail: str
    by_name: bool


@dataclass(frozen=True, slots=True)
class AliasEntry:
    """Leads to `targets`. `by_name`: found under the address itself, not as catch-all or postmaster."""

    targets: tuple[str, ...]
    enabled: bool
    detail: str
    by_name: bool


DirectoryEntry = ForeignDomain | DisabledDomain | NoEntry | AccountEntry | AliasEntry


@dataclass(frozen=True, slots=True)
class AddressRules:
    """`default_domain` completes an address without one; empty: the oldest domain. `postmaster`: as above."""

    separator: str = "+"
    default_domain: str = ""
    postmaster: str = ""


# LIMIT 1 keeps each search separate, so that it uses the index of both columns: without it the planner may read all
# accounts of a domain instead, as long as it assumes that there are few (until the next ANALYZE).
_LOOK_UP = """
WITH asked AS MATERIALIZED (
    SELECT n, whole, base, home.name AS domain, d.enabled AND home.enabled AS domain_enabled, home.catch_all
    FROM unnest($1::int[], $2::text[], $3::text[], $4::text[]) AS given (n, domain, whole, base)
    JOIN directory.domains d ON d.name = coalesce(nullif(given.domain, ''), (
        SELECT name FROM directory.domains WHERE alias_of IS NULL ORDER BY created_at, name LIMIT 1
    ))
    JOIN directory.domains home ON home.name = coalesce(d.alias_of, d.name)
)
SELECT asked.n, asked.domain, asked.domain_enabled, asked.catch_all,
       exact.account_id, exact.local_part, exact.enabled, exact.quota_bytes,
       exact_alias.targets, exact_alias.enabled AS alias_enabled,
       base.account_id AS base_account_id, base.local_part AS base_local_part,
       base.enabled AS base_enabled, base.quota_bytes AS base_quota_bytes,
       base_alias.targets AS base_targets, base_alias.enabled AS base_alias_enabled,
       oldest.account_id AS oldest_account_id, oldest.local_part AS oldest_local_part,
       oldest.domain AS oldest_domain, oldest.quota_bytes AS oldest_quota_bytes
FROM asked
LEFT JOIN LATERAL (
    SELECT account_id, local_part, enabled, quota_bytes FROM directory.accounts
    WHERE domain = asked.domain AND local_part = asked.whole LIMIT 1
) AS exact ON true
LEFT JOIN LATERAL (
    SELECT targets, enabled FROM directory.aliases
    WHERE domain = asked.domain AND local_part = asked.whole LIMIT 1
) AS exact_alias ON true
LEFT JOIN LATERAL (
    SELECT account_id, local_part, enabled, quota_bytes FROM directory.accounts
    WHERE domain = asked.domain AND local_part = asked.base AND asked.base <> asked.whole LIMIT 1
) AS base ON true
LEFT JOIN LATERAL (
    SELECT targets, enabled FROM directory.aliases
    WHERE domain = asked.domain AND local_part = asked.base AND asked.base <> asked.whole LIMIT 1
) AS base_alias ON true
LEFT JOIN LATERAL (
    (SELECT 1 AS rank, * FROM (  -- the range finds it by the index accounts_oldest, however few the domain has
        SELECT account_id, local_part, domain, quota_bytes FROM directory.accounts
        WHERE asked.base = 'postmaster' AND enabled AND (domain, account_id) >= (asked.domain, 0)
        ORDER BY domain, account_id LIMIT 1
     ) AS of_domain WHERE domain = asked.domain)
    UNION ALL
    (SELECT 2, account_id, local_part, domain, quota_bytes FROM directory.accounts
     WHERE asked.base = 'postmaster' AND enabled ORDER BY account_id LIMIT 1)
    ORDER BY rank LIMIT 1
) AS oldest ON true
"""


async def look_up(
    postgres: Postgres, rules: AddressRules, addresses: Sequence[Address]
) -> dict[Address, DirectoryEntry]:
    """An entry for each of `addresses`; an empty domain means the default one. One statement."""
    asked = [_Query.of(address, rules) for address in addresses]
    rows = await postgres.fetch(
        "look_up",
        _LOOK_UP,
        list(range(len(asked))),
        [one.domain for one in asked],
        [one.whole for one in asked],
        [one.base for one in asked],
    )
    found: dict[Address, DirectoryEntry] = {address: ForeignDomain() for address in addresses}
    for row in rows:
        found[addresses[row["n"]]] = _entry(row, asked[row["n"]], rules)
    return found


@dataclass(frozen=True, slots=True)
class _Query:
    domain: str
    whole: str
    base: str
    detail: str

    @classmethod
    def of(cls, address: Address, rules: AddressRules) -> "_Query":
        base, detail = split_detail(address.local, rules.separator)
        return cls(
            address.domain or rules.default_domain,
            canonical_local(address.local),
            canonical_local(base),
            detail,
        )


def _entry(row: asyncpg.Record, query: _Query, rules: AddressRules) -> DirectoryEntry:
    if not row["domain_enabled"]:
        return DisabledDomain()
    return (
        _named(row, "", detail="")
        or _named(row, "base_", detail=query.detail)
        or _substitute(row, query, rules)
        or NoEntry()
    )


def _named(row: asyncpg.Record, prefix: str, *, detail: str) -> DirectoryEntry | None:
    """The account or alias whose columns begin with `prefix`."""
    if row[f"{prefix}account_id"] is not None:
        return AccountEntry(
            account_id=row[f"{prefix}account_id"],
            address=Address(row[f"{prefix}local_part"], row["domain"]),
            enabled=row[f"{prefix}enabled"],
            quota_bytes=row[f"{prefix}quota_bytes"],
            detail=detail,
            by_name=True,
        )
    if row[f"{prefix}targets"] is not None:
        return AliasEntry(tuple(row[f"{prefix}targets"]), row[f"{prefix}alias_enabled"], detail, by_name=True)
    return None


def _substitute(row: asyncpg.Record, query: _Query, rules: AddressRules) -> DirectoryEntry | None:
    """The entry for a local part that does not exist: RFC 5321 §4.5.1 for postmaster, else the catch-all."""
    if query.base == POSTMASTER and rules.postmaster:
        return AliasEntry((rules.postmaster,), True, "", by_name=False)
    if row["catch_all"]:
        return AliasEntry((row["catch_all"],), True, "", by_name=False)
    if row["oldest_account_id"] is not None:
        address = Address(row["oldest_local_part"], row["oldest_domain"])
        return AccountEntry(
            row["oldest_account_id"], address, True, row["oldest_quota_bytes"], detail="", by_name=False
        )
    return None
