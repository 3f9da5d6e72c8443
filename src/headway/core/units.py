"""What a size written by a person means in bytes, and how bytes are written for a person.

It knows binary units only. ``64M`` and ``64MB`` are refused rather than guessed: half of the
world's tools read them as 10**6, the other half as 2**20, and a memory limit must not depend on
the reader. A fraction is accepted if it gives a whole number of bytes (``1.5MiB``), never rounded.

Source: IEC 80000-13 (KiB = 1024 bytes, and so on).
"""

from __future__ import annotations

import re
from typing import Final

from headway.errors import UsageError

UNITS: Final = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
LIMIT: Final = 1 << 63  # what an off_t cannot hold is no size

_SIZE: Final = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,19}))?\s*([A-Za-z]*)")
_LOWER: Final = {unit.lower(): unit for unit in UNITS}
_LOOSE: Final = {
    letter + tail: letter.upper() + "iB" for letter in "kmgt" for tail in ("", "b", "i")
}


def parse_size(size: int | str, what: str = "size") -> int:
    """Read a size: an int is bytes, a string is ``"4096"``, ``"64KiB"``, ``"1.5MiB"``, ``"1GiB"``.

    `what` names the argument in the error message. Upper and lower case are the same.

    >>> parse_size("64KiB")
    65536

    Raises: UsageError if it is not a size, is negative, is no whole number of bytes, or has a unit
    that may mean two things.
    """
    if isinstance(size, bool) or not isinstance(size, (int, str)):
        kind = type(size).__name__
        raise UsageError(
            f"{what} is {size!r}, a {kind}; give bytes as an int, or a string like '64MiB'"
        )
    count = size if isinstance(size, int) else _parse(size, what)
    if count < 0:
        raise UsageError(f"{what} is {size!r}; it must not be negative")
    if count >= LIMIT:
        raise UsageError(f"{what} is {size!r}; the largest size is 2**63 - 1 bytes")
    return count


def _parse(text: str, what: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{what} is {text!r}; write it like '4096', '64KiB', '1.5MiB' or '1GiB'")
    whole, fraction, suffix = match[1], match[2] or "", match[3]
    unit = _LOWER.get(suffix.lower())
    if unit is None:
        meant = _LOOSE.get(suffix.lower())
        hint = (
            f"write '{whole}{meant}' for binary units"
            if meant
            else "units are B, KiB, MiB, GiB, TiB"
        )
        raise UsageError(f"{what} is {text!r}, and {suffix!r} is no unit here; {hint}")
    denominator = int("1" + "0" * len(fraction))
    scaled, rest = divmod(int(whole + fraction) * UNITS[unit], denominator)
    if rest:
        raise UsageError(f"{what} is {text!r}, which is no whole number of bytes")
    return scaled


def format_size(size_bytes: int) -> str:
    """Write a size in the largest unit that fits, exactly if one decimal does, else rounded down.

    >>> format_size(1536), format_size(8 << 20), format_size(1000)
    ('1.5KiB', '8MiB', '1000B')
    """
    if size_bytes < 0:
        return "-" + format_size(-size_bytes)
    name, unit = "B", 1
    for name_, unit_ in UNITS.items():
        if size_bytes >= unit_ > 1:
            name, unit = name_, unit_
    tenths = size_bytes * 10 // unit
    whole, tenth = divmod(tenths, 10)
    return f"{whole}.{tenth}{name}" if tenth else f"{whole}{name}"
