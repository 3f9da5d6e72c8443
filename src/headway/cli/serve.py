"""`headway serve [NAME=]DEVICE...`: an NBD server in a hard memory limit."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from headway.cli.app import FLAG, Debug, Interrupted, Json
from headway.cli.console import bytes_text, print_json
from headway.errors import UsageError

if TYPE_CHECKING:
    from socket import socket

    from headway.edge.sockets import Listener
    from headway.server import Server, ServeReport


def command(
    devices: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]DEVICE...",
            help="What to serve: a path, memory:SIZE, zero:SIZE; without a name it is the default export.",
        ),
    ],
    listen: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PLACE",
            help="unix:PATH or tcp:[HOST]:PORT (no host: loopback). May be repeated.",
        ),
    ] = None,
    stdio: Annotated[
        bool,
        typer.Option("--stdio", metavar=FLAG, help="Serve the client on standard input, then end."),
    ] = False,
    memory: Annotated[
        str, typer.Option(metavar="SIZE", help="The limit of all buffers together.")
    ] = "64MiB",
    read_only: Annotated[
        bool, typer.Option("--read-only", metavar=FLAG, help="Let no client change anything.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Serve devices to NBD clients: nbdcopy, qemu, the kernel, any other.

    It ends on a signal: what clients have asked for is answered first, for at most four seconds.
    Under a supervisor that passes sockets on (LISTEN_FDS) it serves those.
    """
    from headway.edge import sockets

    places = listen or []
    if stdio and places:
        raise UsageError("--stdio serves one client on standard input: leave --listen out")
    connection = sockets.standard_input() if stdio else None
    listeners = [] if stdio else sockets.activated()
    if not (stdio or places or listeners):
        raise UsageError(
            "no place to listen: add --listen unix:PATH or --listen tcp::10809, or use --stdio"
        )
    report = _serve(_made(devices, places, listeners, memory, read_only), connection)
    if json:
        print_json(report)
    elif not stdio:
        _say(
            f"served {report.requests} requests on {report.connections} connections, at most "
            f"{bytes_text(report.memory_peak)} of {bytes_text(report.memory_limit)} in use"
        )


def _made(
    devices: list[str],
    places: list[str],
    listeners: list[Listener],
    memory: str,
    read_only: bool,
) -> Server:
    """A server that has everything it needs; if something cannot be had, nothing is left."""
    from headway.edge import sockets
    from headway.server import Server, open_exports

    try:
        for place in places:
            listeners.append(sockets.listen(place))
        exports = open_exports(devices, read_only=read_only)
        server = Server(exports, memory=memory, read_only=read_only)
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    for listener in listeners:
        server.add_listener(listener)
        if listener.exposed:
            _say(
                f"warning: {listener.shown} can be reached from other machines, and nothing is "
                "encrypted or asked for a password: use a Unix socket or loopback if that is not meant"
            )
    return server


def _serve(server: Server, connection: socket | None) -> ServeReport:
    """Serve until a signal comes, or the one client has gone."""
    import gc

    if connection is not None:
        server.add_connection(connection)
    gc.collect()
    gc.freeze()  # what is there now stays: the collector need not look at it again
    try:
        server.start()
        for uri in server.uris:
            _say(f"serving {uri}")
        server.wait()
    except (KeyboardInterrupt, Interrupted):
        pass  # the ordinary end of a server
    finally:
        report = server.stop()
    return report


def _say(text: str) -> None:
    print(f"headway: {text}", file=sys.stderr, flush=True)
