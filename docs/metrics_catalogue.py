"""Writes docs/metrics.md from the metrics that the services declare: `make metrics-docs`.

Each service is imported in a process of its own, so that the page lists the metrics that a service really has.
"""

import json
import subprocess
import sys
from typing import Any

SERVICES = ("smtp_ingress", "recipient_validation", "delivery", "relay", "imap", "pop3")

_DECLARED = """
import importlib, json, sys
importlib.import_module("paquebot." + sys.argv[1] + ".service")
from paquebot.observability.metrics import DECLARED, Bounded
print(json.dumps({
    name: {
        "kind": one.kind.value,
        "unit": one.unit,
        "help": one.help,
        "labels": {
            label: {"bounded": values.by} if isinstance(values, Bounded) else {"values": values}
            for label, values in one.labels.items()
        },
    }
    for name, one in DECLARED.items()
}))
"""

_HEAD = """# Metrics

Every service serves these at `/metrics` on its metrics port (2900 in a pod). Made from the code by
`make metrics-docs`; a test holds the two together.

- Times are in seconds, sizes in bytes; counters end in `_total`. A histogram `x` has `x_bucket`, `x_sum`, `x_count`.
- Label values are those listed. A counter has all its series from the start, at 0, where the values are listed; where
  they are known only at run time the text says what bounds them.
- `paquebot_queue_*` gauges describe the one stream, and each pod of delivery and relay reports the same figures, also
  those of the other's part: use `max`, never `sum`. Without a pod of either they are missing.
- A service with several workers (`PAQUEBOT_WORKERS`) is one target: counters, histograms and gauges are added up,
  except the gauges that the code marks otherwise (`Across`): `paquebot_ready` is that of the worst worker.
- `paquebot_mailstore_*` gauges are read from PostgreSQL, the same by each pod of delivery.
- `python_*` and `process_*` (CPU, memory, open files, start time) come from prometheus-client, in every service.
- The janitor and `verify` run and end, so nothing can scrape them: their figures are what they print at their end (one
  JSON object with `--json`), and Kubernetes shows whether the job succeeded.

A message's way in counters: accepted `paquebot_smtp_messages_total{result="accepted"}`, delivered
`paquebot_delivery_recipients_total{outcome="delivered"}`, relayed
`paquebot_relay_recipients_total{outcome="delivered"}`, bounced `{outcome="failed"}`, deferred
`{outcome="deferred"}` of the same and `paquebot_delivery_deferred_recipients_total`, held
`paquebot_queue_held_jobs`.
"""


def declared(service: str) -> dict[str, Any]:
    """The metrics of a service, by name."""
    run = subprocess.run([sys.executable, "-c", _DECLARED, service], capture_output=True, check=True, text=True)  # noqa: S603
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def page() -> str:
    """The whole docs/metrics.md."""
    by_service = {service: declared(service) for service in SERVICES}
    metrics = {name: one for found in by_service.values() for name, one in found.items()}
    owners: dict[str, tuple[str, ...]] = {
        name: tuple(service for service in SERVICES if name in by_service[service]) for name in metrics
    }
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in metrics:
        groups.setdefault(owners[name], []).append(name)
    parts = [_HEAD]
    for group in sorted(groups, key=lambda group: (-len(group), [SERVICES.index(service) for service in group])):
        title = "every service" if group == SERVICES else ", ".join(group)
        parts.append(f"## {title[0].upper() + title[1:] if group == SERVICES else title}\n")
        parts.append("| name | type | unit | labels | what |\n|---|---|---|---|---|")
        parts += [_row(name, metrics[name]) for name in sorted(groups[group])]
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _row(name: str, one: dict[str, Any]) -> str:
    labels = "<br>".join(_label(label, values) for label, values in one["labels"].items())
    return f"| `{name}` | {one['kind']} | {one['unit']} | {labels} | {one['help']} |"


def _label(label: str, values: dict[str, Any]) -> str:
    known = values.get("values")
    return f"`{label}`: " + (" ".join(known) if known is not None else f"*{values['bounded']}*")


if __name__ == "__main__":
    sys.stdout.write(page())
