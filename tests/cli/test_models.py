"""`headway check MODEL.toml` and `headway size` as processes: JSON, text, exit status, refusals."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("typer")

MODEL = """
[pools]
bio = 2
[actors.mapper]
count = 2
steps = ["+bio", "+bio", "-bio 2"]
"""
VLLM = """
wake = "any-fit"
[pools]
kv = 7
[actors]
A = {steps = ["+kv 4", "+kv 1", "-kv 5"]}
B = {steps = ["+kv 3", "+kv 1", "-kv 4"]}
"""


def run(status, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "headway", *map(str, arguments)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == status, done
    if status == 2:
        assert done.stdout == ""
        assert done.stderr.startswith("headway: ") and done.stderr.count("\n") == 1
        return done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.toml"
    path.write_text(MODEL)
    return path


def test_a_deadlock_and_its_replay(model):
    found = json.loads(run(1, "check", model, "--json"))
    assert list(found) == [
        "verdict", "reason", "stuck", "complete", "schedules", "states", "trace", "replay", "min_reserve",
    ]  # fmt: skip
    assert (found["verdict"], found["stuck"]) == ("deadlock", ["mapper-1", "mapper-2"])
    assert found["trace"][0] == {
        "task": "mapper-1", "op": "alloc", "pool": "bio", "n": 1, "result": "granted"
    }  # fmt: skip
    assert found["min_reserve"] == {"bio": 3}
    again = json.loads(run(1, "check", model, "--replay", found["replay"], "--json"))
    assert (again["verdict"], again["trace"]) == ("deadlock", found["trace"])
    text = run(1, "check", model)
    assert text.startswith("deadlock: 2 tasks wait for ever")
    assert text.endswith(f"again: headway check {model} --replay {found['replay']}\n")


def test_a_safe_size_is_ok(model):
    model.write_text(MODEL.replace("bio = 2", "bio = 3"))
    found = json.loads(run(0, "check", model, "--json"))
    assert (found["verdict"], found["complete"], found["trace"]) == ("ok", True, [])
    assert found["replay"] is None


def test_sizes_with_a_hole(model):
    model.write_text(VLLM)
    found = json.loads(run(0, "size", model, "--pool", "kv", "--max", 10, "--json"))
    assert list(found) == ["smallest", "safe", "unsafe", "law"]
    assert found["safe"] == [5, 6, 8, 9, 10]
    assert found["unsafe"] == [1, 2, 3, 4, 7]
    assert found["smallest"] == 8
    text = run(0, "size", model, "--pool", "kv")
    assert text.splitlines()[1:3] == ["safe: 5-6, 8-18", "unsafe: 1-4, 7"]


def test_what_is_refused(model, tmp_path):
    assert "no pool 'disk' in the model; it has bio" in run(2, "size", model, "--pool", "disk")
    assert "--pool" in run(2, "size", model)
    run(2, "size", model, "--pool", "bio", "--max", 0)
    assert "does not exist" in run(2, "check", tmp_path / "none.toml")
    assert "no task 7; the model has 2" in run(2, "check", model, "--replay", "7")
    assert "--max-schedules is 0" in run(2, "check", model, "--max-schedules", 0)
    model.write_text(MODEL.replace("-bio 2", "-bio 3"))
    refusal = run(2, "check", model)
    assert "actor mapper, step 3 ('-bio 3') gives back 3 of bio, and holds 2 there" in refusal
    assert refusal.replace("check", "size") == run(2, "size", model, "--pool", "bio")


def test_a_slip_is_sent_to_the_help_of_its_own_command(tmp_path):
    assert run(2, "check").endswith("see headway check --help\n")
    assert run(2, "size", "--nosuch").endswith("see headway size --help\n")
    assert run(2, "nosuch").endswith("see headway --help\n")
    assert "--odds" in run(2, "check", "model.toml", "--spread", "3")


def test_a_page_that_cannot_be_written_does_not_cost_the_report(tmp_path):
    model = tmp_path / "model.toml"
    model.write_text(MODEL)
    done = subprocess.run(
        [sys.executable, "-m", "headway", "check", model, "--html", tmp_path / "no" / "page.html"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1 and done.stdout.startswith("deadlock: ")
    assert "No such file or directory" in done.stderr


def test_coroutines_that_never_run_make_no_noise(tmp_path):
    code = tmp_path / "gathers.py"
    code.write_text(
        "import asyncio\nasync def work(): pass\nasync def main():\n    await asyncio.gather(work(), work())\n"
    )
    assert "asyncio.gather" in run(1, "check", f"{code}:main")
