"""Real servers that a test starts itself, on private sockets; a test is skipped where they are not installed."""

import contextlib
import glob
import http.server
import os
import shutil
import signal
import subprocess
import tempfile
import threading

import pytest


def _wait_until(answers, process):
    while not answers():
        if process.poll() is not None:
            pytest.fail(f"{process.args[0]} ended: {process.communicate()}")


@contextlib.contextmanager
def redis_server(folder):
    """The path of a socket on which a redis-server answers."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("requires redis-server (Debian: apt install redis-server)")
    path = f"{folder}/redis.sock"
    process = subprocess.Popen(
        [program, "--port", "0", "--unixsocket", path, "--save", "", "--dir", str(folder)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        _wait_until(lambda: os.path.exists(path), process)
        yield path
    finally:
        process.terminate()
        process.communicate()


@contextlib.contextmanager
def postgres_server():
    """A connection string for a PostgreSQL of the test's own; it refuses to run as root, so it runs as nobody does."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    if not found:
        pytest.skip("requires PostgreSQL (Debian: apt install postgresql)")
    who = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(
        prefix="headway-pg-"
    ) as folder:  # pytest's own nobody else may enter
        if who:
            shutil.chown(folder, "postgres", "postgres")
        with _postgres(os.path.dirname(found[-1]), folder, who) as address:
            yield address


@contextlib.contextmanager
def _postgres(programs, folder, who):
    data = f"{folder}/data"
    run = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "cwd": folder, **who}
    made = subprocess.run(
        [f"{programs}/initdb", "-D", data, "-U", "test", "-A", "trust", "--no-sync", "-E", "UTF8"], **run
    )  # fmt: skip
    if made.returncode:
        pytest.skip(f"requires a PostgreSQL that can be set up: {made.stderr.decode()[-200:]}")
    options = [
        "-c",
        "listen_addresses=",
        "-c",
        f"unix_socket_directories={folder}",
        "-c",
        "fsync=off",
    ]
    process = subprocess.Popen([f"{programs}/postgres", "-D", data, *options], **run)
    try:
        ready = [f"{programs}/pg_isready", "-q", "-h", str(folder), "-U", "test"]
        _wait_until(lambda: subprocess.run(ready).returncode == 0, process)
        yield f"host={folder} user=test dbname=postgres"
    finally:
        process.send_signal(signal.SIGINT)  # at once, whoever is still connected
        process.communicate()


class _Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = b"x" * 100_000  # more than one read of the client
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def http_server():
    """The address of a small HTTP server."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
    server.daemon_threads = True
    server.handle_error = lambda request, address: None  # clients that go away are the subject
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
