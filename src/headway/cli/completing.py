"""What the shell is offered where an option or argument takes one of a few names.

It decides nothing: the names are those of the parts themselves, imported when somebody asks.
"""

from __future__ import annotations


def layers(incomplete: str) -> list[str]:
    """Names of layers; what comes after the first comma is the layer's own."""
    from headway.core.block.layers import LAYERS

    return [name for name in LAYERS if name.startswith(incomplete)]


def rules(incomplete: str) -> list[tuple[str, str]]:
    """Names of audit rules, with their titles."""
    from headway.audit.scan import rules as known

    return [(rule.id, rule.title) for rule in known() if rule.id.startswith(incomplete)]


def incidents(incomplete: str) -> list[tuple[str, str]]:
    """Incidents, with their titles."""
    from headway.incidents import INCIDENTS

    return [(one.id, one.title) for one in INCIDENTS if one.id.startswith(incomplete)]


def fixes(incomplete: str) -> list[str]:
    """Names of fixes, each once: several incidents share some."""
    from headway.incidents import INCIDENTS

    found = dict.fromkeys(fix.name for one in INCIDENTS for fix in one.fixes)
    return [name for name in found if name.startswith(incomplete)]
