"""How long the messages that wait for a commit go on gathering: the fullest packs that latency allows.

A commit costs the same whether it keeps one message or fifty, so that of several senders the first waits for the
others: until all who may bring a message soon have brought it, or nothing stirred for a linger, and no longer than
`PATIENCE` lingers in any case. Who may bring one: sessions with a transaction open, and, as most senders go on
sending, as many as were seen in the last round. A lone sender is complete by itself and waits for nobody.

A linger grows with the time that a commit usually takes: where that is long, the whole machine is busy or a commit is
dear. So nobody waits much longer for company than for the commit.
"""

PATIENCE = 5
"""Most lingers that a first message waits."""

_ROUND_SECONDS = 0.25  # for so long the last round tells how many may come
_WEIGHT = 0.2  # of the newest commit in what a commit usually takes
_LINGER = 0.5  # of the usual time, but no more than
_MOST_LINGER = 0.02
_SLOW = 2.0  # times the usual time, but no more than
_MOST_SLOW = 0.25


class CommitTiming:
    """Times are seconds of one monotonic clock."""

    def __init__(self, linger: float, slow: float, most: int) -> None:
        self._linger = linger
        self._slow = slow
        self._most = most
        self._began = 0.0
        self._stirred = 0.0  # when somebody began a transaction or brought a message
        self._round = 0
        self._round_until = 0.0
        self._usual = 0.0

    def stirred(self, now: float) -> None:
        """A session began a transaction."""
        self._stirred = now

    def arrived(self, now: float, waiting: int) -> None:
        """A message came; `waiting`: how many wait now, with it."""
        self._stirred = now
        if waiting == 1:
            self._began = now

    def committed(self, now: float, messages: int, waiting: int, seconds: float) -> None:
        """A commit of `messages` ended after `seconds`, while `waiting` others had come. Their senders have all been
        seen since it began, so they are a round; who waits begins to gather with those that are now free to come."""
        self._round = messages + waiting
        self._round_until = now + _ROUND_SECONDS
        self._began = self._stirred = now
        self._usual += (seconds - self._usual) * (_WEIGHT if self._usual else 1.0)

    def pause(self, now: float, waiting: int, writers: int) -> float:
        """Seconds to wait before the next commit starts or the question is asked again; 0 or less: it starts now."""
        expected = max(writers, self._round if now < self._round_until else 0)
        if waiting >= min(expected, self._most):
            return 0.0
        linger = max(self._linger, min(_LINGER * self._usual, _MOST_LINGER))
        return min(self._stirred + linger, self._began + PATIENCE * linger) - now

    @property
    def slow(self) -> float:
        """Seconds after which a second commit starts beside one under way: on a busy machine, where all take long,
        a second one makes it only busier."""
        return max(self._slow, min(_SLOW * self._usual, _MOST_SLOW))
