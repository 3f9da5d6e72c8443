"""The names that a project's `pyproject.toml` gives to its own pools."""

from __future__ import annotations

from pathlib import Path

import pytest

from headway.audit.settings import names_near
from headway.errors import UsageError


def test_the_nearest_file_above_the_path_counts(tmp_path: Path) -> None:
    deep = tmp_path / "src" / "app"
    deep.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.headway.audit.names]\n"app.Pool" = ["lease connection"]\n'
    )
    assert names_near(str(deep)) == {"app.Pool": ["lease connection"]}
    assert names_near(str(deep / "not-there.py")) == {"app.Pool": ["lease connection"]}
    (deep / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert names_near(str(deep / "db.py")) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool", "cannot be read"),
        ("[tool.headway.audit]\nname = 1", "has 'name'; it may have names"),
        ("[tool.headway.audit]\nnames = 1", "must be a table, it is 1"),
        ("[tool.headway.audit.names]\nx = 'lease y'", "'x' must be a list of words"),
        ("[tool.headway.audit.names]\nx = [1]", "'x' must be a list of words"),
    ],
)
def test_a_table_that_is_not_well_formed_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(UsageError, match=said):
        names_near(str(tmp_path))
