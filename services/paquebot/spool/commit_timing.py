"""Decides when the next commit starts: as many messages in a pack as the bound on latency allows.

A commit costs the same for one message as for fifty, so when several clients send, the first message waits for more
messages: until every client that may send one soon has sent it, or there was no activity for one linger, and for at
most `MAX_LINGERS` lingers. The clients that may send one soon are the sessions with an open transaction and, as most
clients go on sending, as many as the last round had. The message of a lone client does not wait.

A linger grows with the usual time of a commit: where commits take long, the machine is busy or a commit is expensive.
So a message does not wait much longer for more messages than for its commit.
"""

MAX_LINGERS = 5
"""The first message of a commit waits for at most so many lingers."""

_ROUND_SECONDS = 0.25  # the size of the last round counts for so long
_WEIGHT = 0.2  # of the newest commit in the usual time of a commit
_LINGER_SHARE = 0.5  # of the usual time, up to:
_MAX_LINGER = 0.02
_SLOW_FACTOR = 2.0  # times the usual time, up to:
_MAX_SLOW = 0.25


class CommitTiming:
    """Times are seconds of one monotonic clock. `max_messages`: of one commit."""

    def __init__(self, linger: float, slow: float, max_messages: int) -> None:
        self._linger = linger
        self._slow = slow
        self._max_messages = max_messages
        self._first_at = 0.0  # when the first of the waiting messages arrived
        self._active_at = 0.0  # when a session last began a transaction or sent a message
        self._round = 0
        self._round_until = 0.0
        self._usual = 0.0

    def transaction_began(self, now: float) -> None:
        """A session began a transaction."""
        self._active_at = now

    def message_arrived(self, now: float, waiting: int) -> None:
        """`waiting`: the number of waiting messages, this one included."""
        self._active_at = now
        if waiting == 1:
            self._first_at = now

    def commit_ended(self, now: float, messages: int, waiting: int, seconds: float) -> None:
        """A commit of `messages` took `seconds`, and `waiting` others arrived meanwhile. The senders of all of these
        are one round: those of the commit are now free to send more, and the waiting messages wait for them."""
        self._round = messages + waiting
        self._round_until = now + _ROUND_SECONDS
        self._first_at = self._active_at = now
        self._usual += (seconds - self._usual) * (_WEIGHT if self._usual else 1.0)

    def pause(self, now: float, waiting: int, writers: int) -> float:
        """Seconds until the next commit starts or this is asked again; 0 or less: start it now. `writers`: sessions
        with an open transaction."""
        expected = max(writers, self._round if now < self._round_until else 0)
        if waiting >= min(expected, self._max_messages):
            return 0.0
        linger = max(self._linger, min(_LINGER_SHARE * self._usual, _MAX_LINGER))
        return min(self._active_at + linger, self._first_at + MAX_LINGERS * linger) - now

    @property
    def slow(self) -> float:
        """Seconds after which a second commit starts beside one under way. It grows with the usual time: on a busy
        machine, where every commit takes long, a second one only adds load."""
        return max(self._slow, min(_SLOW_FACTOR * self._usual, _MAX_SLOW))
