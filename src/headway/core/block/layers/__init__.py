"""The layers, one file each, by the name they have in a specification.

To add one: copy `linear`, and enter it here; `docs/howto/write-a-layer.md` has the whole of it.

>>> sorted(LAYERS)
['bounce', 'delay', 'error', 'flaky', 'linear', 'mirror', 'stripe']
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from headway.core.block.layers import bounce, delay, error, flaky, linear, mirror, stripe
from headway.core.block.spec import Maker

LAYERS: Final[Mapping[str, Maker]] = {
    "bounce": bounce.make,
    "delay": delay.make,
    "error": error.make,
    "flaky": flaky.make,
    "linear": linear.make,
    "mirror": mirror.make,
    "stripe": stripe.make,
}
