"""Real clients on a served device: nbdcopy, nbdinfo, nbdsh, qemu-img, qemu-io, fio; nbdkit for ours.

They are Debian packages (`.ci/run` installs them); a test is skipped where its client is missing.
"""

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys

import pytest

from headway.copying import copy
from headway.exports import open_exports
from headway.server import serve

SIZE = 8 << 20
PACKAGE = {
    "nbdcopy": "libnbd-bin",
    "nbdinfo": "libnbd-bin",
    "nbdsh": "python3-libnbd",
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "fio": "fio",
    "nbdkit": "nbdkit",
}


def requires(*commands):
    missing = [command for command in commands if shutil.which(command) is None]
    packages = ", ".join(sorted({PACKAGE[command] for command in missing}))
    return pytest.mark.skipif(bool(missing), reason=f"needs {packages} (a Debian package)")


def run(*command, **options):
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=120, **options
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    return path


@contextlib.contextmanager
def served(image, memory="2MiB", **options):
    exports = open_exports([str(image)], read_only=options.get("read_only", False))
    place = f"unix:{image.parent}/sock"
    with serve(exports, listen=place, memory=memory, **options) as uri:
        yield uri


@requires("nbdcopy")
@pytest.mark.parametrize("options", [[], ["--connections=1", "--requests=64"], ["--synchronous"]])
def test_nbdcopy_both_ways(image, tmp_path, options):
    with served(image) as uri:
        run("nbdcopy", *options, uri, tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == image.read_bytes()
        (tmp_path / "new").write_bytes(random.Random(2).randbytes(SIZE))
        run("nbdcopy", "--flush", *options, tmp_path / "new", uri)
    assert image.read_bytes() == (tmp_path / "new").read_bytes()


@requires("nbdcopy")
def test_nbdcopy_with_requests_larger_than_memory(image, tmp_path):
    with served(image, memory="256KiB") as uri:
        run("nbdcopy", "--request-size=4194304", "--requests=4", uri, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == image.read_bytes()


@requires("nbdinfo")
def test_nbdinfo(image):
    with served(image) as uri:
        info = json.loads(run("nbdinfo", "--json", uri))
        export = info["exports"][0]
        assert info["protocol"] == "newstyle-fixed" and info["structured"]
        assert export["export-size"] == SIZE and export["contexts"] == ["base:allocation"]
        for what in ("multi_conn", "flush", "fua", "trim", "zero", "cache"):
            assert export[f"can_{what}"], what
        assert not export["is_read_only"]
        run("nbdinfo", "--can", "multi-conn", uri)
        assert json.loads(run("nbdinfo", "--map", "--json", uri))[0]["type"] == 0
        assert "export=" in run("nbdinfo", "--list", uri)


NBDSH = """
import errno, random
size = h.get_size()
h.set_strict_mode(0)
dice, model = random.Random(3), bytearray(h.pread(size, 0))
for _ in range(300):
    length = dice.choice([1, 511, 4096, 70000])
    offset = dice.randrange(size - length)
    if dice.random() < 0.5:
        data = dice.randbytes(length)
        h.pwrite(data, offset, nbd.CMD_FLAG_FUA if dice.random() < 0.1 else 0)
        model[offset:offset + length] = data
    elif dice.random() < 0.2:
        h.zero(length, offset)
        model[offset:offset + length] = bytes(length)
    else:
        assert h.pread(length, offset) == model[offset:offset + length]
def refused(number, ask, *arguments):
    try:
        ask(*arguments)
    except nbd.Error as error:
        assert error.errnum == number, error
    else:
        raise AssertionError((number, ask, arguments))
refused(errno.EINVAL, h.pread, 512, size - 511)
refused(errno.ENOSPC, h.pwrite, bytes(512), size - 511)
refused(errno.EINVAL, h.pread, 0, 0)
refused(errno.EINVAL, h.trim, 512, size - 511)
h.flush()
assert h.pread(size, 0) == model
h.shutdown()
"""


def nbdsh(*arguments):
    """Run nbdsh with the system's Python, for which its package is made."""
    path = os.pathsep.join(["/usr/bin", "/bin", os.environ["PATH"]])
    run("nbdsh", *arguments, env={**os.environ, "PATH": path})


@requires("nbdsh")
@pytest.mark.parametrize("connect", ["uri", "stdio", "activation"])
def test_nbdsh_random_and_bad_requests(image, connect):
    command = [sys.executable, "-m", "headway", "serve", str(image)]
    if connect == "uri":
        with served(image) as uri:
            nbdsh("-u", uri, "-c", NBDSH)
        return
    ask = {"stdio": "h.connect_command", "activation": "h.connect_systemd_socket_activation"}
    words = [*command, "--stdio"] if connect == "stdio" else command
    nbdsh("-c", f"{ask[connect]}({words!r})", "-c", NBDSH)


@requires("qemu-img", "qemu-io")
def test_qemu(image, tmp_path):
    with served(image) as uri:
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri)
        commands = ["write -P 7 0 1M", "read -P 7 0 1M", "write -z 512k 64k", "read -P 0 512k 64k"]
        commands += [
            "discard 1M 1M",
            "flush",
            "aio_write -P 9 5M 2M",
            "aio_flush",
            "read -P 9 5M 2M",
        ]
        out = run("qemu-io", "-f", "raw", *(word for c in commands for word in ("-c", c)), uri)
        assert "failed" not in out and "Pattern" not in out
        run("qemu-img", "convert", "-f", "raw", "-O", "raw", uri, tmp_path / "out")
        run("qemu-img", "convert", "-n", "-O", "raw", "-W", tmp_path / "out", uri)
    assert (tmp_path / "out").read_bytes() == image.read_bytes()


@requires("fio")
@pytest.mark.parametrize("memory", ["256KiB", "4MiB"])
def test_fio_verifies_what_it_wrote(image, memory):
    with served(image, memory=memory) as uri:
        command = ["fio", "--name=v", "--ioengine=nbd", f"--uri={uri}", "--rw=randwrite"]
        command += ["--bsrange=512-128k", "--iodepth=16", f"--size={SIZE}", "--verify=crc32c"]
        run(*command, "--verify_fatal=1", "--do_verify=1", cwd=image.parent)


def wait_until_it_listens(process, path):
    """Its name is there a moment before anybody answers on it."""
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                return
        assert process.poll() is None


@requires("nbdkit")
@pytest.mark.parametrize("plugin", ["file", "readahead"])
def test_our_client_and_nbdkit(image, tmp_path, plugin):
    """nbdkit with block sizes that it insists on, too."""
    path = tmp_path / "kit"
    command = ["nbdkit", "-f", "-U", str(path), "file", str(image)]
    if plugin == "readahead":
        command[1:1] = ["--filter=readahead"]
    process = subprocess.Popen(command)
    try:
        wait_until_it_listens(process, path)
        uri = f"nbd+unix:///?socket={path}"
        report = copy(uri, tmp_path / "out", memory="4MiB", verify=True)
        assert report.bytes == SIZE
        assert (tmp_path / "out").read_bytes() == image.read_bytes()
        (tmp_path / "new").write_bytes(random.Random(2).randbytes(SIZE))
        assert copy(tmp_path / "new", uri, memory="4MiB", verify=True).verified
    finally:
        process.terminate()
        process.wait()
    assert image.read_bytes() == (tmp_path / "new").read_bytes()
