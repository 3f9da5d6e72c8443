"""The example of a hard limit: a real process lives where the same one without headway does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from examples import pressure
from headway.edge.pressure import find_group
from tests.edge.test_pressure import v2, write
from tests.house import tree


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(tree.ROOT / "examples" / "pressure.py"), *arguments],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("under", ["auto", "address-space"])
def test_it_lives_with_headway_and_not_without(under: str) -> None:
    if (
        under == "address-space"
        and pressure.set_up("auto", None)[0] == pressure.set_up(under, None)[0]
    ):
        why = pressure.set_up("auto", None)[1]
        pytest.skip(
            "'auto' takes the limit on addresses here, so this run would repeat the one before it; no "
            f"memory group of ours: {why}"
        )
    lives_with_headway_only(run("--under", under))


def test_it_lives_in_a_real_memory_group_that_was_named() -> None:
    group = os.environ.get("HEADWAY_TEST_GROUP")
    if group is None:
        pytest.skip(
            "HEADWAY_TEST_GROUP names no memory group that is ours to divide (a directory in which a "
            "child with a limit can be made); without one the run above shows what can be shown"
        )
    lines = lives_with_headway_only(run("--under", "cgroup", "--group", group))
    assert lines[0] == f"the limit: {pressure.GROUP_LIMIT >> 20} MiB of a memory group"
    assert lines[2].startswith("with a dictionary: killed (SIGKILL) after ")
    assert not [name for name in os.listdir(group) if name.startswith("headway-pressure-")]


def lives_with_headway_only(done: subprocess.CompletedProcess[str]) -> list[str]:
    if done.stdout.startswith("skipped: "):
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("the limit: ")
    assert lines[2].startswith(
        ("with a dictionary: killed", "with a dictionary: failed with MemoryError")
    )
    assert lines[3] == "with headway: ended alive"
    assert lines[4].startswith(f"  {pressure.REQUESTS} answers, all right; ")
    return lines


def test_it_says_so_where_nothing_can_be_set_up(tmp_path: Path) -> None:
    done = run("--under", "cgroup", "--group", str(tmp_path / "nowhere"))
    assert done.returncode == 0
    assert done.stdout.startswith(
        "skipped: no limit can be set here: no memory group can be made below"
    )


def test_groups_of_others_are_left_alone(tmp_path: Path) -> None:
    group = find_group(v2(tmp_path))
    assert group is not None and not pressure.is_ours(group)
    try:
        os.setxattr(group.path, "user.delegate", b"1")
    except OSError:
        pytest.skip("this file system keeps no marks")
    assert pressure.is_ours(group), "systemd marks what it hands over"


@pytest.mark.parametrize("version", [1, 2])
def test_the_limit_is_set_before_anybody_joins(tmp_path: Path, version: int) -> None:
    if version == 2:
        write(tmp_path, {"cgroup.controllers": "memory\n", "cgroup.subtree_control": ""})
    path, why = pressure.make_group(str(tmp_path))
    assert path is not None, why
    file = "memory.max" if version == 2 else "memory.limit_in_bytes"
    assert (Path(path) / file).read_text() == str(pressure.GROUP_LIMIT)
    if version == 2:
        assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory"
