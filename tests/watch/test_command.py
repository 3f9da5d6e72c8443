"""`headway watch` as a process: programs unchanged, exit status, reports, hangs, --attach; and the pytest plugin."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("typer")
from headway.cli import app

NESTED = """
import threading
slots = threading.Semaphore(2)
def handle():
    with slots, slots:
        pass
handle()
"""
FROZEN = """
import threading
slots, meet = threading.Semaphore(2), threading.Barrier(2)
def handle():
    with slots:
        meet.wait()
        with slots:
            pass
threads = [threading.Thread(target=handle, name=f"request-{n}", daemon=True) for n in (1, 2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


@pytest.fixture
def program(tmp_path):
    def write(text, name="app.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return str(path)

    return write


def run(status, *arguments, **options):
    done = subprocess.run(
        [sys.executable, "-m", "headway", "watch", *map(str, arguments)],
        capture_output=True, text=True, timeout=120, **options,
    )  # fmt: skip
    assert done.returncode == status, done
    return done


def test_a_program_unchanged_and_its_report(program, tmp_path):
    report = tmp_path / "report.json"
    done = run(0, "--report", report, "--", sys.executable, program(NESTED + "print('done')\n"))
    assert done.stdout == "done\n"
    assert "warning: nested: semaphore of 2 made at" in done.stderr
    found = json.loads(report.read_text())
    assert found["hang"] is None
    (risk,) = found["risks"]
    assert {"kind", "severity", "pool", "stacks", "hangs_from", "remedy"} <= set(risk)
    assert (risk["kind"], risk["severity"], risk["hangs_from"]) == ("nested", "warning", 2)
    assert any("app.py:5 in handle" in line for stack in risk["stacks"] for line in stack["frames"])


def test_exit_status_is_the_programs_unless_something_is_as_grave(program):
    script = program(NESTED + "raise SystemExit(7)\n")
    run(7, "--", sys.executable, script)
    run(7, "--fail-on", "risk", "--", sys.executable, script)
    run(1, "--fail-on", "warning", "--", sys.executable, script)
    run(1, "--fail-on", "risk", "--concurrency", "2", "--", sys.executable, script)
    run(7, "--fail-on", "note", "--concurrency", "1", "--", sys.executable, script)


def test_json_stands_alone_on_standard_output(program):
    done = run(0, "--json", "--", sys.executable, program(NESTED + "print('mine')\n"))
    assert list(json.loads(done.stdout)) == ["risks", "hang"]
    assert "mine" in done.stderr


def test_misuse_is_one_line(tmp_path):
    for arguments in ([], ["--fail-on", "all", "--", "true"], ["--", "no-such-program"]):
        done = run(2, *arguments)
        assert done.stderr.startswith("headway: ") and done.stderr.count("\n") == 1
    assert "does not listen" in run(2, "--attach", os.getpid()).stderr
    assert "does not exist" in run(2, "--baseline", tmp_path / "none", "--", "true").stderr


def test_a_program_that_is_not_python():
    done = run(3, "--", "sh", "-c", "exit 3")
    assert "no Python process" in done.stderr
    assert "nothing found" not in done.stderr


def test_a_gate_does_not_pass_what_could_not_be_watched(program):
    script = program(NESTED)
    done = run(1, "--fail-on", "risk", "--", sys.executable, "-I", script)
    assert done.stderr.startswith("headway: nothing was watched: no Python process told anything")
    assert done.stderr.count("\n") == 1


def test_a_program_that_was_killed(program):
    """What it did until then is told, and that it was killed; so of a child of it."""
    killed = program(NESTED + "import os, signal, time\nos.kill(os.getpid(), signal.SIGKILL)\n")
    done = run(137, "--fail-on", "risk", "--", sys.executable, killed)
    assert done.stderr.startswith("headway: the command was ended by SIGKILL\n")
    assert "told anything" not in done.stderr
    empty = program("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n", "empty.py")
    parent = program(
        f"import subprocess, sys\nsubprocess.run([sys.executable, {empty!r}])\n", "up.py"
    )
    done = run(0, "--", sys.executable, parent)
    assert "1 of 2 Python processes ended early" in done.stderr
    assert done.stderr.endswith("\nnothing found until then\n")


def here(status, capsys, *arguments):
    """The command in this process: what never gets so far as to run a program."""
    assert app.run([str(argument) for argument in ("watch", *arguments)]) == status
    return capsys.readouterr()


@pytest.mark.parametrize("option", ["--report", "--write-baseline", "--profile"])
def test_what_cannot_be_written_is_said_before_the_program_runs(tmp_path, capsys, option):
    folder = tmp_path / "d.json"
    folder.mkdir()
    for named in (tmp_path / "none" / "r.json", folder):
        done = here(2, capsys, option, named, "--", sys.executable, "-c", "print('it ran')")
        assert done.out == ""
        assert done.err.startswith(f"headway: {option} '{named}' cannot be written: ")
        assert done.err.count("\n") == 1


def test_a_process_that_is_not_there(capsys):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert f"there is no process {ended.pid}: " in here(2, capsys, "--attach", ended.pid).err


@pytest.mark.parametrize("name", ["r.pdf", "report", "r.HTM"])
def test_a_report_in_a_form_that_there_is_not(tmp_path, capsys, name):
    done = here(
        2, capsys, "--report", tmp_path / name, "--", sys.executable, "-c", "print('it ran')"
    )
    assert done.out == "" and "must end in .json, .html, .txt" in done.err
    assert not (tmp_path / name).exists()


def test_what_was_written_is_said(program, tmp_path):
    names = {"--report": "r.json", "--write-baseline": "b.json", "--profile": "m.toml"}
    asked = [part for option, name in names.items() for part in (option, tmp_path / name)]
    done = run(0, *asked, "--json", "--", sys.executable, program(NESTED))
    assert done.stderr.splitlines() == [
        f"headway: the report is in {tmp_path / 'r.json'}",
        f"headway: the baseline of 1 is in {tmp_path / 'b.json'}",
        f"headway: the model is in {tmp_path / 'm.toml'}",
    ]
    assert all((tmp_path / name).exists() for name in names.values())


@pytest.mark.parametrize("command", [[], ["watch"], ["top"]])
def test_options_that_take_nothing_show_nothing_to_give(capsys, command):
    assert app.run([*command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--help" in shown and "bool" not in shown


def test_children_are_watched_and_another_sitecustomize_still_runs(program, tmp_path):
    program("print('sitecustomize of the user')\n", "sitecustomize.py")
    child = program(NESTED)
    parent = program(
        f"import subprocess, sys\nsubprocess.run([sys.executable, {child!r}])\n", "parent.py"
    )
    done = run(0, "--", sys.executable, parent, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.stdout.count("sitecustomize of the user") == 3  # ours, the parent's, the child's
    assert "nested" in done.stderr


def test_a_baseline_survives_edits_above(program, tmp_path):
    baseline = tmp_path / "known.json"
    script = program(NESTED)
    run(0, "--write-baseline", baseline, "--", sys.executable, script)
    script = program("# a line more\n" + NESTED)
    done = run(0, "--fail-on", "note", "--baseline", baseline, "--", sys.executable, script)
    assert "nothing found" in done.stderr


@pytest.mark.parametrize(("suffix", "says"), [(".html", "<svg"), (".txt", "remedy: ")])
def test_other_forms_of_the_report(program, tmp_path, suffix, says):
    report = tmp_path / f"report{suffix}"
    run(0, "--report", report, "--", sys.executable, program(NESTED))
    text = report.read_text()
    assert says in text
    assert "http" not in text  # nothing to fetch


def test_the_learned_profile_goes_to_headway_size(program, tmp_path):
    model = tmp_path / "learned.toml"
    run(0, "--profile", model, "--", sys.executable, program(NESTED))
    text = model.read_text().replace("count = 1", "count = 3")
    model.write_text(text)
    sized = subprocess.run(
        [sys.executable, "-m", "headway", "size", model, "--pool", "semaphore", "--json"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert json.loads(sized.stdout)["smallest"] == 4  # n*(m-1) + 1


@contextlib.contextmanager
def started(*arguments):
    process = subprocess.Popen(
        [sys.executable, "-m", "headway", "watch", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=60)


def until(stream, word):
    for line in stream:
        if word in line:
            return line
    raise AssertionError(f"the stream ended without {word!r}")


def test_a_hang_is_told_and_explained_from_outside(program, tmp_path):
    report = tmp_path / "report.json"
    script = program("import os\nprint(os.getpid(), flush=True)\n" + FROZEN)
    with started("--stall", "0.3", "--report", report, "--", sys.executable, script) as process:
        pid = int(process.stdout.readline())
        assert "frees 3 of 3" in until(process.stderr, "release:")
        attached = run(1, "--attach", pid, "--json")
        hang = json.loads(attached.stdout)["hang"]
        assert {waiter["owner"] for waiter in hang["waiters"]} == {
            "thread request-1", "thread request-2", "thread MainThread"
        }  # fmt: skip
        assert len(hang["holders"]) == 2
        assert any("in handle" in line for line in hang["holders"][0]["taken"])
        assert len(hang["cycle"]) == 2
        assert hang["release"]["frees"] == 3
        assert "cycle:" in run(1, "--attach", pid).stdout
        os.kill(pid, signal.SIGQUIT)  # one key in the terminal
        until(process.stderr, "hang: these wait for each other")
        while not json.loads(report.read_text())["hang"]:
            pass
    assert process.returncode == 128 + signal.SIGTERM


def pytests(folder, *more):
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "headway.pytest_plugin", "-p", "no:cacheprovider",
         "-q", *more, "test_app.py"],
        cwd=folder, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip


def test_pytest_fails_the_test_in_which_a_new_risk_appears(program, tmp_path):
    program(
        """
        import threading
        slots = threading.Semaphore(2)
        def nest():
            with slots, slots:
                pass
        def test_before(): pass
        def test_nests(): nest()
        def test_nests_again(): nest()
        """,
        "test_app.py",
    )

    done = pytests(tmp_path, "--headway-watch")
    assert "1 failed, 2 passed" in done.stdout
    assert "FAILED test_app.py::test_nests " in done.stdout + " "
    assert "remedy:" in done.stdout
    assert "test_app.py:5 in nest" in done.stdout
    assert "_pytest" not in done.stdout and "pluggy" not in done.stdout
    lenient = pytests(tmp_path, "--headway-watch", "--headway-watch-level", "risk")
    assert "3 passed" in lenient.stdout


CHECKED = """
import threading
import headway as hw
import pytest

def nests(tasks):
    pool = hw.Mempool.of(range(4), name="c")
    def job():
        with lock:
            pass
        a, b = pool.alloc(), pool.alloc()
        pool.free(a)
        pool.free(b)
    for _ in range(tasks):
        hw.spawn(job)

lock, other, slots = threading.Lock(), threading.Lock(), threading.Semaphore(4)

@pytest.mark.headway
def test_passes():
    nests(3)

@pytest.mark.xfail
@pytest.mark.headway
def test_deadlocks():
    nests(4)

@pytest.mark.headway
def test_locks_of_the_module():
    nests(1)
    with lock, other:
        pass
    with other, lock:
        pass

def test_next():
    with slots, slots:
        pass
"""


def test_code_under_check_is_not_watched(program, tmp_path):
    program(CHECKED, "test_app.py")
    done = pytests(tmp_path, "--headway-watch")
    assert "FAILED test_app.py::test_next" in done.stdout
    assert "1 failed, 2 passed, 1 xfailed" in done.stdout
    assert "warning: nested: semaphore of 4 made at" in done.stdout
    assert "mempool" not in done.stdout and "leak" not in done.stdout


def test_what_a_failing_test_did_is_not_the_next_ones_fault(program, tmp_path):
    program(
        """
        import threading
        slots = threading.Semaphore(2)
        def test_nests_and_fails():
            with slots, slots:
                raise ValueError("its own")
        def test_after(): pass
        """,
        "test_app.py",
    )
    done = pytests(tmp_path, "--headway-watch")
    assert "1 failed, 1 passed" in done.stdout
    assert "its own" in done.stdout and "remedy:" in done.stdout


@pytest.mark.parametrize("mode", [0o644, 0o755])
def test_a_file_of_python_is_no_program_and_the_answer_says_what_to_type(tmp_path, mode):
    script = tmp_path / "app.py"
    script.write_text("print('hello')\n")
    script.chmod(mode)
    done = subprocess.run(
        [sys.executable, "-m", "headway", "watch", "--", str(script)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.endswith(f"write headway watch -- python {script}\n")
