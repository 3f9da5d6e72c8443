"""`headway copy SRC DST`: move a device's data in a hard memory limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headway.cli.app import FLAG, Debug, Json
from headway.cli.completing import layers
from headway.cli.console import bytes_text, print_json, progress_bar, say

if TYPE_CHECKING:
    from headway.copying import CopyReport

_PLACE = "a path, an NBD URI, memory:SIZE, zero:SIZE or null:[SIZE]"

Layers = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LAYER",
        autocompletion=layers,
        help="A layer on DST, NAME,key=value; repeat it, outermost last.",
    ),
]
SourceLayers = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LAYER",
        autocompletion=layers,
        help="A layer on SRC (crypt, qcow2, verity...); repeat it, outermost last.",
    ),
]


def command(
    src: Annotated[str, typer.Argument(metavar="SRC", help=f"What to copy: {_PLACE}.")],
    dst: Annotated[
        str, typer.Argument(metavar="DST", help="Where to; a file appears only when complete.")
    ],
    layer: Layers = None,
    source_layer: SourceLayers = None,
    memory: Annotated[
        str, typer.Option(metavar="SIZE", help="The limit of all buffers together.")
    ] = "64MiB",
    in_flight: Annotated[
        int | None, typer.Option(metavar="N", help="Most requests at once (8 if memory allows).")
    ] = None,
    request_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Bytes per request, a multiple of 4096 (1MiB)."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", metavar=FLAG, help="Read DST back, in the same limit.")
    ] = False,
    no_hash: Annotated[
        bool, typer.Option("--no-hash", metavar=FLAG, help="Do not compute SHA-256.")
    ] = False,
    starve: Annotated[
        bool,
        typer.Option(
            "--starve", metavar=FLAG, help="Let every allocation beyond the reserves fail."
        ),
    ] = False,
    preserve: Annotated[
        bool, typer.Option("--preserve", metavar=FLAG, help="Keep the source's mode and times.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Copy SRC to DST in a hard memory limit; holes stay holes.

    DST appears under its name only when complete and on stable storage. Whatever goes wrong before
    that leaves an old DST untouched and nothing behind. A block device is written in place.
    """
    from headway.copying import copy

    with progress_bar() as progress:
        report = copy(
            src,
            dst,
            memory=memory,
            in_flight=in_flight,
            request_size=request_size,
            verify=verify,
            hash=not no_hash,
            starve=starve,
            preserve=preserve,
            layers=layer or (),
            source_layers=source_layer or (),
            progress=progress,
        )
    print_json(report) if json else _print_text(report)


def _print_text(report: CopyReport) -> None:
    rate = report.bytes / report.seconds if report.seconds else 0.0
    say(
        f"copied {bytes_text(report.bytes)} in {report.seconds:.2f} s ({bytes_text(rate)}/s)"
        f"{', read back and equal' if report.verified else ''}"
    )
    if report.sha256 is not None:
        say(f"sha256 {report.sha256}")
    say(
        f"memory: at most {bytes_text(report.memory_peak)} of {bytes_text(report.memory_limit)} "
        f"leased; reserve used {report.reserve_uses} times, {report.waits} waits, "
        f"longest {report.longest_wait_s * 1000:.1f} ms"
    )
