"""Full accounts, also where one statement returns the usages of several callers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from paquebot.directory.lookup import AccountEntry, DirectoryEntry
from paquebot.mailstore import Usage
from paquebot.recipient_validation.validation import Validation
from paquebot.v1 import recipient_validation_pb2 as pb
from paquebot.wire.address import Address

QUOTA, MESSAGES = 1000, 10
STORED = {1: Usage(999, 1), 2: Usage(1000, 1), 3: Usage(0, MESSAGES)}
"""Of three accounts; the fourth has no mail. Every lookup returns all of them, as a batch of lookups does."""


async def look_up(addresses: Sequence[Address]) -> Mapping[Address, DirectoryEntry]:
    return {address: AccountEntry(int(address.local), address, True, QUOTA, "", True) for address in addresses}


async def usage_of(_: Sequence[int]) -> Mapping[int, Usage]:
    return STORED


@pytest.mark.parametrize(
    ("account", "size", "verdict"),
    [
        (1, 0, pb.VERDICT_ACCEPT),
        (1, 2, pb.VERDICT_OVER_QUOTA),
        (2, 0, pb.VERDICT_OVER_QUOTA),
        (3, 0, pb.VERDICT_OVER_QUOTA),
        (4, QUOTA, pb.VERDICT_ACCEPT),
        (1, QUOTA, pb.VERDICT_OVER_QUOTA),
        (1, QUOTA + 1, pb.VERDICT_TOO_LARGE),
        (4, QUOTA + 1, pb.VERDICT_TOO_LARGE),
    ],
)
async def test_verdict_beside_the_usages_of_others(account: int, size: int, verdict: int) -> None:
    validation = Validation(look_up, (), usage_of, MESSAGES)
    context: Any = None  # only a call with too many forward-paths needs it
    request = pb.ValidateRequest(forward_paths=[f"{account}@paquebot.test"], size=size)
    (result,) = (await validation.Validate(request, context)).results
    assert result.verdict == verdict
