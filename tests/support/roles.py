"""The services' database roles in tests. Roles belong to the whole PostgreSQL cluster, so all have one password.

A test that sets another password would lock out tests with an earlier connection string.
"""

from __future__ import annotations

import urllib.parse

from paquebot.runtime.postgres.migrations import bootstrap_roles

ROLE_PASSWORD = "p@ss:w/rd' \\ é"  # characters that need quoting in a URL or a statement


def role_dsn(admin_dsn: str, role: str) -> str:
    """The DSN of `role` on the database of `admin_dsn`."""
    parts = urllib.parse.urlsplit(admin_dsn)
    hosts = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{role}:{urllib.parse.quote(ROLE_PASSWORD, safe='')}@{hosts}").geturl()


async def let_roles_log_in(admin_dsn: str, *roles: str) -> None:
    """Make `role_dsn` work for each of `roles`."""
    await bootstrap_roles(admin_dsn, dict.fromkeys(roles, ROLE_PASSWORD))
