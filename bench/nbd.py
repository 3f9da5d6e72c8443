"""The NBD server beside nbdkit: fio's nbd engine over a Unix socket, the same file in memory.

Every server serves the same file in every round, one after another, so that noise meets all alike;
a ratio is the median of the ratios within a round. `nbdkit python` is nbdkit's Python plugin with a
plugin that reads and writes a file, in its parallel model: what a Python user writes today. `3 layers`
is as much served through linear, stripe (over two files) and linear, `bounced` through linear, bounce (buffers
from a reserve of the layer's own) and linear.

It does not show networks, disks, encryption, or machines with more processors than it has.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.measure import Row, compared, in_turn

SIZE = 512 << 20
RUN_S = 1
# name, fio's rw, block size, depth, what is compared; goal beside nbdkit file and nbdkit python
CASES = [
    ("4K read", "randread", "4k", 16, "iops", 1.0, 3.0),
    ("4K write", "randwrite", "4k", 16, "iops", 0.7, 3.0),
    ("256K read", "read", "256k", 8, "MB/s", 0.85, 1.0),
    ("256K write", "write", "256k", 8, "MB/s", 0.7, 0.85),
]

LAYERED = {
    "3 layers": ["linear,offset=1MiB", "stripe,with=OTHER", "linear"],
    "bounced": ["linear,offset=1MiB", "bounce,reserve=8", "linear"],
}
PLUGIN = """
import os
API_VERSION = 2
path = None
def config(key, value):
    global path
    path = value
def thread_model():
    import nbdkit
    return nbdkit.THREAD_MODEL_PARALLEL
def open(readonly):
    return os.open(path, os.O_RDWR)
def close(h):
    os.close(h)
def get_size(h):
    return os.fstat(h).st_size
def pread(h, buf, offset, flags):
    os.preadv(h, [buf], offset)
def pwrite(h, buf, offset, flags):
    os.pwrite(h, buf, offset)
def flush(h, flags):
    os.fsync(h)
"""


def run(quick: bool) -> list[Row]:
    """Rows beside nbdkit; none where fio or nbdkit is missing."""
    rounds = 1 if quick else 7
    if shutil.which("fio") is None or shutil.which("nbdkit") is None:
        return []
    rows: list[Row] = []
    with ExitStack() as stack:
        parent = "/dev/shm" if Path("/dev/shm").is_dir() else None
        place = Path(
            stack.enter_context(tempfile.TemporaryDirectory(dir=parent, prefix="headway-bench-"))
        )
        sockets = _servers(stack, place)
        for name, kind, block, depth, unit, against_file, against_python in CASES:
            ways: dict[str, Callable[[], float]] = {}
            for server, path in sockets.items():
                ways[server] = fio(path, kind, block, depth, unit)
            taken = in_turn(ways, rounds=rounds)
            for ours in ("ours", *LAYERED):
                label = name if ours == "ours" else f"{name}, {ours}"
                for peer, goal in (
                    ("nbdkit file", against_file),
                    ("nbdkit python", against_python),
                ):
                    if peer in taken:
                        rows.append(
                            compared(
                                label,
                                taken[ours],
                                unit,
                                peer,
                                taken[peer],
                                goal=goal,
                                better="higher",
                            )
                        )
    return rows


def _servers(stack: ExitStack, place: Path) -> dict[str, Path]:
    """Start every server on the same file; the socket of each."""
    image, other, plugin = place / "image", place / "other", place / "plugin.py"
    for path in (image, other):
        with open(path, "wb") as file:
            for _ in range(SIZE >> 20):
                file.write(b"\xa5" * (1 << 20))
    plugin.write_text(PLUGIN)
    serve = [sys.executable, "-m", "headway", "serve", str(image), "--listen", "unix:SOCKET"]
    commands = {
        "ours": serve,
        "nbdkit file": ["nbdkit", "-f", "-U", "SOCKET", "file", str(image)],
        "nbdkit python": ["nbdkit", "-f", "-U", "SOCKET", "python", str(plugin), f"file={image}"],
    }
    for name, layers in LAYERED.items():
        words = [layer.replace("OTHER", str(other)) for layer in layers]
        commands[name] = [*serve, *(word for layer in words for word in ("--layer", layer))]
    return {
        name: stack.enter_context(serving(place / f"{name.replace(' ', '-')}.sock", command))
        for name, command in commands.items()
    }


@contextmanager
def serving(path: Path, command: list[str]) -> Iterator[Path]:
    """A server that runs as long as the block, from when it takes connections; SOCKET in `command` is `path`.

    Raises: RuntimeError with what it said if it ended before.
    """
    words = [word.replace("SOCKET", str(path)) for word in command]
    path.unlink(missing_ok=True)
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(words, stderr=said)
        try:
            while not _answers(path):
                if process.poll() is not None:
                    said.seek(0)
                    raise RuntimeError(f"{' '.join(words)}: {said.read().decode().strip()}")
                time.sleep(0.02)
            yield path
        finally:
            process.kill()  # some would wait for clients that have stopped reading
            process.wait()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def fio(path: Path, kind: str, block: str, depth: int, unit: str) -> Callable[[], float]:
    """Measures one case against the server at `path`."""
    command = ["fio", "--name=bench", "--ioengine=nbd", f"--uri=nbd+unix:///?socket={path}"]
    command += [f"--rw={kind}", f"--bs={block}", f"--iodepth={depth}", f"--size={SIZE - (1 << 20)}"]
    command += [f"--runtime={RUN_S}", "--time_based", "--ramp_time=0.3", "--output-format=json"]

    def measure() -> float:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        job = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
        side = job["read"] if "read" in kind else job["write"]
        return float(side["iops"]) if unit == "iops" else side["bw_bytes"] / 1e6

    return measure


if __name__ == "__main__":
    for row in run("--quick" in sys.argv):
        print(row)
