"""`headway copy` as a process: results, refusals, signals, and what it leaves behind."""

import hashlib
import json
import os
import random
import resource
import signal
import socket
import stat
import subprocess
import sys

import pytest

from headway.server import serve
from tests.edge.serving.served import DATA, Counted, make

pytest.importorskip("typer")

COMMAND = [sys.executable, "-m", "headway"]
KEYS = "bytes seconds memory_limit memory_peak reserve_uses waits longest_wait_s sha256 verified"


def run(*arguments, **options):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=120, **options
    )


def report_of(*arguments, **options):
    done = run("copy", *arguments, "--json", **options)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    report = json.loads(done.stdout)
    assert list(report) == KEYS.split()
    assert report["memory_peak"] <= report["memory_limit"]
    return report


def refused(status, *arguments, says, **options):
    done = run(*arguments, **options)
    assert done.returncode == status, done
    assert done.stdout == ""
    assert done.stderr.startswith("headway: ") and done.stderr.count("\n") == 1, done.stderr
    assert says in done.stderr
    return done.stderr


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.write_bytes(random.Random(1).randbytes((5 << 20) + 777))
    return path


@pytest.mark.parametrize("memory", ["1MiB", "2MiB", "8MiB"])
@pytest.mark.parametrize("starve", [(), ("--starve",)])
@pytest.mark.parametrize("verify", [(), ("--verify",), ("--verify", "--no-hash")])
def test_copies_within_the_limit(source, memory, starve, verify):
    target = source.with_name("target")
    report = report_of(source, target, "--memory", memory, *starve, *verify)
    data = source.read_bytes()
    assert target.read_bytes() == data
    hashed = "--no-hash" not in verify
    assert report["sha256"] == (hashlib.sha256(data).hexdigest() if hashed else None)
    assert report["bytes"] == len(data)
    assert report["verified"] is (True if verify else None)
    if starve:
        assert report["reserve_uses"] > 0 and report["memory_peak"] <= 2 << 20
    assert sorted(os.listdir(source.parent)) == ["source", "target"]


def test_text_goes_to_standard_output_and_nothing_to_standard_error(source):
    done = run("copy", source, "null:")
    assert done.returncode == 0 and done.stderr == ""
    assert hashlib.sha256(source.read_bytes()).hexdigest() in done.stdout
    assert "copied 5.00 MiB" in done.stdout


def test_holes_stay_holes_and_small_files_are_copied(tmp_path):
    sparse = tmp_path / "sparse"
    with open(sparse, "wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"data")
    report = report_of(sparse, tmp_path / "copy", "--verify")
    assert (tmp_path / "copy").stat().st_blocks <= sparse.stat().st_blocks
    assert report["sha256"] == hashlib.sha256(sparse.read_bytes()).hexdigest()
    (tmp_path / "empty").write_bytes(b"")
    assert report_of(tmp_path / "empty", tmp_path / "copy")["bytes"] == 0
    assert (tmp_path / "copy").read_bytes() == b""


def test_preserve(source):
    source.chmod(0o640)
    os.utime(source, ns=(10**18, 10**18 + 5))
    target = source.with_name("target")
    report_of(source, target, "--preserve")
    found = target.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (0o640, 10**18 + 5)


def test_misuse_is_one_line_and_two(source, tmp_path):
    refused(2, says="no command given")
    refused(2, "copy", says="missing argument 'SRC'")
    refused(2, "nonsense", says="no such command 'nonsense'")
    refused(2, "copy", source, "null:", "--nonsense", says="no such option: --nonsense")
    refused(2, "copy", source, "null:", "--memory", "5MB", says="5MB")
    refused(2, "copy", source, "null:", "--memory", "64KiB", says="the least that works")
    refused(2, "copy", source, "null:", "--in-flight", "0", says="at least 1")
    refused(2, "copy", source, "null:", "--in-flight", "x", says="in-flight")
    refused(2, "copy", source, "null:", "--verify", says="leave --verify out")
    refused(2, "copy", "null:", source, says="holds nothing to copy")
    refused(2, "copy", "zero:1", source, "--preserve", says="leave --preserve out")
    refused(2, "copy", source, source, says="is the source, or")
    refused(2, "copy", tmp_path, "null:", says="is a directory")
    refused(2, "copy", "http://host/x", "null:", says="http is not spoken here, only nbd")
    refused(2, "copy", source, "https://host/x", says="https is not spoken here, only nbd")
    assert len(source.read_bytes()) == (5 << 20) + 777


def test_what_cannot_keep_mode_and_times_refuses_to(source):
    for target in ("null:", "memory:8MiB"):
        refused(2, "copy", source, target, "--preserve", says="leave --preserve out")


def test_a_dash_is_no_file_name(source, tmp_path):
    refused(2, "copy", source, "-", says="./-", cwd=tmp_path)
    refused(2, "copy", "-", "null:", says="./-", cwd=tmp_path)
    assert os.listdir(tmp_path) == [source.name]


def test_an_error_of_the_system_says_what_was_asked():
    refused(1, "copy", "/proc/self/mem", "null:", says="cannot read /proc/self/mem")
    refused(1, "copy", f"memory:{1 << 60}", "null:", says="cannot be mapped")


def test_closed_and_full_standard_streams(source):
    for closed in ("1>&-", "2>&-", "0<&-", "0<&- 1>&- 2>&-"):
        assert in_shell(closed, source).returncode == 0
    done = in_shell(">/dev/full", source)
    assert done.returncode == 1
    assert done.stderr == "headway: standard output: No space left on device\n"


def test_help_shows_no_argument_for_an_option_that_takes_none():
    shown = run("copy", "--help").stdout.splitlines()
    for flag in ("--verify", "--no-hash", "--starve", "--preserve", "--json", "--debug"):
        line = next(line for line in shown if f" {flag} " in line)
        assert "bool" not in line.lower()


def in_shell(redirected, source):
    return subprocess.run(
        ["sh", "-c", f'"$0" -m headway copy "$1" null: {redirected}', sys.executable, str(source)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_debug_adds_the_traceback(source):
    done = run("copy", source, source, "--debug")
    assert done.returncode == 2 and "Traceback" in done.stderr


def test_a_fifo_or_socket_is_refused_and_not_waited_on(source, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    refused(2, "copy", tmp_path / "fifo", "null:", says="is a FIFO")
    refused(2, "copy", source, tmp_path / "fifo", says="is a FIFO")
    refused(2, "copy", tmp_path / "socket", "null:", says="is a socket")
    refused(2, "copy", source, tmp_path / "socket", says="is a socket")


def test_missing_and_unreadable_sources_fail(tmp_path):
    target = tmp_path / "target"
    refused(1, "copy", tmp_path / "none", target, says="No such file or directory")
    secret = tmp_path / "secret"
    secret.write_bytes(b"x")
    secret.chmod(0)
    if not os.access(secret, os.R_OK):
        refused(1, "copy", secret, target, says="Permission denied")
    assert not target.exists()


def test_a_file_too_large_for_the_limit_leaves_the_old_destination(source):
    """RLIMIT_FSIZE: the file cannot even be given its size."""
    target = source.with_name("target")
    target.write_bytes(b"old")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    refused(1, "copy", source, target, says="File too large", preexec_fn=limit)
    assert target.read_bytes() == b"old"
    assert sorted(os.listdir(source.parent)) == ["source", "target"]


@pytest.fixture
def full(tmp_path):
    """A file system of 2 MiB, if this process may mount one."""
    place = tmp_path / "full"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("requires root, to mount a small file system")
    mount = ["mount", "-t", "tmpfs", "-o", "size=2M", "none", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("requires the right to mount")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_no_space_left_names_the_offset_and_leaves_the_old_destination(source, full):
    (full / "target").write_bytes(b"old")
    said = refused(1, "copy", source, full / "target", says="No space left on device")
    assert "at offset" in said
    assert (full / "target").read_bytes() == b"old"
    assert os.listdir(full) == ["target"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_the_old_destination_and_no_debris(tmp_path, number):
    target = tmp_path / "target"
    target.write_bytes(b"old")
    # Endless for a test: a terabyte of zeros.
    copying = subprocess.Popen(
        [*COMMAND, "copy", "zero:1TiB", str(target)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # A shell that runs this in the background has SIGINT ignored, which children inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        wait_until_it_writes(copying)
        copying.send_signal(number)
        out, err = copying.communicate(timeout=60)
    finally:
        copying.kill()
        copying.communicate()
    assert copying.returncode == 1
    assert out == "" and err.count("\n") == 1
    assert err == f"headway: interrupted by {number.name}\n"
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["target"]


@pytest.mark.parametrize("through", ["source", "destination", "leg"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_does_not_wait_for_a_server_that_does_not_answer(tmp_path, number, through):
    """It has 30 seconds for a request; who says to end does not wait for them."""
    device = make(Counted)
    (tmp_path / "source").write_bytes(DATA)
    (tmp_path / "target").write_bytes(b"old")
    with serve(device, listen=f"unix:{tmp_path}/sock", memory="4MiB") as uri:
        words = {
            "source": [uri, tmp_path / "target"],
            "destination": [tmp_path / "source", uri],
            "leg": [tmp_path / "source", tmp_path / "target", "--layer", f"mirror,leg={uri}"],
        }[through]
        device.gate.clear()
        copying = subprocess.Popen(
            [*COMMAND, "copy", *map(str, words)],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            assert device.entered.acquire(timeout=60), copying.stderr.read()
            copying.send_signal(number)
            out, err = copying.communicate(timeout=25)
        finally:
            copying.kill()
            copying.communicate()
            device.gate.set()
    assert (copying.returncode, out) == (1, "")
    assert err == f"headway: interrupted by {signal.Signals(number).name}\n"
    assert (tmp_path / "target").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["source", "target"]


def wait_until_it_writes(process):
    """Watch the kernel's count of bytes written; no guess about how long that takes."""
    while process.poll() is None:
        with open(f"/proc/{process.pid}/io") as counts:
            written = next(line for line in counts if line.startswith("wchar"))
        if int(written.split()[1]) > 1 << 20:
            return
    raise AssertionError(process.stderr.read())


def test_a_block_device_is_written_in_place(source, tmp_path):
    image = tmp_path / "image"
    image.write_bytes(b"\xff" * (8 << 20))
    if os.geteuid() != 0:
        pytest.skip("requires root, to make a loop device")
    made = subprocess.run(
        ["losetup", "--find", "--show", str(image)], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip("requires a loop device")
    loop = made.stdout.strip()
    try:
        report = report_of(source, loop, "--verify")
        assert stat.S_ISBLK(os.stat(loop).st_mode)
        data = source.read_bytes()
        assert report["sha256"] == hashlib.sha256(data).hexdigest()
        back = tmp_path / "back"
        report_of(loop, back, "--no-hash")
        assert back.read_bytes() == data + b"\xff" * ((8 << 20) - len(data))
    finally:
        subprocess.run(["losetup", "--detach", loop], check=True)


def test_without_the_extra_one_line_names_it(tmp_path):
    (tmp_path / "typer.py").write_text("raise ImportError")
    done = run("copy", "zero:1", "null:", env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout) == (1, "")
    assert "headway[cli]" in done.stderr and done.stderr.count("\n") == 1


def test_layers_are_given_one_by_one_and_misspelt_ones_are_misuse(tmp_path):
    source, target, leg = tmp_path / "source", tmp_path / "target", tmp_path / "leg"
    source.write_bytes(data := random.Random(3).randbytes(300_001))
    leg.write_bytes(bytes(400_000))
    options = ["--layer", f"mirror,leg={leg}", "--layer", "bounce,buffer=64KiB", "--memory", "4MiB"]
    report = report_of(source, target, *options, "--starve", "--verify")
    assert report["sha256"] == hashlib.sha256(data).hexdigest()
    assert target.read_bytes() == data and leg.read_bytes()[:300_001] == data
    refused(2, "copy", source, target, "--layer", "bounce,bufer=1MiB", says="no option 'bufer'")


def test_an_open_descriptor_is_no_destination(source, tmp_path):
    """A new file would take the place of what standard output goes to, unseen by those who write on."""
    kept = tmp_path / "kept"
    with kept.open("w") as out:
        done = subprocess.run(
            [sys.executable, "-m", "headway", "copy", str(source), "/dev/stdout"],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
        )
        out.write("still the same file\n")
    assert done.returncode == 2 and "is an open descriptor" in done.stderr
    assert kept.read_text() == "still the same file\n"
