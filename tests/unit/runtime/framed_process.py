"""A small service, for tests that run it as a process: `python framed_process.py <what main does>`."""

import asyncio
import json
import sys
import threading
from dataclasses import dataclass

from paquebot.runtime.engine_settings import ProcessSettings, TlsSettings
from paquebot.runtime.net.tls import ServerTls
from paquebot.runtime.process.service import Context, run
from paquebot.runtime.settings import Seconds, setting


@dataclass(frozen=True, slots=True)
class FramedSettings:
    process: ProcessSettings
    tls: TlsSettings
    wait: Seconds = setting("FRAMED_WAIT", Seconds(1.0))


async def main(context: Context, settings: FramedSettings) -> None:
    if settings.tls.certificate is not None:
        ServerTls(settings.tls)
    context.started()
    await context.draining.wait()
    match sys.argv[1]:
        case "never_ends":
            await asyncio.Event().wait()
        case "ignores_cancellation":
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    continue
        case "leaves_a_thread":
            await asyncio.to_thread(threading.Event().wait)
        case "leaves_a_thread_behind":
            asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
        case "tells_the_switch_interval":
            print(json.dumps({"event": "switch_interval", "seconds": sys.getswitchinterval()}), flush=True)
        case "blocks_the_loop":
            threading.Event().wait()


if __name__ == "__main__":
    sys.exit(run("framed", FramedSettings, main))
