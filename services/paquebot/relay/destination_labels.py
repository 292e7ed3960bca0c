"""The destinations that the metrics name: a bounded number, for each name is a series that Prometheus keeps.

The settings name some always. The other places go to destinations as they come; one that was not used for an hour
makes room for another. A destination without a place counts as `other`. One that loses its place loses its series, and
begins at 0 should it come back, as after a restart of the process.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping

from paquebot.relay import metrics
from paquebot.relay.outcome import RelayResult
from paquebot.relay.settings import DestinationLabelSettings

OTHER = "other"
_UNUSED_SECONDS = 3600.0


class DestinationLabels:
    """Counts by destination. `clock`: seconds."""

    def __init__(self, settings: DestinationLabelSettings, clock: Callable[[], float]) -> None:
        self._limit = settings.limit
        self._clock = clock
        self._always = frozenset(settings.always[: settings.limit])
        self._used: OrderedDict[str, float] = OrderedDict()
        """The longest unused first. No plain cache: it loses a destination only after `_UNUSED_SECONDS`."""
        for name in (OTHER, *self._always):
            _begin(name)

    def recipients(self, destination: str, result: RelayResult, number: int = 1) -> None:
        """`number` recipients had an attempt."""
        metrics.DESTINATION_RECIPIENTS.labels(self._named(destination), result.value).inc(number)

    def unreachable(self, destination: str) -> None:
        """No host of the destination could be used."""
        metrics.DESTINATION_UNREACHABLE.labels(self._named(destination)).inc()

    def measure(self, waiting: Mapping[str, int], resting: frozenset[str]) -> None:
        """The number of waiting jobs of each destination, and which destinations rest; this gives no place."""
        counts = dict.fromkeys((OTHER, *self._always, *self._used), 0)
        rests = dict(counts)
        for destination, number in waiting.items():
            counts[destination if destination in counts else OTHER] += number
        for destination in resting:
            rests[destination if destination in rests else OTHER] += 1
        for name, number in counts.items():
            metrics.DESTINATION_WAITING.labels(name).set(number)
            metrics.DESTINATION_RESTING.labels(name).set(rests[name])

    def _named(self, destination: str) -> str:
        if destination in self._always or destination == OTHER:
            return destination
        if destination in self._used or self._has_room():
            if destination not in self._used:
                _begin(destination)
            self._used[destination] = self._clock()
            self._used.move_to_end(destination)
            return destination
        return OTHER

    def _has_room(self) -> bool:
        if len(self._always) + len(self._used) < self._limit:
            return True
        if not self._used:
            return False
        oldest, at = next(iter(self._used.items()))
        if self._clock() - at < _UNUSED_SECONDS:
            return False
        del self._used[oldest]
        _end(oldest)
        return True


def _begin(name: str) -> None:
    for result in RelayResult:
        metrics.DESTINATION_RECIPIENTS.labels(name, result.value)
    for metric in (metrics.DESTINATION_UNREACHABLE, metrics.DESTINATION_WAITING, metrics.DESTINATION_RESTING):
        metric.labels(name)


def _end(name: str) -> None:
    for result in RelayResult:
        metrics.DESTINATION_RECIPIENTS.remove(name, result.value)
    for metric in (metrics.DESTINATION_UNREACHABLE, metrics.DESTINATION_WAITING, metrics.DESTINATION_RESTING):
        metric.remove(name)
