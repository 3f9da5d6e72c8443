"""The Python front end: which files it reads, what it survives, and what configuration adds."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from headway.audit.finding import Finding, Options, Skipped
from headway.audit.python import FRONT_END, candidates
from headway.audit.python.front import _survive
from headway.audit.python.presets import SHAPES
from headway.audit.python.reading import Batch
from headway.errors import UsageError

NESTED = (
    "import threading\nlock = threading.Lock()\ndef f():\n    with lock:\n        with lock: pass\n"
)
ROOT = Path(__file__).parents[3]


def scan(paths: Sequence[Path], **options: object) -> tuple[list[Finding], list[Skipped]]:
    found = list(FRONT_END.scan([str(p) for p in paths], Options(jobs=1, **options)))  # type: ignore[arg-type]
    return (
        [each for each in found if isinstance(each, Finding)],
        [each for each in found if isinstance(each, Skipped)],
    )


def written(root: Path, files: Mapping[str, str | bytes]) -> list[Path]:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [root / name for name in files]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"import threading\nthreading.Lock()\ndef f(:\n", "not Python 3 in line 3"),
        (b"import threading\nprint 'x', threading.Lock()\n", "not Python 3 in line 2"),
        (b"import threading\nx = '\xff'; threading.Lock()\n", "not Python 3"),
        (b"# coding: nonsense\nimport threading; threading.Lock()\n", "not Python 3"),
        (b"import threading; threading.Lock()\n\x00\n", "not"),
        (b"import threading; threading.Lock()\nx = " + b"(" * 5000 + b")" * 5000, "not"),
        (b"import threading; threading.Lock()\nx = " + b"-" * 200_000 + b"1", "nested too deeply"),
        (b"import threading; threading.Lock()\n" + b"#" * candidates.LARGEST, "larger than 4 MiB"),
    ],
    ids=["syntax", "python 2", "bytes", "coding", "null", "parentheses", "deep", "huge"],
)
def test_a_file_that_cannot_be_read_is_skipped_and_the_others_are_judged(
    text: bytes, reason: str, tmp_path: Path
) -> None:
    findings, skipped = scan(written(tmp_path, {"bad.py": text, "good.py": NESTED}))
    assert [(Path(each.path).name, each.line) for each in findings] == [("good.py", 5)]
    assert [Path(each.path).name for each in skipped] == ["bad.py"]
    assert reason in skipped[0].reason


def test_a_missing_file_and_a_folder_are_skipped_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "folder.py").mkdir()
    _, skipped = scan([tmp_path / "gone.py", tmp_path / "folder.py"])
    assert [each.reason for each in skipped] == [
        "cannot be read: no such file or directory",
        "cannot be read: is a directory",
    ]


def test_a_long_chain_of_operators_is_judged_or_skipped(tmp_path: Path) -> None:
    text = NESTED + "x = " + " + ".join(["1"] * 50_000) + "\n"
    findings, skipped = scan(written(tmp_path, {"long.py": text}))
    assert len(findings) + len(skipped) == 1


def test_a_file_that_names_no_pool_is_not_parsed(tmp_path: Path) -> None:
    findings, skipped = scan(written(tmp_path, {"other.py": "def f(:\n"}))
    assert (findings, skipped) == ([], [])


def test_processes_find_what_one_process_finds(tmp_path: Path) -> None:
    files = {f"m{number}.py": NESTED if number % 7 == 0 else "x = 1\n" for number in range(310)}
    paths = [str(path) for path in written(tmp_path, files)]
    alone = set(FRONT_END.scan(paths, Options(jobs=1)))
    assert len(alone) == 45
    assert set(FRONT_END.scan(paths, Options(jobs=2))) == alone


class _Ends(dict[str, object]):
    """Ends the process that unpacks it, as a parser that overruns its stack does."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (1,)


def test_a_file_that_ends_its_process_is_found_by_halving(tmp_path: Path) -> None:
    files = tuple((str(path), path.stem) for path in written(tmp_path, {"a.py": "", "b.py": ""}))
    outcome = _survive(Batch(files, SHAPES, known=_Ends()))  # type: ignore[arg-type]
    assert [each.reason for each in outcome.skipped] == ["ended the process that read it"] * 2


def test_progress_counts_every_file(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    paths = [str(path) for path in written(tmp_path, {"a.py": NESTED, "b.py": ""})]
    options = Options(jobs=1, progress=lambda *step: seen.append(step))
    assert len(list(FRONT_END.scan(paths, options))) == 1
    assert seen == [("reading", 2, 2)]


def test_only_and_ignore_choose_the_rules(tmp_path: Path) -> None:
    paths = written(tmp_path, {"a.py": NESTED})
    assert len(scan(paths, only=frozenset({"nested-take"}))[0]) == 1
    assert scan(paths, only=frozenset({"own-worker"}))[0] == []
    assert scan(paths, ignore=frozenset({"nested-take"}))[0] == []


OWN = """
from app.db import Pool, get_pool
pool = Pool()
def f(request):
    with pool.connection():
        with pool.connection(): pass
def g():
    with get_pool().connection():
        with get_pool().connection(): pass
def h(request):
    with request.app.db_pool.connection():
        with request.app.db_pool.connection(): pass
"""


@pytest.mark.parametrize(
    ("names", "lines"),
    [
        ({}, []),
        ({"app.db.Pool": ["lease connection", "take checkout"]}, [6]),
        ({"app.db.Pool": ["like psycopg_pool.ConnectionPool"]}, [6]),
        ({"*.db_pool": ["like psycopg_pool.ConnectionPool"]}, [12]),
        ({"app.db.Pool": ["lease connection"], "*.db_pool": ["lease connection"]}, [6, 12]),
        ({"app.db.Pool": ["lease session", "kind semaphore"]}, []),
    ],
)
def test_a_project_names_its_own_pools(
    names: dict[str, list[str]], lines: list[int], tmp_path: Path
) -> None:
    findings, _ = scan(written(tmp_path, {"a.py": OWN}), names=names)
    assert [each.line for each in findings if each.rule == "nested-take"] == lines


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["borrow it"], "'borrow it', which means nothing"),
        (["like nobody.Pool"], "'nobody.Pool', which is not known"),
        ([], "needs a list"),
        ("lease x", "needs a list"),
        (["kind bucket"], "'kind bucket', which means nothing"),
    ],
)
def test_a_name_that_says_nothing_is_refused(words: Sequence[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        list(FRONT_END.scan([], Options(names={"app.Pool": words})))


def test_headways_own_code_and_examples_are_clean() -> None:
    paths = [*ROOT.glob("src/**/*.py"), *ROOT.glob("examples/**/*.py"), *ROOT.glob("bench/**/*.py")]
    assert len(paths) > 80
    assert scan(sorted(paths)) == ([], [])


def test_every_rule_has_its_page() -> None:
    for rule in FRONT_END.rules:
        page = (ROOT / "docs" / "audit" / f"{rule.id}.md").read_text()
        assert page.startswith(f"# {rule.id}\n")
        assert all(f"| `{verdict}` |" in page for verdict in rule.verdicts)


DOUBLE_CHECKED = """
import threading
class Service:
    def __init__(self):
        self._lock = threading.Lock()
        self.engine = None
    def start(self):
        {guard}
        with self._lock:
            self.engine = make()
            self.fill()
    def fill(self):
        self.start()
"""


@pytest.mark.parametrize(
    ("guard", "bug"), [("if self.engine is not None:\n            return", False), ("pass", True)]
)
def test_a_lock_behind_a_first_look_is_worth_a_note(guard: str, bug: bool, tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(DOUBLE_CHECKED.format(guard=guard))
    (found,) = FRONT_END.scan([str(tmp_path / "service.py")], Options(jobs=1))
    assert isinstance(found, Finding)
    assert (found.rule, found.bug) == ("nested-take", bug)


@pytest.mark.parametrize(
    ("ender", "bug"),
    [("with self.lock:\n            self.ready.set()", True), ("self.ready.set()", False)],
)
def test_a_wait_under_a_lock_is_a_bug_if_its_end_needs_the_lock(
    ender: str, bug: bool, tmp_path: Path
) -> None:
    text = (
        "import threading\nclass A:\n    def __init__(self):\n        self.lock = threading.Lock()\n"
        "        self.ready = threading.Event()\n    def take(self):\n        with self.lock:\n"
        f"            self.ready.wait()\n    def tell(self):\n        {ender}\n"
    )
    (tmp_path / "a.py").write_text(text)
    (found,) = FRONT_END.scan([str(tmp_path / "a.py")], Options(jobs=1))
    assert isinstance(found, Finding)
    assert (found.rule, found.line, found.bug) == ("untimed-wait", 8, bug)
