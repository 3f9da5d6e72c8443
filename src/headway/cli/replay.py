"""`headway replay`: the incidents of the kernel threads, broken or with a fix, event by event."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headway.cli import console
from headway.cli.app import Debug, Json
from headway.cli.completing import fixes, incidents
from headway.errors import UsageError


def command(
    incident: Annotated[
        str | None,
        typer.Argument(
            metavar="INCIDENT", autocompletion=incidents, help="Which; without, all are listed."
        ),
    ] = None,
    fix: Annotated[
        str | None,
        typer.Option(
            "--fix", metavar="NAME", autocompletion=fixes, help="Replay it with this fix."
        ),
    ] = None,
    svg: Annotated[
        Path | None,
        typer.Option("--svg", metavar="FILE", help="Draw it, too, with a lane for each actor."),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Replay an incident on the real pools. Exit status: 0 if it ends as documented, 1 if not."""
    from headway import incidents

    if incident is None:
        if fix is not None:
            raise UsageError(f"--fix {fix} needs an incident: headway replay INCIDENT --fix {fix}")
        if svg is not None:
            raise UsageError(f"--svg {svg} needs an incident: headway replay INCIDENT --svg {svg}")
        return _list(as_json)
    found = incidents.find(incident, fix)
    events, ended = found.run(fix)
    expected = found.documented(fix)
    if as_json:
        rows = [{"actor": e.actor, "action": e.action, "result": e.result} for e in events]
        console.print_json(
            {"id": found.id, "fix": fix, "events": rows, "ended": ended, "documented": expected}
        )
    else:
        console.say(f"{found.id}, {'with ' + fix if fix else 'broken'}: {found.title}")
        for number, event in enumerate(events, 1):
            console.say(f"  {number:2}  {event}")
        verdict = "as documented" if ended == expected else f"documented is: {expected}"
        console.say(f"ends in: {ended} ({verdict})")
        if fix is None:
            console.say(f"fixes: {', '.join(its.name for its in found.fixes)}")
    if svg is not None:  # last: a picture that cannot be written does not cost the replay
        from headway.incidents.picture import svg as drawn

        title = f"{found.id}, {'with ' + fix if fix else 'broken'}: {found.title}"
        console.write_page(svg, drawn(title, events, ended))
    return 0 if ended == expected else 1


def _list(as_json: bool) -> int:
    from headway import incidents

    if as_json:
        console.print_json(incidents.listing())
        return 0
    for incident in incidents.INCIDENTS:
        console.say(f"{incident.id:6} {incident.title}")
        for fix in incident.fixes:
            console.say(f"         --fix {fix.name:20} {fix.title}")
    return 0
