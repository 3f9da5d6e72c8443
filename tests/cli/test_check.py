"""What `headway check` says of a search that was not finished, of two cures, and of files and places it was given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("typer", reason="the extra cli is not installed")

ACTORS = """
[actors.x]
count = 8
steps = ["+a", "+b", "+c", "-a", "-b", "-c"]
[actors.y]
count = 8
steps = ["+b", "+c", "-b", "-c"]
"""
MANY = 'wake = "any-fit"\n[pools]\na = 5\nb = 5\nc = 5\n' + ACTORS
CROSSED = """[pools]
conn = 2
buf = 2
[actors.one]
count = 2
steps = ["+conn", "+buf", "-conn", "-buf"]
[actors.two]
count = 2
steps = ["+buf", "+conn", "-conn", "-buf"]
"""


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headway", *map(str, arguments)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_a_search_that_was_not_finished_is_not_called_ok(tmp_path: Path) -> None:
    model = tmp_path / "many.toml"
    model.write_text(MANY)
    done = command("check", model, "--max-schedules", 1)
    assert done.stdout.startswith("undecided: none of the 50 states seen, and there are more, lead")
    assert done.returncode == 0
    assert command("check", model, "--max-schedules", 1, "--complete").returncode == 1
    as_json = json.loads(command("check", model, "--max-schedules", 1, "--json").stdout)
    assert (as_json["verdict"], as_json["complete"]) == ("ok", False)  # scripts go by these two
    whole = command("check", model, "--complete")
    assert whole.stdout.startswith("ok: no schedule leads to a deadlock")
    assert whole.returncode == 0


def test_a_schedule_that_was_asked_for_is_no_unfinished_search(tmp_path: Path) -> None:
    model = tmp_path / "many.toml"
    model.write_text(MANY)
    done = command("check", model, "--replay", "1", "--complete")
    assert (done.returncode, done.stdout[:4]) == (0, "ok: ")


def test_of_two_pools_either_of_which_cures_it_is_said_so(tmp_path: Path) -> None:
    model = tmp_path / "crossed.toml"
    model.write_text(CROSSED)
    said = command("check", model).stdout
    assert (
        "smallest safe size of conn: 3 (it has 2), or of buf: 3 (it has 2); either is enough"
        in said.splitlines()
    )
    code = tmp_path / "crossed.py"
    code.write_text(
        "import headway as hw\ndef task(one, other):\n    with one.lease(), other.lease():\n        pass\n"
        "def main():\n    a, b = (hw.Mempool.of(range(2), name=name) for name in 'ab')\n"
        "    for pools in ((a, b), (a, b), (b, a), (b, a)):\n        hw.spawn(task, *pools)\n"
    )
    said = command("check", f"{code}:main").stdout
    assert "(it has 2); either is enough" in said


def test_the_page_is_told_of_and_a_page_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    model, page = tmp_path / "many.toml", tmp_path / "page.html"
    model.write_text(MANY)
    done = command("check", model, "--html", page)
    assert done.stderr == f"wrote {page}\n"
    assert page.read_text().startswith("<!doctype html>")
    if os.path.exists("/dev/full"):
        done = command("check", model, "--html", "/dev/full")
        assert done.stderr == "headway: /dev/full: No space left on device\n"
        assert done.returncode == 1


@pytest.mark.parametrize("address", ["foo", "tcp://", "tcp://here", "here:port", "://a:1"])
def test_what_is_no_address_of_a_cluster_is_one_line_at_once(tmp_path: Path, address: str) -> None:
    model = tmp_path / "many.toml"
    model.write_text(MANY)
    done = command("check", model, "--dask", address)
    assert done.stderr == (
        f"headway: dask {address!r}: no address of a scheduler; write tcp://HOST:PORT\n"
    )
    assert done.returncode == 2
