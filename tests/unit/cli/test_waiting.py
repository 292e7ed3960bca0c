"""The retries of the command line: until success, until the timeout, or until a refusal has lasted."""

from __future__ import annotations

import pytest

from paquebot.cli.roundtrip.trip import client_address
from paquebot.cli.waiting import CommandFailed, RetryUntil, TemporaryFailure, TemporaryRefusal


class Answers:
    """An operation that raises each failure in turn, then succeeds."""

    def __init__(self, *failures: TemporaryFailure) -> None:
        self._failures = list(failures)

    async def __call__(self) -> str:
        if self._failures:
            raise self._failures.pop(0)
        return "done"


@pytest.mark.slow
async def test_each_reason_is_printed_once() -> None:
    lines: list[str] = []
    work = Answers(TemporaryFailure("no answer"), TemporaryFailure("no answer"), TemporaryRefusal("not you"))
    assert await RetryUntil(60.0, lines.append).call("S3", work) == "done"
    assert [line.partition(": ")[2] for line in lines] == ["no answer", "not you"]
    assert lines[0].startswith("waiting for S3 (")


async def test_the_timeout_fails_with_the_last_reason() -> None:
    with pytest.raises(CommandFailed, match=r"S3: not within .*: no answer"):
        await RetryUntil(0.0, lambda _: None).call("S3", Answers(TemporaryFailure("no answer")))


async def test_the_timeout_passes_while_it_tries_again() -> None:
    lines: list[str] = []
    failures = Answers(*(TemporaryFailure(f"no answer {number}") for number in range(9)))
    with pytest.raises(CommandFailed, match=r"S3: not within .*: no answer [1-8]"):
        await RetryUntil(0.4, lines.append).call("S3", failures)
    assert len(lines) == 1  # the reason of the last try is in the exception alone


async def test_other_errors_are_not_retried() -> None:
    calls = []

    async def broken() -> str:
        calls.append(1)
        raise CommandFailed("no such login")

    with pytest.raises(CommandFailed, match=r"^no such login$"):
        await RetryUntil(60.0, lambda _: None).call("S3", broken)
    assert len(calls) == 1


async def test_a_refusal_that_lasts_fails_before_the_timeout() -> None:
    refusals = Answers(*(TemporaryRefusal("not you") for _ in range(9)))
    with pytest.raises(CommandFailed, match="S3: not you"):
        await RetryUntil(0.4, lambda _: None).call("S3", refusals)


@pytest.mark.parametrize(
    ("field", "address"),
    [
        ("from client.example ([192.0.2.7])\r\n\tby mx (Paquebot)", "192.0.2.7"),
        ("from x ([IPv6:2001:db8::7])\r\n\tby mx", "2001:db8::7"),
        ("from mail.example.org\r\n\tby mx", "None"),
        ("", "None"),
    ],
)
def test_client_address_of_a_received_field(field: str, address: str) -> None:
    assert str(client_address(field)) == address
