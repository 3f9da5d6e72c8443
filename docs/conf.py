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


def _draw_incidents(app: object) -> None:
    """The pictures on the pages of incidents: drawn from a replay, so that they show what is printed beside them."""
    from headway.incidents import INCIDENTS
    from headway.incidents.picture import svg

    pictures = Path(__file__).parent / "incidents" / "pictures"
    pictures.mkdir(exist_ok=True)
    for incident in INCIDENTS:
        events, ended = incident.run()
        title = f"{incident.id}, broken: {incident.title}"
        path = pictures / f"{incident.id.lower()}.svg"
        path.write_text(svg(title, events, ended), encoding="utf-8")


def setup(app: object) -> None:
    app.connect("builder-inited", _draw_incidents)  # type: ignore[attr-defined]
