"""Waiting for what other pods bring: until it is there, until the limit, or until a refusal has lasted."""

from __future__ import annotations

import pytest

from paquebot.cli.roundtrip.trip import client_address
from paquebot.cli.waiting import CommandFailed, RetryUntil, TemporaryFailure, TemporaryRefusal


class Answers:
    """Work that raises each fault in turn and then is done."""

    def __init__(self, *faults: TemporaryFailure) -> None:
        self._faults = list(faults)

    async def __call__(self) -> str:
        if self._faults:
            raise self._faults.pop(0)
        return "done"


async def test_it_says_why_once_and_goes_on() -> None:
    said: list[str] = []
    work = Answers(TemporaryFailure("no answer"), TemporaryFailure("no answer"), TemporaryRefusal("not you"))
    assert await RetryUntil(60.0, said.append).until_done("S3", work) == "done"
    assert [line.partition(": ")[2] for line in said] == ["no answer", "not you"]
    assert said[0].startswith("waiting for S3 (")


async def test_the_limit_ends_it_with_the_last_reason() -> None:
    with pytest.raises(CommandFailed, match=r"S3: not within .*: no answer"):
        await RetryUntil(0.0, lambda _: None).until_done("S3", Answers(TemporaryFailure("no answer")))


async def test_a_refusal_that_lasts_is_believed_before_the_limit() -> None:
    refusals = Answers(*(TemporaryRefusal("not you") for _ in range(9)))
    with pytest.raises(CommandFailed, match="S3: not you"):
        await RetryUntil(0.4, lambda _: None).until_done("S3", refusals)


@pytest.mark.parametrize(
    ("field", "address"),
    [
        ("from client.example ([192.0.2.7])\r\n\tby mx (Paquebot)", "192.0.2.7"),
        ("from x ([IPv6:2001:db8::7])\r\n\tby mx", "2001:db8::7"),
        ("from mail.example.org\r\n\tby mx", "None"),
        ("", "None"),
    ],
)
def test_the_client_of_a_received_field(field: str, address: str) -> None:
    assert str(client_address(field)) == address
