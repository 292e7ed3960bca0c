"""The dialogue runner: the steps that it accepts, and failures that point at the script's line."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.dialogues.dialogue import DialogueFailed, Endpoint, load, play


class EchoWorld:
    """A server that greets, and answers each line with `got <line>`, until `bye`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.performed: list[str] = []

    def endpoint(self, listener: str) -> Endpoint:
        assert listener == "echo"
        return Endpoint("127.0.0.1", self._port)

    async def perform(self, step: str) -> None:
        self.performed.append(step)
        assert step != "assert impossible", "it is impossible"


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"* OK number 42 ready\r\n")
    with contextlib.suppress(ConnectionError):
        while line := await reader.readline():
            writer.write(b"got " + line * (2 if line.startswith(b"twice") else 1))
            if line.startswith(b"bye"):
                break
    writer.close()


@pytest.fixture
async def world() -> AsyncIterator[EchoWorld]:
    server = await asyncio.start_server(_serve, "127.0.0.1", 0)
    yield EchoWorld(server.sockets[0].getsockname()[1])
    server.close()
    await server.wait_closed()


def _script(folder: Path, text: str):  # type: ignore[no-untyped-def]
    path = folder / "script.txt"
    path.write_text(text)
    return load(path)


async def test_plays_captures_escapes_and_unordered_lines(world: EchoWorld, tmp_path: Path) -> None:
    script = _script(
        tmp_path,
        r"""# a comment
set NAME some value
connect echo
S: \* OK number $(n) *
C: one $(n)
C: t\x09wo\r\n
repeat 2 three\r\n
S: got one 42
S~: got three
S~: got t\x09wo
S~: got three
C: par\c
C: tial
C: later
S*: got later
assert anything about $(n)
C: bye
S: got bye
closed
""",
    )
    await play(script, world)
    assert script.settings == {"NAME": "some value"}
    assert world.performed == ["assert anything about 42"]


@pytest.mark.parametrize(
    ("steps", "number", "reason"),
    [
        ("connect echo\nS: \\* OK\n", 2, "expected"),
        ("connect echo\nS: *\nC: a\nS: got b\n", 4, "got 'got a'"),
        ("connect echo\nS: *\n\nassert impossible\n", 4, "it is impossible"),
        ("connect echo\nS: *\nC: bye\nS: *\nS: *\n", 5, "closed the connection"),
        ("connect echo\nS: *\nC: bye\nclosed\n", 4, "expected the end"),
        ("connect echo\nS: *\nC: a\\n\nS: got a\n", 4, "bare LF"),
        ("connect echo\nS: *\nS: more\n", 3, "nothing came within"),
        ("connect echo\nS: *\nC: a\nC: b\nS: got a\nS: got b\nuse other\n", 7, "no connection"),
        ("connect echo\nS: *\nC: twice\nS: got twice\n", 4, "unread"),
    ],
)
async def test_a_failure_points_at_the_line(
    world: EchoWorld, tmp_path: Path, steps: str, number: int, reason: str
) -> None:
    with pytest.raises(DialogueFailed) as caught:
        await play(_script(tmp_path, steps), world, deadline=0.3)
    assert f"script.txt:{number}: " in str(caught.value)
    assert reason in str(caught.value)
