"""A name for a finding that survives shifted lines, and the baseline made of such names.

Decides what makes two findings of two runs the same: path, rule, function, the call's own text and
its number among equal ones. A finding whose verdict became another one is new in a baseline.

Source: SARIF 2.1.0, section 3.27.17 (partial fingerprints).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headway.audit.finding import Finding
from headway.errors import UsageError

__all__ = ["fingerprints", "read_baseline", "write_baseline"]

_VERSION = 1


def fingerprints(findings: Sequence[Finding]) -> list[str]:
    """One per finding, in their order."""
    seen: dict[tuple[str, ...], int] = {}
    out = []
    for finding in findings:
        site = "".join(finding.site.split())
        key = (finding.path, finding.rule, finding.function, site)
        seen[key] = seen.get(key, 0) + 1
        text = "\0".join([*key, str(seen[key])])
        out.append(hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32])
    return out


def write_baseline(path: Path, findings: Sequence[Finding]) -> None:
    """Keep these findings as known; the file is text that merges well, one finding a line."""
    rows = [
        {"fingerprint": name, "verdict": f.verdict, "path": f.path, "function": f.function}
        for name, f in zip(fingerprints(findings), findings, strict=True)
    ]
    lines = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text(f'{{"version": {_VERSION}, "findings": [\n{lines}\n]}}\n', encoding="utf-8")


def read_baseline(path: Path) -> set[tuple[str, str]]:
    """Fingerprint and verdict of each known finding.

    Raises: UsageError if the file is missing or is no baseline.
    """
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
        if found["version"] != _VERSION:
            raise KeyError("version")
        return {(row["fingerprint"], row["verdict"]) for row in found["findings"]}
    except OSError as error:
        raise UsageError(
            f"baseline {path}: {error.strerror}; --update-baseline writes one"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UsageError(
            f"baseline {path} is not one of version {_VERSION}; --update-baseline writes one"
        ) from None
