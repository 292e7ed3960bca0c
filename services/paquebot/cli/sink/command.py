"""The command `paquebot sink`: its options."""

import ipaddress
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paquebot.cli.sink.record import Recorder
from paquebot.cli.sink.rules import RecipientRules, folded
from paquebot.cli.waiting import parse_duration
from paquebot.runtime.settings import ByteSize, Listen, parse_bytes, parse_listen

if TYPE_CHECKING:
    from paquebot.cli.sink.server import Sink, SinkOptions

_LISTEN = "127.0.0.1:2526"


def _address_and_port(text: str) -> Listen:
    try:
        listen = parse_listen(text)
        host = "127.0.0.1" if listen.host == "localhost" else listen.host
        return Listen(str(ipaddress.ip_address(host)), listen.port)
    except ValueError:
        raise typer.BadParameter(f"{text!r} must be an IP address and a port, such as {_LISTEN}") from None


def _mailbox(text: str) -> str:
    local, _, domain = text.rpartition("@")
    if not local or not domain:
        raise typer.BadParameter(f"{text!r} must be an address such as carol@example.net")
    return text


def _domain(text: str) -> str:
    if not text or "@" in text or not text.isprintable() or " " in text:
        raise typer.BadParameter(f"{text!r} must be a domain such as example.net")
    return text


def _size(text: str) -> ByteSize:
    try:
        size = parse_bytes(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if size <= 0:
        raise typer.BadParameter("must be above zero")
    return size


def sink_command(
    listen: Annotated[
        Listen,
        typer.Option(parser=_address_and_port, metavar="HOST:PORT", help="Where to listen; port 0 for a free one."),
    ] = _LISTEN,  # type: ignore[assignment]
    anywhere: Annotated[
        bool, typer.Option("--anywhere", help="Permit a --listen address that other machines can reach.")
    ] = False,
    domain: Annotated[
        list[str] | None,
        typer.Option(
            parser=_domain,
            metavar="DOMAIN",
            help="Take mail for this domain only and greet with its name; repeat it for several. Default: any domain.",
        ),
    ] = None,
    directory: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep each message as a file DIR/*.eml, byte for byte.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each message: envelope, options, size, time.")
    ] = False,
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="With --json: this header field, too; repeatable.")
    ] = None,
    refuse: Annotated[
        list[str] | None,
        typer.Option(parser=_mailbox, metavar="ADDRESS", help="Refuse this recipient for good (550); repeatable."),
    ] = None,
    defer: Annotated[
        list[str] | None,
        typer.Option(parser=_mailbox, metavar="ADDRESS", help="Defer this recipient each time (451); repeatable."),
    ] = None,
    greylist: Annotated[
        float,
        typer.Option(
            parser=parse_duration,
            metavar="TIME",
            help="Defer each new pair of sender and recipient for this time, such as 30s.",
        ),
    ] = "0s",  # type: ignore[assignment]
    max_size: Annotated[
        ByteSize, typer.Option(parser=_size, metavar="SIZE", help="Maximum size of a message (552 above it).")
    ] = "10MiB",  # type: ignore[assignment]
    count: Annotated[int, typer.Option(min=0, metavar="N", help="Exit after N messages; 0: serve until Ctrl-C.")] = 0,
) -> None:
    """Take every message over SMTP and print its envelope and subject: the mail server of another domain, to try the
    relay with.

    With a platform on this machine:

        paquebot sink --domain example.net

        PAQUEBOT_RELAY_ROUTES='example.net=[127.0.0.1]:2526' paquebot up

    Messages are printed to standard output; everything else, such as a refused recipient, to standard error. The exit
    code is 0, or 1 when it cannot listen or print, or when fewer than --count messages came.
    """
    if not anywhere and not ipaddress.ip_address(listen.host).is_loopback:
        raise typer.BadParameter(f"other machines can reach {listen}: permit it with --anywhere")
    if header and not as_json:
        raise typer.BadParameter("--header needs --json")
    both = {folded(address) for address in refuse or ()} & {folded(address) for address in defer or ()}
    if both:
        raise typer.BadParameter(f"{min(both)} must not be both refused and deferred")
    _make(directory)
    # Imported here, so that no other command loads aiosmtpd.
    from paquebot.cli.sink.server import Sink, SinkOptions

    options = SinkOptions(listen, domain[0] if domain else "localhost", max_size, count)
    rules = RecipientRules(domains=domain or (), refused=refuse or (), deferred=defer or (), greylist=greylist)
    recorder = Recorder(directory, as_json=as_json, headers=header or ())
    _run(Sink(options, rules, recorder), options)


def _make(directory: Path | None) -> None:
    if directory is None:
        return
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        _fail(f"cannot make the directory {directory}: {error.strerror}")
    if not os.access(directory, os.W_OK | os.X_OK):
        _fail(f"cannot write into {directory}")


def _run(sink: "Sink", options: "SinkOptions") -> None:
    # aiosmtpd logs what clients send as it is, which a terminal would obey; the handler reports faults.
    logging.getLogger("mail.log").setLevel(logging.CRITICAL)
    try:
        try:
            place = sink.open()
        except OSError as error:
            _fail(f"cannot listen on {options.listen}: {os.strerror(error.errno) if error.errno else error}")
        for number in (signal.SIGINT, signal.SIGTERM):
            sink.loop.add_signal_handler(number, sink.stop)
        typer.echo(f"listening on {place}; Ctrl-C stops it", err=True)
        sink.serve()
    finally:
        sink.close()
    received, fault = sink.handler.received, sink.handler.fault
    if fault is not None:
        if isinstance(fault, BrokenPipeError):  # Python would complain when it flushes standard output at its exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _fail(f"cannot print: {fault.strerror}")
    if received < options.count:
        _fail(f"{received} of {options.count} messages came")
    typer.echo(f"{received} {'message' if received == 1 else 'messages'}", err=True)


def _fail(text: str) -> None:
    typer.echo(f"paquebot: {text}", err=True)
    raise typer.Exit(1)
