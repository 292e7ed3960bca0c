"""The memory of an account that its messages of APPEND, while they are read, and its long commands take."""

from paquebot.runtime.shares.budget import OverBudget, Path, Reservation, SharedBudget


class Uploads:
    """Of one session; `release` frees those of one command."""

    def __init__(self, budget: SharedBudget) -> None:
        self._budget = budget
        self._reservation: Reservation | None = None
        self._command: Reservation | None = None
        self._messages: list[bytes] = []
        self._current = bytearray()
        self.owner: Path = ()
        """The account that the memory is charged to, known after login."""
        self.mailbox_id = 0
        """The mailbox that they are appended to, known once the first was accepted."""
        self.dropped = False
        """There was no memory for all messages, so none was kept."""

    def add(self, chunk: bytes) -> bool:
        """Add the next bytes of the message that is read. False: there is no room for it, or others needed its room."""
        if self._reservation is None:
            self._reservation = self._budget.reservation(self.owner)
            self._reservation.offer(self._drop)
        try:
            self._reservation.grow_to(self._reservation.amount + len(chunk))
        except OverBudget:
            self._drop()
            return False
        self._current += chunk
        return True

    def reserve_for_command(self, size: int) -> None:
        """Reserve `size` bytes for the command itself. Raises OverBudget."""
        if self._command is None:
            self._command = self._budget.reservation(self.owner)
        self._command.grow_to(size)

    def end_message(self) -> None:
        """The last byte of the message was added."""
        if not self.dropped:
            self._messages.append(bytes(self._current))
        self._current = bytearray()

    def take(self) -> list[bytes]:
        """The messages, to be stored: from now on no other session can take their memory."""
        if self._reservation is not None:
            self._reservation.keep()
        return self._messages

    def release(self) -> None:
        """Free the messages and the command."""
        if self._command is not None:
            self._command.release()
            self._command = None
        if self._reservation is not None:
            self._reservation.release()
            self._reservation = None
        self._messages = []
        self._current = bytearray()
        self.dropped = False

    def _drop(self) -> None:
        self.dropped = True
        self._messages = []
        self._current = bytearray()
        if self._reservation is not None:
            self._reservation.release()
