"""One line of JSON per event, for any content of its fields."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

PROLOGUE = """
from paquebot.observability import log
log.set_up("tests", level="info")
it = log.Log("paquebot.tests")
"""


def logged(code: str) -> list[dict[str, Any]]:
    """Run `code` in a process with an ASCII locale; return its output."""
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-c", PROLOGUE + code]
    ended = subprocess.run(command, env=environ, capture_output=True, timeout=30, check=True)
    assert ended.stderr == b""
    assert ended.stdout.endswith(b"\n")
    return [json.loads(line) for line in ended.stdout.decode("ascii").split("\n")[:-1]]


def test_line_has_its_time_level_service_event_and_fields() -> None:
    (line,) = logged("it.debug('unheard'); it.warning('taken', queue_id='Q', bytes=3)")
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "warning",
        "service": "tests",
        "event": "taken",
        "logger": "paquebot.tests",
        "queue_id": "Q",
        "bytes": 3,
    }


def test_lines_together_are_as_lines_alone() -> None:
    code = """
lines = [{"queue_id": "Q", "uid": 1}, {}, {"queue_id": "\\n\\u2028", "nested": {1: float("inf")}}]
with log.ids(session="S"):
    it.info_each("delivered", lines)
    it.info_each("delivered", [])
    for line in lines:
        it.info("delivered", **line)
"""
    lines = logged(code)
    times = [line.pop("time") for line in lines]
    assert lines[:3] == lines[3:]
    assert times[0] == times[1] == times[2]
    assert lines[0]["session"] == "S"


@pytest.mark.parametrize("text", ["a\nb\r\n", "\udcff\ud800", "\u2028\u2029\x85", "\x00\x1b[2J", 'é"}{"', "\x7f"])
def test_no_text_breaks_a_line(text: str) -> None:
    (line,) = logged(f"it.info('taken', field={text!r}, nested=[{{{text!r}: {text!r}}}])")
    assert line["field"] == text
    assert line["nested"] == [{text: text}]


def test_values_without_a_form_in_json_are_written_as_text() -> None:
    code = """
class Unshown:
    def __str__(self):
        raise RuntimeError
it.info('taken', bytes=b'x', set_of={1}, number=float('nan'), by={(1, 2): 3}, unshown=Unshown())
"""
    (line,) = logged(code)
    assert (line["bytes"], line["set_of"], line["number"], line["by"]) == ("b'x'", "{1}", "nan", {"(1, 2)": 3})
    assert line["unshown"] == "<Unshown: RuntimeError>"


def test_traceback_stays_in_its_line() -> None:
    code = "try:\n    raise ValueError('\\udcff\\nsecond line')\nexcept ValueError:\n    it.exception('failed')\n"
    (line,) = logged(code)
    assert line["level"] == "error"
    assert line["error"].splitlines()[0] == "Traceback (most recent call last):"
    assert "second line" in line["error"]


def test_ids_are_bound_inside_and_to_the_task_alone() -> None:
    code = """
import asyncio
async def one(number):
    with log.ids(session=number):
        await asyncio.sleep(0)
        with log.ids(queue_id="Q"):
            it.info("inner")
        it.info("outer")
async def main():
    await asyncio.gather(one(1), one(2))
    it.info("after")
asyncio.run(main())
"""
    lines = logged(code)
    for number in (1, 2):
        mine = [line for line in lines if line.get("session") == number]
        assert [(line["event"], line.get("queue_id")) for line in mine] == [("inner", "Q"), ("outer", None)]
    assert "session" not in lines[-1]


@pytest.mark.parametrize(("whole", "shown"), [(False, "*@example.org"), (True, '"a@b"@example.org')])
def test_addresses_are_whole_only_when_asked_for(whole: bool, shown: str) -> None:
    code = f"log.set_up('tests', addresses={whole})\nit.info('taken', to=log.shown('\"a@b\"@example.org'))"
    assert [line["to"] for line in logged(code)] == [shown]
