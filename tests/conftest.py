"""How much Hypothesis tries: a little each run, the same each time in CI, much on request."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("quick", max_examples=50, deadline=None, print_blob=True)
settings.register_profile("ci", settings.get_profile("quick"), derandomize=True)
settings.register_profile(
    "fuzz", settings.get_profile("quick"), max_examples=3000, stateful_step_count=100
)
settings.load_profile("ci" if os.environ.get("CI") else "quick")
