"""Which files hold which words: both ways of looking agree, and no file that matters is left out."""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.audit.c import FRONT_END
from headway.audit.csource.anchors import SHORTEST, anchors
from headway.audit.csource.project import LARGE, MAX_CALLERS
from headway.audit.csource.search import MAX_BYTES, Search, is_mute, places_of, search
from headway.audit.finding import Finding, Options, Skipped
from headway.audit.scan import audit

WORDS = ["GFP_A", "GFP_B", "get_a_long_name", "a_long_name", "zbd_report_all_zones"]
TEXTS = [
    b"x GFP_A; GFP_AB;\nGFP_B GFP_A",
    b"nothing",
    b"\xff\xfe get_a_long_name(a_long_name) /* \xe9 */ ",
    b"their_long_name __GFP_A zbd_report_all_zones_ xzbd_report_all_zones",
    b"",
]


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    for number, text in enumerate(TEXTS):
        (tmp_path / f"{number}.c").write_bytes(text)
    return [str(tmp_path / f"{name}.c") for name in (*range(len(TEXTS)), "gone")]


@pytest.mark.parametrize("names", [WORDS[:1], WORDS[:2], WORDS])
@pytest.mark.parametrize("whole", [True, False])
def test_both_searches_find_the_same(files: list[str], names: list[str], whole: bool) -> None:
    by_grep = search(files[:-1], names, 1, whole)  # where one is gone, Python reads them all
    assert by_grep == search(files, names, 1, whole, with_grep=False)
    count = len([place for place in by_grep[files[0]] if place[1] == "GFP_A"])
    assert count == (2 if whole else 3)


def test_files_may_be_added_one_by_one(files: list[str]) -> None:
    hits, count = {}, 0
    with Search(WORDS, 2) as under_way:
        for path in files:
            under_way.add([path])
        for number, part in under_way.parts():
            hits.update(part)
            count += number
    assert hits == search(files, WORDS, 1)
    assert count == len(files)


def test_a_word_in_a_file_too_long_to_parse_is_found(tmp_path: Path) -> None:
    """That file is then said to be too long: leaving it out in silence would be worse."""
    path = tmp_path / "long.c"
    with open(path, "wb") as file:
        file.truncate(MAX_BYTES)
        file.seek(0, 2)
        file.write(b" GFP_A ")
    assert search([str(path)], ["GFP_A"]) == {str(path): [(MAX_BYTES + 1, "GFP_A")]}


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.sets(st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,20}", fullmatch=True), min_size=1))
def test_every_word_holds_a_piece_that_is_looked_for(words: set[str]) -> None:
    pieces = anchors(words)
    for word in words:
        mine = [piece for piece in pieces if word.endswith(piece)]
        assert any(len(piece) >= min(SHORTEST, len(word)) for piece in mine), word
    assert len(pieces) <= len(words)


def test_pieces_begin_with_letters_that_are_rare() -> None:
    assert anchors(["blk_mq_alloc_map", "blk_mq_free_map"]) == ["q_alloc_map", "q_free_map"]
    assert anchors(["one_word_alone"]) == ["one_word_alone"]  # for one, grep knows better
    assert anchors(["sd_zbc_report", "rb_alloc_aux", "ab_alloc_it"]) == [
        "b_alloc_aux", "b_alloc_it", "zbc_report",
    ]  # fmt: skip


def test_places_are_of_whole_names_only() -> None:
    assert places_of(b"a_b a a_ (a) ba a", "a") == [4, 10, 16]


@pytest.mark.parametrize("grep", [None, False])
@pytest.mark.parametrize("whole", [True, False])
def test_what_cannot_be_read_is_said(files: list[str], grep: bool | None, whole: bool) -> None:
    unread: list[Skipped] = []
    found = search(files, WORDS, 1, whole, with_grep=grep, unread=unread)
    assert unread == [Skipped(files[-1], "cannot be read: no such file or directory")]
    assert found == search(files[:-1], WORDS, 1, whole)


def test_a_file_that_cannot_be_looked_into_may_name_anything(tmp_path: Path) -> None:
    (tmp_path / "a.h").write_bytes(b"/* (C) */\n" + b"#define A 1\n" * 50_000)
    assert is_mute(str(tmp_path / "a.h"))
    assert not is_mute(str(tmp_path / "gone.h"))


@pytest.mark.parametrize(
    "comment", [b"", b"/* It says so, */", b"/*" + b"x" * ((1 << 18) - 4) + b"*/"]
)
@pytest.mark.parametrize("text", [b"#define R(x) reg(x, f)\n", b"#define B f,\n", b"void f;\n"])
def test_a_file_that_may_name_a_function_is_not_mute(
    comment: bytes, text: bytes, tmp_path: Path
) -> None:
    (tmp_path / "a.h").write_bytes(comment + b"#define A 1\n" * 50_000 + text)
    assert not is_mute(str(tmp_path / "a.h"))
    (tmp_path / "a.h").write_bytes(comment + text)
    assert not is_mute(str(tmp_path / "a.h"))
    (tmp_path / "a.h").write_bytes(comment + b"#define A 1\n")
    assert is_mute(str(tmp_path / "a.h"))


USER = """#include "masks.h"
static int start(struct device *d)
{
	d->table = kmalloc(d->size, GFP_EARLY);
	if (!d->table)
		return -ENOMEM;
	return 0;
}
"""
HELPER = """static inline void *table_of(unsigned long n)
{
	return kmalloc(n, GFP_KERNEL | __GFP_NORETRY);
}
"""


def findings(tmp_path: Path, header: str, code: str) -> list[Finding]:
    (tmp_path / "masks.h").write_text(header)
    (tmp_path / "a.c").write_text(code)
    with chdir(tmp_path):
        return list(audit(["."], Options(only=frozenset(("noretry",)))).findings)


def test_a_mask_of_a_long_list_of_registers_is_known(tmp_path: Path) -> None:
    """A large header without a brace is searched for the flag, and only for it."""
    mask = "#define GFP_EARLY (GFP_KERNEL | __GFP_NORETRY)\n"
    registers = "#define R 1\n" * (LARGE // 12 + 1)
    short, long = (findings(tmp_path, mask + more, USER) for more in ("", registers))
    assert [one.function for one in short] == ["start"]
    assert short == long


def test_functions_of_a_large_header_are_judged(tmp_path: Path) -> None:
    registers = "#define R 1\n" * (LARGE // 12 + 1)
    code = USER.replace("kmalloc(d->size, GFP_EARLY)", "table_of(d->size)")
    found = findings(tmp_path, registers + HELPER, code)
    assert [(one.path, one.bug) for one in found] == [("masks.h", True)]
    assert any(step.path == "a.c" for step in found[0].evidence)


HANDED_UP = """int start_it(struct device *d)
{
	d->table = kmalloc(d->size, GFP_KERNEL | __GFP_NORETRY);
	if (!d->table)
		return -ENOMEM;
	return 0;
}
"""


def test_a_macro_of_a_large_header_may_take_an_address(tmp_path: Path) -> None:
    """Who hands a function on is known, be the header that says it long or short."""
    macro = "#define HOOK(x) on_prefetch(x, start_it)\n"
    registers = "#define R 1\n" * (LARGE // 12 + 1)
    short, long = (findings(tmp_path, macro + more, HANDED_UP) for more in ("", registers))
    assert [one.verdict for one in short] == ["readahead-only"]
    assert short == long


@pytest.mark.parametrize("size", [0, LARGE])
def test_headers_without_a_function_are_not_counted_among_callers(
    tmp_path: Path, size: int
) -> None:
    """However long they are, and however many: the one caller comes after them."""
    for number in range(MAX_CALLERS + 1):
        text = f"int start_it(struct device *d);\n{'#define R 1' * (size // 11)}\n"
        (tmp_path / f"b{number:02}.h").write_text(text)
    caller = (
        "int use(struct device *d)\n{\n\tif (start_it(d))\n\t\treturn slow(d);\n\treturn 0;\n}\n"
    )
    (tmp_path / "c.c").write_text(caller)
    [found] = findings(tmp_path, "", HANDED_UP)
    assert [step.path for step in found.evidence if step.path == "c.c"]


def test_only_as_many_files_as_are_asked_are_read(tmp_path: Path) -> None:
    """Of those that call a function, and of none that is no part of what runs."""
    (tmp_path / "tools").mkdir()
    for name in ("tools/t.c", *(f"c{number:02}.c" for number in range(2 * MAX_CALLERS))):
        (tmp_path / name).write_bytes(b"void use(void)\n{\n\tstart_it(0);\n}\n")
    last = tmp_path / f"c{2 * MAX_CALLERS - 1}.c"
    last.write_bytes(b"start_it\0\n")
    (tmp_path / "tools" / "t.c").write_bytes(b"__GFP_NORETRY\0\n")
    (tmp_path / "a.c").write_text(HANDED_UP)
    with chdir(tmp_path):
        report = audit(["."], Options(only=frozenset(("noretry",))))
    assert [one.path for one in report.findings] == ["a.c"]
    assert report.skipped == ()


def test_a_file_that_is_gone_when_it_is_searched_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text(HANDED_UP)
    paths = [str(tmp_path / name) for name in ("a.c", "gone.c")]
    for rule in ("noretry", "unchecked"):
        said = list(FRONT_END.scan(paths, Options(jobs=1, only=frozenset((rule,)))))
        skipped = [one for one in said if isinstance(one, Skipped)]
        assert skipped == [Skipped(paths[1], "cannot be read: no such file or directory")]
