"""The learned profile: what each request took and gave back, in order, as a model for `headway size`.

It does not search. From the first element an owner takes until it holds none is one request; equal
requests are one actor, whose count is how many were under way at once. A request that held one element at
a time cannot be part of a deadlock, and is left out.
"""

from __future__ import annotations

from headway.watch.ledger import Ledger


def model(ledger: Ledger) -> str | None:
    """A model file; None if no request held two elements."""
    return None
