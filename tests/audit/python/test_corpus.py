"""Every rule against small programs: 40 and more that are broken, 40 and more that are right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.audit.finding import Finding, Options
from headway.audit.python import FRONT_END

CORPUS = Path(__file__).parent / "corpus"
_MARK = re.compile(r"# bad: (\S+) (\S+)$")


def _cases(name: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Title and files of every case."""
    for part in (CORPUS / name).read_text().split("\n=== ")[1:]:
        title, _, body = part.partition("\n")
        files = {"case.py": body}
        if body.startswith("--- "):
            pieces = ("\n" + body).split("\n--- ")[1:]
            files = {path: text for path, _, text in (each.partition("\n") for each in pieces)}
        yield title, files


BROKEN = dict(_cases("broken.txt"))
CORRECT = dict(_cases("correct.txt"))


def judge(files: dict[str, str], root: Path) -> set[tuple[str, int, str, str]]:
    """Path, line, rule and verdict of all findings."""
    paths = []
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        paths.append(str(file))
    found = list(FRONT_END.scan(paths, Options(jobs=1)))
    assert all(isinstance(each, Finding) for each in found), found
    return {
        (Path(each.path).relative_to(root).as_posix(), each.line, each.rule, each.verdict)
        for each in found
        if isinstance(each, Finding)
    }


def expected(files: dict[str, str]) -> set[tuple[str, int, str, str]]:
    """What the marks in the files say."""
    return {
        (name, number, mark[1], mark[2])
        for name, text in files.items()
        for number, line in enumerate(text.split("\n"), 1)
        if (mark := _MARK.search(line))
    }


@pytest.mark.parametrize("title", BROKEN)
def test_a_broken_program_is_found_out_where_it_is_broken(title: str, tmp_path: Path) -> None:
    wanted = expected(BROKEN[title])
    assert wanted, "a broken case needs a mark"
    assert judge(BROKEN[title], tmp_path) == wanted


@pytest.mark.parametrize("title", CORRECT)
def test_a_correct_program_is_left_alone(title: str, tmp_path: Path) -> None:
    assert judge(CORRECT[title], tmp_path) == set()


def test_the_corpus_is_large_enough_and_knows_every_verdict() -> None:
    assert len(BROKEN) >= 40
    assert len(CORRECT) >= 40
    seen = {(rule, verdict) for files in BROKEN.values() for _, _, rule, verdict in expected(files)}
    assert seen == {(rule.id, verdict) for rule in FRONT_END.rules for verdict in rule.verdicts}
