"""The layers, one file each, by the name they have in a specification.

To add one: copy `linear`, and enter it here; `docs/howto/write-a-layer.md` has the whole of it.

>>> sorted(LAYERS)  # doctest: +NORMALIZE_WHITESPACE
['bounce', 'crypt', 'delay', 'ebs', 'error', 'flaky', 'integrity', 'linear', 'mirror', 'qcow2', 'stripe', 'thin',
 'verity', 'writecache']
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from headway.core.block.layers import (
    bounce,
    crypt,
    delay,
    ebs,
    error,
    flaky,
    integrity,
    linear,
    mirror,
    qcow2,
    stripe,
    thin,
    verity,
    writecache,
)  # fmt: skip
from headway.core.block.spec import Recipe

LAYERS: Final[Mapping[str, Recipe]] = {
    "bounce": Recipe(bounce.make),
    "crypt": Recipe(crypt.make, crypt.room),
    "delay": Recipe(delay.make),
    "ebs": Recipe(ebs.make),
    "error": Recipe(error.make),
    "flaky": Recipe(flaky.make),
    "integrity": Recipe(integrity.make, integrity.room),
    "linear": Recipe(linear.make, linear.room),
    "mirror": Recipe(mirror.make),
    "qcow2": Recipe(qcow2.make),
    "stripe": Recipe(stripe.make, stripe.room),
    "thin": Recipe(thin.make, thin.room),
    "verity": Recipe(verity.make, verity.room),
    "writecache": Recipe(writecache.make, writecache.room),
}
