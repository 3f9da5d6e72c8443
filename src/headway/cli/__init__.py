"""The command `headway`: one file per subcommand, what they share in `headway.cli.app`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command and exit; without the extra `cli`, one line says what to install."""
    try:
        import typer  # noqa: F401 - only asks whether it is there
    except ImportError:
        from headway.errors import MissingExtra

        print(f"headway: {MissingExtra('the command', 'cli')}", file=sys.stderr)
        sys.exit(1)
    from headway.cli.app import run

    sys.exit(run(sys.argv[1:]))
