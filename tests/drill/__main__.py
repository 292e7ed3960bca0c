"""`make drill`: both drills on a new platform in a temporary directory; exit code 1 when mail is missing or twice."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

from tests.drill import mail
from tests.drill.backup import Failed
from tests.drill.drills import Result, prepare, rebuild, restore
from tests.e2e.platforms import running


async def drills(directory: Path, messages: int, *, quiet: bool = False) -> list[Result]:
    """Raises Failed."""
    began = time.perf_counter()

    def say(text: str) -> None:
        if not quiet:
            print(f"{time.perf_counter() - began:6.1f} s  {text}", flush=True)

    async with running(directory / "data", "drill.test") as platform:
        post = mail.Post()
        say(f"sending {messages} messages, filing some, writing a snapshot")
        say(await prepare(platform, post, "known", messages))
        results = [await rebuild(platform, post, messages, say)]
        say(results[-1].line())
        results.append(await restore(platform, post, messages, directory / "backup", say))
        say(results[-1].line())
        return results


def main() -> int:
    parser = argparse.ArgumentParser(prog="make drill", description=__doc__)
    parser.add_argument("--messages", type=int, default=500, help="messages of each of the four batches")
    parser.add_argument("--json", type=Path, help="write the results there too")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="paquebot-drill-") as directory:
        try:
            results = asyncio.run(drills(Path(directory), asked.messages))
        except Failed as error:
            print(f"drill: {error}", file=sys.stderr)
            return 1
    if asked.json:
        asked.json.write_text(json.dumps([result.record() for result in results], indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
