"""Messages that cannot be read: the lines that name them, and the code with which a command fails."""

from __future__ import annotations

import pytest

from paquebot.blobs import BadPack, BlobMissing, BlobsUnavailable
from paquebot.imap.bodies.body_cache import BodyError
from paquebot.imap.bodies.windows import Unreadable

AWAY, LOST, DAMAGED = BlobsUnavailable("away"), BlobMissing("lost"), BadPack("damaged")


@pytest.mark.parametrize(
    ("errors", "answered", "code"),
    [
        ([], 0, None),
        ([LOST], 1, None),
        ([DAMAGED, LOST], 7, None),
        ([LOST, LOST], 0, b"CORRUPTION"),
        ([LOST, DAMAGED], 0, b"UNAVAILABLE"),
        ([LOST, AWAY], 5, b"UNAVAILABLE"),
    ],
)
def test_the_code_of_the_command(errors: list[BodyError], answered: int, code: bytes | None) -> None:
    unreadable = Unreadable()
    for number, error in enumerate(errors, 1):
        unreadable.add(error, number, number)
    assert unreadable.code(answered=answered) == code


def test_a_bounded_number_of_messages_is_named() -> None:
    unreadable = Unreadable()
    lines = [unreadable.add(LOST, number, number + 1000) for number in range(1, 5001)]
    assert lines[0] == b"* NO [CORRUPTION] Message 1 (UID 1001) is lost, please report it\r\n"
    assert lines[100] == b"* NO More messages cannot be read\r\n"
    assert len(list(filter(None, lines))) == 101
    assert unreadable.lost == 5000
