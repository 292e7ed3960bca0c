"""`make chaos ARGS='--seed N --minutes M'`: one run, a line for each fault, a table, build/chaos.json.

Exit code 0: the promise held. 1: it was broken; the findings are printed, and the same seed gives the same faults.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import uvloop

from tests.chaos.figures import as_json, table
from tests.chaos.place import keep_disks, may_mount
from tests.chaos.run import Order, Run
from tests.chaos.schedule import Fault, faults, short_form

_OWN_MOUNTS = "CHAOS_OWN_MOUNTS"


def main() -> int:
    options = _options()
    if not options.short and not os.environ.get(_OWN_MOUNTS) and may_mount():
        _again_with_own_mounts()
    disks = not options.short and bool(os.environ.get(_OWN_MOUNTS))
    seed = options.seed or str(random.SystemRandom().randrange(1_000_000))
    data = Path(options.data or tempfile.mkdtemp(prefix="paquebot-chaos-"))
    print(f"seed {seed}: `make chaos ARGS='--seed {seed}'` gives the same faults in the same order", flush=True)
    if not disks and not options.short:
        print(
            "full disks are left out: they take root and unshare(1), for a small disk of each engine's own", flush=True
        )
    order = Order(
        seed=seed,
        data=data,
        seconds=options.minutes * 60,
        faults=short_form() if options.short else _wanted(faults(seed, disks=disks), options.only),
        disks=disks,
        pace=options.pace,
    )
    run = Run(order, lambda text: print(text, flush=True))
    uvloop.run(run.run())
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(as_json(run), indent=1) + "\n")
    print(table(run))
    for finding in run.ledger.findings:
        print(f"BROKEN: {finding}")
    if run.ledger.findings:
        if disks:
            keep_disks(data)
        print(f"seed {seed}: {len(run.ledger.findings)} findings; logs in {data / 'log'}")
        return 1
    if not options.data:
        shutil.rmtree(data, ignore_errors=True)
    return 0


def _wanted(schedule: Iterator[tuple[float, Fault]], only: str) -> Iterator[tuple[float, Fault]]:
    words = [word.strip() for word in only.split(",") if word.strip()]
    return ((pause, fault) for pause, fault in schedule if not words or any(word in str(fault) for word in words))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make chaos", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seed", default="", help="repeat the faults and messages of a run; default: a new one")
    parser.add_argument("--minutes", type=float, default=12.0, help="how long faults begin (default: 12)")
    parser.add_argument("--pace", type=float, default=1.5, help="factor of the senders' pauses (default: 1.5)")
    parser.add_argument("--only", default="", metavar="WORDS", help="faults whose line has one of: --only 'nats,disk'")
    parser.add_argument("--short", action="store_true", help="one fault of each main class, in about a minute")
    parser.add_argument(
        "--data", help="where the platform lives; kept afterwards (default: temporary, kept on failure)"
    )
    parser.add_argument(
        "--json", type=Path, default=Path("build/chaos.json"), help="figures (default: build/chaos.json)"
    )
    return parser.parse_args()


def _again_with_own_mounts() -> NoReturn:
    """Go on in a mount namespace of our own: its mounts end with us, however we end."""
    argv = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", "tests.chaos", *sys.argv[1:]]
    os.execvpe(argv[0], argv, {**os.environ, _OWN_MOUNTS: "1"})


if __name__ == "__main__":
    sys.exit(main())
