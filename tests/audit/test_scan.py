"""Files found, input survived, comments that suppress, fingerprints, baseline, changes, SARIF."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

from headway.audit import sarif
from headway.audit.changed import changed_lines, touches
from headway.audit.files import stamp
from headway.audit.finding import Finding, Options
from headway.audit.fingerprint import fingerprints, read_baseline, write_baseline
from headway.audit.kept import Kept
from headway.audit.scan import Report, _asked, audit, rules
from headway.errors import UsageError

BUG = """
static int start(struct device *d)
{
	d->table = kmalloc(d->size, GFP_KERNEL | __GFP_NORETRY);
	if (!d->table)
		return -ENOMEM;
	return 0;
}
"""


def run(directory: Path, *paths: str, **options: Any) -> Report:
    with chdir(directory):
        return audit(paths or ["."], Options(**options))


def reasons(report: Report) -> dict[str, str]:
    return {skipped.path: skipped.reason for skipped in report.skipped}


def test_a_circle_of_links_ends_and_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text(BUG)
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "self.c").symlink_to("self.c")
    report = run(tmp_path)
    assert [f.path for f in report.findings] == ["a.c"]
    assert reasons(report) == {
        "loop": "a link to a directory: not followed",
        "self.c": "a link that leads nowhere, or in a circle",
    }


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("binary.c", b"\x7fELF\0\0" + BUG.encode(), "NUL"),
        ("huge.c", b"int x;\n" * 3_000_000 + BUG.encode(), "more than"),
        ("line.c", b"{" + b"GFP_KERNEL|__GFP_NORETRY " * 20_000, "without a closing brace"),
        (
            "deep.c",
            b"int f(void)\n{\n" + b"{" * 5000 + b"kmalloc(1,GFP_KERNEL|__GFP_NORETRY);\n}\n",
            "nested deeper",
        ),
        (
            "broken.c",
            b"int ((( {{ kmalloc(1, GFP_KERNEL | __GFP_NORETRY); \n}\n",
            "makes no function",
        ),
    ],
)
def test_what_cannot_be_judged_is_survived_and_said(
    tmp_path: Path, name: str, data: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(data)
    (tmp_path / "good.c").write_text(BUG)
    report = run(tmp_path)
    assert {f.path for f in report.findings} == {"good.c"}
    assert reason in reasons(report)[name]


def test_a_long_expression_is_survived(tmp_path: Path) -> None:
    chain = " + ".join(["1"] * 20_000)
    text = f"int f(void)\n{{\n\tint n = {chain};\n\treturn g(n, GFP_KERNEL | __GFP_NORETRY);\n}}\n"
    (tmp_path / "long.c").write_text(text)
    (tmp_path / "good.c").write_text(BUG)
    report = run(tmp_path)
    assert "good.c" in {f.path for f in report.findings}
    assert "long.c" in reasons(report)


def test_bytes_that_are_no_utf8_are_read(tmp_path: Path) -> None:
    (tmp_path / "latin.c").write_bytes(b"/* \xe9\xff */" + BUG.encode())
    assert [f.function for f in run(tmp_path).findings] == ["start"]


def test_a_file_that_may_not_be_read_is_reported(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.c")
    assert reasons(run(tmp_path)) == {"pipe.c": "not a regular file"}


def test_a_file_whose_reading_fails_is_reported(tmp_path: Path) -> None:
    for name in ("a.c", "a.py"):
        (tmp_path / name).symlink_to("/proc/self/mem")  # opens, and gives an error on reading
    report = run(tmp_path, "a.c", "a.py")
    assert set(reasons(report)) == {"a.c", "a.py"}
    assert all(why.startswith("cannot be read: ") for why in reasons(report).values())


def test_a_path_that_is_not_there_is_misuse(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        run(tmp_path, "gone")
    with pytest.raises(UsageError, match="rule 'nope' is not known"):
        run(tmp_path, only=frozenset(("nope",)))


@pytest.mark.parametrize(
    ("comment", "hidden"),
    [
        ("/* headway: ok(the caller asks again) */", True),
        ("/* headway: ok[noretry](the caller asks again) */", True),
        ("/* headway: ok[unchecked](not this rule) */", False),
        ("/* headway: ok() */", False),
        ("/* headway: ok */", False),
    ],
)
def test_a_comment_suppresses_only_with_its_reason(
    tmp_path: Path, comment: str, hidden: bool
) -> None:
    (tmp_path / "a.c").write_text(BUG.replace("\td->table =", f"\t{comment}\n\td->table ="))
    report = run(tmp_path)
    assert (len(report.findings), report.suppressed) == ((0, 1) if hidden else (1, 0))


def test_a_fingerprint_survives_shifted_lines_and_tells_equal_calls_apart(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text(BUG)
    before = run(tmp_path).findings
    (tmp_path / "a.c").write_text("/* new */\n" * 7 + BUG)
    after = run(tmp_path).findings
    assert before[0].line + 7 == after[0].line
    assert fingerprints(before) == fingerprints(after)
    assert len(set(fingerprints([*before, *before]))) == 2


def test_a_baseline_hides_what_was_known_until_its_verdict_changes(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text(BUG)
    findings = run(tmp_path).findings
    write_baseline(tmp_path / "known.json", findings)
    known = read_baseline(tmp_path / "known.json")
    assert known == {(fingerprints(findings)[0], "bug-missing-fallback")}
    (tmp_path / "known.json").write_text("[]")
    with pytest.raises(UsageError, match="is not one of version"):
        read_baseline(tmp_path / "known.json")


def test_diff_keeps_what_lies_in_changed_functions(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        own = ["-c", "user.name=t", "-c", "user.email=t@t"]
        subprocess.run(["git", "-C", str(tmp_path), *own, *words], check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / "a.c").write_text(BUG + BUG.replace("start", "again"))
    git("add", ".")
    assert changed_lines("HEAD", [str(tmp_path)]) == {str(tmp_path.resolve() / "a.c"): None}
    git("commit", "-qm", "first")
    text = (tmp_path / "a.c").read_text()
    (tmp_path / "a.c").write_text(text.replace("return 0;", "return 1;", 1))
    (tmp_path / "new.c").write_text(BUG)
    with chdir(tmp_path):
        found = audit(["."], Options()).findings
        changed = changed_lines("HEAD", ["."])
        kept = [(f.path, f.function) for f in found if touches(f, changed)]
        with pytest.raises(UsageError, match="no such revision"):
            changed_lines("nowhere", ["."])
    assert kept == [("a.c", "start"), ("new.c", "start")]


def test_what_is_kept_is_used_only_while_the_file_is_the_same(tmp_path: Path) -> None:
    source, store = tmp_path / "a.c", tmp_path / "store"
    source.write_text("one")
    os.utime(source, (1, 1))
    import hashlib

    digest = hashlib.blake2b(b"one", digest_size=16).hexdigest()
    with Kept(store, "rules 1") as kept:
        kept.put(str(source), digest, "answer")
    with Kept(store, "rules 1") as kept:
        assert kept.get(str(source)) == "answer"
    with Kept(store, "rules 2") as kept:
        assert kept.get(str(source)) is None
    source.write_text("two")
    with Kept(store, "rules 1") as kept:
        assert kept.get(str(source)) is None


def test_a_damaged_store_changes_nothing_but_the_speed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a.c").write_text(BUG)
    first = run(tree, cache=tmp_path / "store")
    assert run(tree, cache=tmp_path / "store") == first
    (tmp_path / "store" / "audit.sqlite").write_bytes(b"no database" * 100)
    assert run(tree, cache=tmp_path / "store") == first
    (tree / "a.c").write_text(BUG.replace(" | __GFP_NORETRY", ""))
    assert run(tree, cache=tmp_path / "store").findings == ()


def _check_sarif(log: dict[str, Any]) -> None:
    """The fields that SARIF 2.1.0 requires, and those that code-scanning pages want."""
    assert log["version"] == "2.1.0" and log["$schema"].startswith("https://")
    for one in log["runs"]:
        driver = one["tool"]["driver"]
        assert driver["name"] and driver["semanticVersion"].count(".") >= 2
        for rule in driver["rules"]:
            assert rule["id"] and rule["shortDescription"]["text"] and rule["help"]["text"]
            assert rule["defaultConfiguration"]["level"] in ("none", "note", "warning", "error")
        for call in one["invocations"]:
            assert isinstance(call["executionSuccessful"], bool)
        for result in one["results"]:
            assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
            assert result["message"]["text"]
            assert result["level"] in ("note", "warning", "error")
            for place in result["locations"]:
                where = place["physicalLocation"]
                assert not where["artifactLocation"]["uri"].startswith("/")
                assert where["region"]["startLine"] >= 1
            assert all(result["partialFingerprints"].values())
            for flow in result.get("codeFlows", ()):
                for thread in flow["threadFlows"]:
                    assert thread["locations"]


def test_sarif_has_what_pages_want(tmp_path: Path) -> None:
    (tmp_path / "a b.c").write_text(BUG)
    log = sarif.as_sarif(run(tmp_path), rules(), "1.2.3")
    _check_sarif(json.loads(json.dumps(log)))
    result = log["runs"][0]["results"][0]
    uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert (uri, result["level"]) == ("a%20b.c", "error")


def test_sarif_leaves_out_what_was_found_right(tmp_path: Path) -> None:
    right = Finding("a.c", 1, "f", "noretry", "fallback-other", False, "fine", "", severity="note")
    log = sarif.as_sarif(Report((right,), 1, ()), rules(), "1.2.3")
    assert log["runs"][0]["results"] == []


def test_languages_that_cannot_have_a_wanted_rule_are_not_asked() -> None:
    assert list(_asked(Options(only=frozenset(("noretry",))))) == ["headway.audit.c"]
    assert len(_asked(Options(only=frozenset(("noretry", "untimed-wait"))))) == 2
    assert len(_asked(Options(ignore=frozenset(("noretry",))))) == 2


def test_work_begun_on_files_is_given_up_if_a_path_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text(BUG)
    before = threading.active_count()
    with pytest.raises(UsageError, match="no such file"):
        run(tmp_path, ".", "gone")
    assert threading.active_count() == before


def test_a_file_named_twice_is_judged_once(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text(BUG)
    report = run(tmp_path, "a.c", ".", "./a.c")
    assert (report.files, len(report.findings)) == (1, 1)


def test_what_was_read_after_it_changed_is_read_again(tmp_path: Path) -> None:
    """The stamp is older than the content that was judged: the next run cannot mistake one for the other."""
    file = tmp_path / "a.c"
    file.write_text("old")
    os.utime(file, (1, 1))
    then = stamp(str(file))
    file.write_text("new text")
    os.utime(file, (2, 2))
    assert then is not None
    digest = hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
    with Kept(tmp_path / "store", "rules", {str(file): then}) as kept:
        kept.put(str(file), digest, "of the new text")
    file.write_text("third text")
    with Kept(tmp_path / "store", "rules") as kept:
        assert kept.get(str(file)) is None
