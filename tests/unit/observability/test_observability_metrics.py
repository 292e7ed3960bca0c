"""Calls to engines are timed, and their errors counted; a cancelled call is no error."""

import asyncio

import pytest
from prometheus_client import REGISTRY

from paquebot.observability.metrics import engine_call
from tests.support.counted import errors


def counts(call: str) -> tuple[float, float]:
    """(calls timed, errors)"""
    labels = {"engine": "tests", "call": call}
    timed = REGISTRY.get_sample_value("paquebot_engine_call_seconds_count", labels)
    return timed or 0, errors("tests", call)


@pytest.mark.parametrize(("error", "errors"), [(None, 0), (OSError(), 1), (asyncio.CancelledError(), 0)])
def test_call_is_timed_and_its_error_counted(error: BaseException | None, errors: int) -> None:
    call = type(error).__name__

    def run() -> None:
        with engine_call("tests", call):
            if error is not None:
                raise error

    before = counts(call)
    if error is None:
        run()
    else:
        with pytest.raises(type(error)):
            run()
    after = counts(call)
    assert (after[0] - before[0], after[1] - before[1]) == (1, errors)
