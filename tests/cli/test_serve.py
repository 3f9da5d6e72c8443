"""`headway serve` as a process: where it listens, how it ends, and what it leaves behind."""

import contextlib
import json
import os
import random
import select
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time

import pytest

from tests.nbd_client import READ, Client, connect

pytest.importorskip("typer")

COMMAND = [sys.executable, "-m", "headway", "serve"]
SIZE = 3 << 20


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    return path


@contextlib.contextmanager
def serving(*arguments, lines=1, **options):
    """A running server, and what it said first on standard error."""
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    try:
        process.said = [process.stderr.readline() for _ in range(lines)]
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process, number=signal.SIGTERM):
    """Ask it to end; (status, standard output, standard error)."""
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err


def refused(status, *arguments, says, **options):
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=60, **options
    )
    assert (done.returncode, done.stdout) == (status, ""), done
    assert done.stderr.startswith("headway: ") and done.stderr.count("\n") == 1, done.stderr
    assert says in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_it_serves_until_told_to_end(image, tmp_path, number):
    path = tmp_path / "s"
    with serving(image, f"b={image}", "--listen", f"unix:{path}", "--json", lines=2) as process:
        assert process.said[0] == f"headway: serving nbd+unix:///?socket={path}\n"
        assert process.said[1] == f"headway: serving nbd+unix:///b?socket={path}\n"
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        client, other = connect(path), connect(path, export="b")
        assert client.read(5, 1000) == image.read_bytes()[5:1005]
        assert other.write(0, b"new") == b"" and client.read(0, 3) == b"new"
        status, out, err = ended(process, number)
        assert (status, err) == (0, "")
        report = json.loads(out)
        assert report["connections"] == 2 and report["requests"] == 3
        assert 0 < report["memory_peak"] <= report["memory_limit"] == 64 << 20
        assert not os.path.exists(path)
        client.close()
        other.close()


def test_a_stuck_client_does_not_keep_it(image, tmp_path):
    with serving(image, "--listen", f"unix:{tmp_path}/s") as process:
        stuck = connect(tmp_path / "s")
        for _ in range(20):
            stuck.send(READ, 0, SIZE)
        silent = socket.socket(socket.AF_UNIX)
        silent.connect(str(tmp_path / "s"))
        assert ended(process)[0] == 0  # and within the time limit there
        stuck.close()
        silent.close()


def test_a_stale_socket_is_no_obstacle(image, tmp_path):
    path = tmp_path / "s"
    with serving(image, "--listen", f"unix:{path}") as process:
        process.kill()
        process.wait()
    assert path.is_socket()
    with serving(image, "--listen", f"unix:{path}") as process:
        client = connect(path)
        refused(1, image, "--listen", f"unix:{path}", says="another server answers there")
        assert client.read(0, 1)
        client.close()
        assert ended(process)[0] == 0


def test_a_file_in_the_sockets_place_is_never_deleted(image, tmp_path):
    path = tmp_path / "precious"
    path.write_text("precious")
    refused(2, image, "--listen", f"unix:{path}", says="is no socket")
    assert path.read_text() == "precious"
    link = tmp_path / "link"
    link.symlink_to(path)
    refused(2, image, "--listen", f"unix:{link}", says="is no socket")
    assert link.is_symlink() and path.read_text() == "precious"


def test_a_socket_that_another_took_over_is_left_alone(image, tmp_path):
    path = tmp_path / "s"
    with serving(image, "--listen", f"unix:{path}") as process:
        os.unlink(path)
        path.write_text("mine")
        assert ended(process)[0] == 0
    assert path.read_text() == "mine"


def test_shared_keys_are_used_or_refused_in_one_line(image, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(f"alice:{random.randbytes(32).hex()}\n")
    keys.chmod(0o644)
    words = [image, "--listen", f"unix:{tmp_path}/s", "--tls", "require", "--tls-psk", keys]
    if not hasattr(ssl.SSLContext, "set_psk_server_callback"):
        refused(2, *words, says="needs Python 3.13 or newer")
        return
    with serving(*words, lines=2) as process:
        assert process.said[0] == f"headway: warning: {keys} can be read by others: chmod 600 it\n"
        assert process.said[1] == f"headway: serving nbds+unix:///?socket={tmp_path}/s\n"


def test_tcp_without_a_host_is_loopback_and_elsewhere_it_warns(image):
    with serving(image, "--listen", "tcp::0") as process:
        uri = process.said[0].split()[-1]
        assert uri.startswith("nbd://127.0.0.1:")
        port = int(uri.rstrip("/").rpartition(":")[2])
        client = Client(socket.create_connection(("127.0.0.1", port)))
        assert client.size == SIZE
        client.close()
    with serving(image, "--listen", "tcp:0.0.0.0:0", lines=2) as process:
        assert "warning: tcp:0.0.0.0:" in process.said[0]
        assert "nothing has to be encrypted" in process.said[0]


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["IMAGE"], 2, "no place to listen"),
        (["IMAGE", "--listen", "tcp:10809x"], 2, "write tcp:[HOST]:PORT"),
        (["IMAGE", "--listen", "udp:1"], 2, "write unix:PATH or tcp:[HOST]:PORT"),
        (["IMAGE", "--listen", "unix:" + "x" * 120], 2, "use a shorter one"),
        (["IMAGE", "--listen", "unix:/does/not/exist"], 1, "cannot listen on"),
        (["IMAGE", "IMAGE", "--listen", "tcp::0"], 2, "another device has no name"),
        (["a=IMAGE", "a=IMAGE", "--listen", "tcp::0"], 2, "the name 'a' already"),
        (["missing", "--listen", "tcp::0"], 1, "cannot write missing"),
        (["/tmp", "--listen", "tcp::0"], 2, "is a directory"),
        (["IMAGE", "--listen", "tcp::0", "--memory", "64KiB"], 2, "needs 128KiB or more"),
        (["IMAGE", "--listen", "tcp::0", "--memory", "64MB"], 2, "64MB"),
        (["IMAGE", "--stdio", "--listen", "tcp::0"], 2, "leave --listen out"),
        (["null:", "--listen", "tcp::0"], 2, "null: has no size to serve"),
        (["memory:", "--listen", "tcp::0"], 2, "memory: has no size"),
        (["IMAGE", "--stdio"], 2, "needs a connected socket"),
    ],
)
def test_misuse_is_one_line(image, capsys, arguments, status, says):
    from headway.cli.app import run

    words = [word.replace("IMAGE", str(image)) for word in arguments]
    assert run(["serve", *words]) == status
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("headway: ") and err.count("\n") == 1
    assert says in err


def test_a_read_only_file_needs_read_only(image, tmp_path):
    with serving("--read-only", image, "--listen", f"unix:{tmp_path}/s"):
        client = connect(tmp_path / "s")
        assert client.write(0, b"x") == 1 and client.flags & 2
        client.close()


def test_one_client_on_standard_input(image):
    ours, theirs = socket.socketpair()
    with serving(image, "--stdio", lines=0, stdin=theirs) as process:
        theirs.close()
        client = Client(ours)
        assert client.read(0, SIZE) == image.read_bytes()
        client.close()
        assert process.wait(20) == 0
        assert process.stderr.read() == ""


ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=sys.argv[2])
os.execv(sys.executable, [sys.executable, "-m", "headway", "serve", *sys.argv[3:]])
"""


def test_sockets_that_a_supervisor_passes_on(image, tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/s")
        listener.listen()
        listener.set_inheritable(True)
        command = [sys.executable, "-c", ACTIVATE, str(listener.fileno()), "1", str(image)]
        process = subprocess.Popen(
            command, pass_fds=[listener.fileno()], stderr=subprocess.PIPE, text=True
        )
    try:
        assert "serving nbd+unix:///?socket=" in process.stderr.readline()
        client = connect(tmp_path / "s")
        assert client.read(9, 9) == image.read_bytes()[9:18]
        client.close()
        assert ended(process)[0] == 0
    finally:
        process.kill()
        process.communicate()
    assert (tmp_path / "s").is_socket()  # it belongs to the supervisor


def test_200_connections_opened_and_dropped(image, tmp_path):
    """In every state: silent, in the negotiation, in a request; in order, and all at once."""
    path = str(tmp_path / "s")
    with serving(image, "--listen", f"unix:{path}", "--memory", "1MiB") as process:
        files = len(os.listdir(f"/proc/{process.pid}/fd"))
        said = [b"", b"\0\0\0\3", b"\0\0\0\3IHAVEOPT\0\0\0\7\0\0", b"GET / HTTP/1.0\r\n\r\n"]
        for together in (1, 50):
            for number in range(200 // together):
                socks = []
                for n in range(together):
                    sock = socket.socket(socket.AF_UNIX)
                    sock.connect(path)
                    sock.sendall(said[(number + n) % len(said)])
                    socks.append(sock)
                for sock in socks:
                    sock.close()
        client = connect(path)
        assert client.read(0, SIZE) == image.read_bytes()
        client.close()
        deadline = time.monotonic() + 20
        while len(os.listdir(f"/proc/{process.pid}/fd")) > files:
            assert time.monotonic() < deadline, "descriptors of dropped connections are open"
            select.select([], [], [], 0.01)
        status, _, err = ended(process)
        assert status == 0 and "on 401 connections" in err


def test_more_clients_than_memory_allows_wait_for_their_turn(image, tmp_path):
    path = tmp_path / "s"
    with serving(image, "--listen", f"unix:{path}", "--memory", "128KiB"):
        first = connect(path)
        second = socket.socket(socket.AF_UNIX)
        second.connect(str(path))
        assert first.read(0, 100_000) == image.read_bytes()[:100_000]
        assert not select.select([second], [], [], 0)[0]  # it has not been greeted
        first.close()
        client = Client(second)
        assert client.read(0, 100_000) == image.read_bytes()[:100_000]
        client.close()
