"""Which messages a command names: sequence numbers, UIDs, or `$`, the saved search result (RFC 5182)."""

from typing import TYPE_CHECKING

from paquebot.imap.states import Selected
from paquebot.wire.imap import SequenceSet

if TYPE_CHECKING:
    from paquebot.imap.session import Session


def named(session: "Session", state: Selected, sequence_set: SequenceSet, *, uid: bool) -> list[int]:
    """Ascending sequence numbers. Raises NoSuchSequenceNumber for a number above EXISTS."""
    if sequence_set.saved:
        numbers = (state.view.number(found) for found in session.saved_uids)
        return [number for number in numbers if number is not None]
    return state.view.select(sequence_set, uid=uid)
