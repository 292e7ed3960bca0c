"""Run in a pod, with its own NATS user: publish to, or subscribe to, each subject given as `pub:` or `sub:`.

Prints as JSON which of them the server refused (its error names the subject). The client reports an error some time
after it came, but in order: the last thing asked is one that no user may do, and all is known when that is refused.
"""

import asyncio
import json
import os
import sys

import nats

_FORBIDDEN = "forbidden.to.everybody"


def _refusal(asked: str) -> str:
    verb, _, subject = asked.partition(":")
    return f'permissions violation for {"subscription" if verb == "sub" else "publish"} to "{subject.lower()}"'


async def main() -> None:
    errors: list[str] = []
    all_known = asyncio.Event()

    async def note(error: Exception) -> None:
        errors.append(str(error).lower())
        if _FORBIDDEN in errors[-1]:
            all_known.set()

    user = os.environ["PAQUEBOT_NATS_USER"]
    client = await nats.connect(
        os.environ["PAQUEBOT_NATS_URL"],
        user=user,
        password=os.environ["PAQUEBOT_NATS_PASSWORD"],
        inbox_prefix=f"_INBOX.{user}".encode(),
        error_cb=note,
    )
    for asked in (*sys.argv[1:], f"pub:{_FORBIDDEN}"):
        verb, _, subject = asked.partition(":")
        if verb == "sub":
            await client.subscribe(subject)
        else:
            await client.publish(subject, b"{}")
    await asyncio.wait_for(all_known.wait(), 10)
    print(json.dumps([asked for asked in sys.argv[1:] if any(_refusal(asked) in error for error in errors)]))
    await client.close()


asyncio.run(main())
