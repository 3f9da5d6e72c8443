"""Every example in a docstring runs."""

from __future__ import annotations

import doctest
import importlib

import pytest

from tests.house import tree

WITH_EXAMPLES = [name for name, path in tree.modules().items() if ">>> " in path.read_text()]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of(name: str) -> None:
    ran = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert ran.attempted and not ran.failed, f"{name}: {ran}; what differs is printed above"
