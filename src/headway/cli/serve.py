"""`headway serve [NAME=]DEVICE...`: an NBD server in a hard memory limit."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headway.cli.app import FLAG, Debug, Interrupted, Json
from headway.cli.completing import layers
from headway.cli.console import bytes_text, print_json
from headway.errors import UsageError

if TYPE_CHECKING:
    from socket import socket

    from headway.edge.daemon import DaemonMode, Protection
    from headway.edge.sockets import Listener
    from headway.server import Server, ServeReport

_Devices = Annotated[
    list[str],
    typer.Argument(
        metavar="[NAME=]DEVICE",
        help="A path, an NBD URI, memory:, zero: or null:SIZE; without a name it is the default export.",
    ),
]
_Layers = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME[,key=value]...",
        autocompletion=layers,
        help="A layer to serve each device through; may be repeated, the outermost last.",
    ),
]
_Daemon = Annotated[
    bool,
    typer.Option(
        "--daemon-mode",
        metavar=FLAG,
        help="Lock memory, be spared by the OOM killer, cause no I/O for memory; say what holds.",
    ),
]
_Certificates = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Where server-cert.pem and server-key.pem are."),
]
_Keys = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Keys instead of certificates: lines USER:HEX."),
]
_Places = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PLACE",
        help="unix:PATH or tcp:[HOST]:PORT (no host: loopback). May be repeated.",
    ),
]


def command(
    devices: _Devices,
    layer: _Layers = None,
    listen: _Places = None,
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
    tls: Annotated[
        str,
        typer.Option(metavar="off|on|require", help="Whether clients may, or have to, use TLS."),
    ] = "off",
    tls_certificates: _Certificates = None,
    tls_psk: _Keys = None,
    daemon_mode: _Daemon = False,
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
    options = {
        "layers": layer or [],
        "memory": memory,
        "read_only": read_only,
        "tls": tls,
        "tls_certificates": tls_certificates,
        "tls_psk": tls_psk,
    }
    with _protected(daemon_mode) as daemon:  # before there are threads, which inherit it
        server = _made(devices, places, listeners, options)
        report, found = _serve(server, connection, daemon)
    if json:
        print_json({**asdict(report), **found})
    elif not stdio:
        _say(
            f"served {report.requests} requests on {report.connections} connections, at most "
            f"{bytes_text(report.memory_peak)} of {bytes_text(report.memory_limit)} in use"
        )


def _made(
    devices: list[str],
    places: list[str],
    listeners: list[Listener],
    options: dict[str, Any],
) -> Server:
    """A server that has everything it needs; if something cannot be had, nothing is left."""
    from headway.core.units import parse_size
    from headway.edge import sockets
    from headway.edge.psk import exposed
    from headway.edge.serving.secure import exposed_key
    from headway.exports import open_exports
    from headway.server import Server

    layers = options.pop("layers")
    try:
        for place in places:
            listeners.append(sockets.listen(place))
        memory = parse_size(options["memory"], "memory")
        exports = open_exports(
            devices, read_only=options["read_only"], layers=layers, memory=memory
        )
        try:
            server = Server(exports, **options)
        except BaseException:
            exports.close()
            raise
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    if options["tls_certificates"] and (key := exposed_key(options["tls_certificates"])):
        _say(f"warning: {key} can be read by others: chmod 600 it")
    if options["tls_psk"] and (key := exposed(options["tls_psk"])):
        _say(f"warning: {key} can be read by others: chmod 600 it")
    for listener in listeners:
        server.add_listener(listener)
        if listener.exposed and options["tls"] != "require":
            _say(
                f"warning: {listener.shown} can be reached from other machines, and nothing "
                "has to be encrypted: use --tls require, or a Unix socket or loopback"
            )
    return server


def _serve(
    server: Server, connection: socket | None, daemon: DaemonMode | None
) -> tuple[ServeReport, dict[str, Any]]:
    """Serve until a signal comes, or the one client has gone; what daemon mode found, if it is on."""
    import gc

    found: dict[str, Any] = {}
    if connection is not None:
        server.add_connection(connection)
    gc.collect()
    gc.freeze()  # what is there now stays: the collector need not look at it again
    try:
        if daemon is not None:
            found["protections"] = [asdict(one) for one in _settled(server, daemon)]
        server.start()
        for uri in server.uris:
            _say(f"serving {uri}")
        server.wait()
    except (KeyboardInterrupt, Interrupted):
        pass  # the ordinary end of a server
    finally:
        if daemon is not None:
            found["steady"] = asdict(daemon.steady())
            _say(f"daemon mode: since the start {daemon.steady()}")
        report = server.stop()
    return report, {"daemon_mode": found} if found else {}


@contextmanager
def _protected(wanted: bool) -> Iterator[DaemonMode | None]:
    if not wanted:
        yield None
        return
    from headway.edge.daemon import DaemonMode
    from headway.edge.process import IoFlusher
    from headway.runtimes.scopes import noio

    with DaemonMode(IoFlusher(noio(), required=False, warns=False)) as daemon:
        yield daemon


def _settled(server: Server, daemon: DaemonMode) -> list[Protection]:
    """The self-test, shown; from now on SIGUSR1 shows what was allocated since."""
    found = daemon.settle(server.touch)
    for protection in found:
        _say(f"daemon mode: {protection}")
    signal.signal(
        signal.SIGUSR1, lambda *_: _say(f"daemon mode: since the start {daemon.steady()}")
    )
    return found


def _say(text: str) -> None:
    print(f"headway: {text}", file=sys.stderr, flush=True)
