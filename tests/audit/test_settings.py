"""The names that a project's `pyproject.toml` gives to its own pools."""

from __future__ import annotations

from pathlib import Path

import pytest

from headway.audit.finding import Options
from headway.audit.scan import audit
from headway.audit.settings import settings_near
from headway.errors import UsageError


def test_the_nearest_file_above_the_path_counts(tmp_path: Path) -> None:
    deep = tmp_path / "src" / "app"
    deep.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.headway.audit.names]\n"app.Pool" = ["lease connection"]\n'
    )
    assert settings_near(str(deep)).names == {"app.Pool": ["lease connection"]}
    assert settings_near(str(deep / "not-there.py")).names == {"app.Pool": ["lease connection"]}
    (deep / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert settings_near(str(deep / "db.py")).names == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool", "cannot be read"),
        ("[tool.headway.audit]\nname = 1", "has 'name'; it may have names and purposes"),
        ("[tool.headway.audit]\nnames = 1", "must be a table, it is 1"),
        ("[tool.headway.audit.names]\nx = 'lease y'", "'x' must be a list of words"),
        ("[tool.headway.audit.names]\nx = [1]", "'x' must be a list of words"),
    ],
)
def test_a_table_that_is_not_well_formed_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(UsageError, match=said):
        settings_near(str(tmp_path))


SCRATCH = """
int fill_scratch(struct dev *d)
{
	d->page = alloc_page(GFP_KERNEL | __GFP_NORETRY);
	if (!d->page)
		return -ENOMEM;
	return 0;
}
"""


def test_a_purpose_of_the_project_excuses_a_failure(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text(SCRATCH)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.headway.audit.purposes]\nfailure-tolerated = ["scratch"]\n'
    )
    own = settings_near(str(tmp_path)).purposes
    found = [
        audit(
            [str(tmp_path / "a.c")], Options(purposes=purposes, cache=tmp_path / "store")
        ).findings
        for purposes in ({}, own, {"failure-tolerated": ["cratch"]})
    ]
    verdicts = [[(f.verdict, f.bug) for f in each] for each in found]
    assert verdicts[0] == verdicts[2] == [("bug-missing-fallback", True)]
    assert verdicts[1] == [("failure-tolerated", False)]
    assert "the project's settings say so of 'scratch'" in found[1][0].message


@pytest.mark.parametrize(
    ("purposes", "said"),
    [
        ({"bug-missing-fallback": ["x"]}, "is no verdict; it may be disables-feature"),
        ({"failure-tolerated": ["a b"]}, "'a b', which is no word of letters"),
    ],
)
def test_a_purpose_that_means_nothing_is_refused(
    purposes: dict[str, list[str]], said: str, tmp_path: Path
) -> None:
    (tmp_path / "a.c").write_text(SCRATCH)
    with pytest.raises(UsageError, match=said):
        audit([str(tmp_path / "a.c")], Options(purposes=purposes))
