"""Incidents of the kernel threads, replayed on the real pools: broken, and with each fix.

>>> find("m-vllm").title
'two requests hold all blocks of the cache, and each needs one more'
"""

from __future__ import annotations

from typing import Any

from headway.errors import UsageError
from headway.incidents import (
    all_dirty,
    e_000,
    e_001,
    e_001b,
    e_001c,
    e_002,
    e_003,
    e_d0,
    e_d1,
    e_d2,
    e_kmap,
    e_loop,
    e_rescue,
    m_exec,
    m_nest,
    m_release,
    m_spill,
    m_vllm,
)
from headway.incidents.stage import Incident

INCIDENTS = (
    e_d0.INCIDENT,
    e_d1.INCIDENT,
    e_d2.D2,
    e_d2.D2B,
    e_000.E000,
    e_000.E000B,
    e_000.E000C,
    e_000.E000D,
    all_dirty.INCIDENT,
    e_kmap.INCIDENT,
    e_loop.INCIDENT,
    e_001.INCIDENT,
    e_001b.INCIDENT,
    e_001c.INCIDENT,
    e_002.E002,
    e_002.E002B,
    e_003.INCIDENT,
    e_rescue.INCIDENT,
    m_nest.INCIDENT,
    m_exec.INCIDENT,
    m_vllm.INCIDENT,
    m_spill.INCIDENT,
    m_release.INCIDENT,
)


def find(name: str, fix: str | None = None) -> Incident:
    """The incident of that id, in any case of letters.

    Raises: UsageError if there is no such incident, or it has no such fix.
    """
    for incident in INCIDENTS:
        if incident.id.lower() == name.lower():
            break
    else:
        ids = ", ".join(incident.id for incident in INCIDENTS)
        raise UsageError(f"incident {name!r} is not known; there are {ids}")
    names = [its.name for its in incident.fixes]
    if fix is not None and fix not in names:
        raise UsageError(f"incident {incident.id} has no fix {fix!r}; it has {', '.join(names)}")
    return incident


def listing() -> dict[str, Any]:
    """All incidents and their fixes, as the command prints them in JSON."""
    return {
        "incidents": [
            {
                "id": incident.id,
                "title": incident.title,
                "fixes": [{"name": its.name} for its in incident.fixes],
            }
            for incident in INCIDENTS
        ]
    }
