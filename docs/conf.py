"""How the documentation is built: Markdown by MyST, docstrings by autodoc, strictly."""

from __future__ import annotations

import tomllib
from pathlib import Path

_project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]

project = "headway"
author = "the headway authors"
copyright = f"2026, {author}"
version = release = _project["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.doctest"]
exclude_patterns = ["_build", "**/_template.md"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
default_role = "py:obj"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}

doctest_test_doctest_blocks = (
    ""  # only what says it is a test; plain examples in docstrings are not
)
doctest_global_setup = "import headway as hw"

html_theme = "furo"
html_title = f"headway {release}"
