"""The metrics of this process."""

from prometheus_client import REGISTRY

from paquebot.observability.metrics import Fault


def errors(engine: str, call: str) -> float:
    """Failed calls to an engine, of every kind of failure."""
    labels = {"engine": engine, "call": call}
    found = (
        REGISTRY.get_sample_value("paquebot_engine_errors_total", {**labels, "class": fault.value}) for fault in Fault
    )
    return sum(value or 0.0 for value in found)


def value(name: str, **labels: str) -> float | None:
    """The current value of a series; None: there is no such series."""
    return REGISTRY.get_sample_value(name, labels)
