"""Write the dashboards into the chart: `python -m dashboards [--check] [DIRECTORY]`.

With --check nothing is written; the exit status says whether the files are what the code makes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards.board import ANNOTATION_TEXTS
from dashboards.delivery_queue import delivery_queue
from dashboards.mailboxes import mailboxes
from dashboards.overview import overview
from dashboards.relay import relay
from dashboards.smtp_ingress import smtp_ingress
from dashboards.storage_cost import storage_cost

DIRECTORY = Path(__file__).parents[2] / "charts" / "paquebot" / "dashboards"

BOARDS: dict[str, Callable[[], dashboard.Dashboard]] = {
    "overview": overview,
    "smtp-ingress": smtp_ingress,
    "delivery-queue": delivery_queue,
    "relay": relay,
    "imap-pop3": mailboxes,
    "storage-cost": storage_cost,
}


def text(build: Callable[[], dashboard.Dashboard]) -> str:
    """The JSON of one dashboard, as Grafana's sidecar loads it."""
    made = json.loads(json.dumps(build().build(), cls=JSONEncoder))
    for annotation in made["annotations"]["list"]:
        annotation |= ANNOTATION_TEXTS[annotation["name"]]
    return json.dumps(made, indent=2, sort_keys=True) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the Grafana dashboards of the chart.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not up to date")
    parser.add_argument("directory", nargs="?", type=Path, default=DIRECTORY)
    arguments = parser.parse_args()
    wanted = {f"{name}.json": text(build) for name, build in BOARDS.items()}
    present = {path.name: path.read_text("utf-8") for path in arguments.directory.glob("*.json")}
    stale = sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))
    if arguments.check:
        if stale:
            print(f"not what the code makes: {', '.join(stale)}; run make dashboards", file=sys.stderr)
        return bool(stale)
    arguments.directory.mkdir(parents=True, exist_ok=True)
    for name in stale:
        path = arguments.directory / name
        if name in wanted:
            path.write_text(wanted[name], "utf-8")
        else:
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
