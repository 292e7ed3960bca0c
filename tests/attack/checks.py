"""What `make attack` checks beside load: each check says what it found, and whether that is as it should be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from paquebot.cli.up.layout import UpError
from tests.attack.field import Field
from tests.attack.finding import Finding
from tests.attack.inside import inner_hosts, listening, packs
from tests.attack.lies import flipped_bits
from tests.attack.logins import guesses, sessions_end

Check = Callable[[Field], Awaitable[list[Finding]]]
QUICK: Sequence[Check] = (sessions_end, inner_hosts, packs)
CHECKS: Sequence[Check] = (*QUICK, listening, guesses, flipped_bits)

HEAD = "| what | found | as it should be |\n|---|---:|---|"


async def findings(place: Field, checks: Sequence[Check]) -> AsyncIterator[Finding]:
    """One check after another, on a platform that is not under attack at the moment."""
    for check in checks:
        try:
            found = await check(place)
        except (OSError, EOFError, AssertionError, UpError) as error:
            found = [Finding(check.__name__, "none", f"{type(error).__name__}: {error}")]
        for one in found:
            yield one


def row(one: Finding) -> str:
    return f"| {one.what} | {one.figure} | {f'NO: {one.fault}' if one.fault else 'yes'} |"
