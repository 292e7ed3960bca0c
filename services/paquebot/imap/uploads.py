"""Messages of an APPEND while they are read, and long commands: what they hold of the account's share of memory."""

from collections.abc import Sequence

from paquebot.runtime.shares.budget import OverBudget, Path, Reservation, SharedBudget


class Uploads:
    """Of one session; `release` ends those of one command."""

    def __init__(self, budget: SharedBudget) -> None:
        self._budget = budget
        self._holding: Reservation | None = None
        self._command: Reservation | None = None
        self._messages: list[bytes] = []
        self._coming = bytearray()
        self.holder: Path = ()
        """Whose bytes they are, known after login."""
        self.mailbox_id = 0
        """Where they go, known once the first was admitted."""
        self.lost = False
        """There was no memory for all of them: none is here any more."""

    @property
    def messages(self) -> Sequence[bytes]:
        """Those that were read whole, in order."""
        return self._messages

    def add(self, octets: bytes) -> bool:
        """The next bytes of the message that comes. False: there is no room for it, or others needed its room."""
        if self._holding is None:
            self._holding = self._budget.reservation(self.holder)
            self._holding.offer(self._lose)
        try:
            self._holding.grow_to(self._holding.amount + len(octets))
        except OverBudget:
            self._lose()
            return False
        self._coming += octets
        return True

    def hold_command(self, octets: int) -> None:
        """The command itself holds so much. Raises OverBudget."""
        if self._command is None:
            self._command = self._budget.reservation(self.holder)
        self._command.grow_to(octets)

    def end_message(self) -> None:
        """Its last byte was added."""
        if not self.lost:
            self._messages.append(bytes(self._coming))
        self._coming = bytearray()

    def take(self) -> list[bytes]:
        """The messages, to be stored: nobody can take their memory any more."""
        if self._holding is not None:
            self._holding.keep()
        return self._messages

    def release(self) -> None:
        """The messages, and the command, are not needed any more."""
        if self._command is not None:
            self._command.release()
            self._command = None
        if self._holding is not None:
            self._holding.release()
            self._holding = None
        self._messages = []
        self._coming = bytearray()
        self.lost = False

    def _lose(self) -> None:
        self.lost = True
        self._messages = []
        self._coming = bytearray()
        if self._holding is not None:
            self._holding.release()
