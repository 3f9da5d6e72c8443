"""Real clients on a stack of five layers: what they wrote is what they, and the others, read."""

import contextlib
import random

import pytest

from headway.exports import open_exports
from headway.server import serve
from tests.integration.test_nbd_clients import NBDSH, SIZE, nbdsh, requires, run

MIRRORED = ["mirror,leg={}", "bounce,buffer=64KiB"]
FIVE = ["linear,offset=64KiB", "stripe,with={},chunk=256KiB", *MIRRORED, "linear"]
SPREAD = ["bounce,buffer=32KiB", "linear,offset=512", "mirror,leg={}", "stripe,with={},chunk=64KiB"]


@pytest.fixture(params=[[*FIVE], [*SPREAD, "delay,seconds=0"]], ids=["mirrored", "spread"])
def layers(request, tmp_path):
    made = []
    for number, layer in enumerate(request.param):
        leg = tmp_path / f"leg{number}"
        if "{}" in layer:
            leg.write_bytes(bytes(2 * SIZE))
        made.append(layer.format(leg))
    return made


@contextlib.contextmanager
def served(tmp_path, layers, memory="4MiB"):
    """A stack of `SIZE` bytes, and the way to it."""
    image = tmp_path / "image"
    image.write_bytes(bytes(SIZE // 2 + (64 << 10)))
    exports = open_exports([str(image)], read_only=False, layers=layers, memory=4 << 20)
    with serve(exports, listen=f"unix:{tmp_path}/sock", memory=memory) as uri:
        yield uri


@requires("nbdcopy")
@pytest.mark.parametrize("options", [[], ["--connections=1", "--requests=64"], ["--synchronous"]])
def test_nbdcopy_through_five_layers_both_ways(tmp_path, layers, options):
    with served(tmp_path, layers) as uri:
        (tmp_path / "in").write_bytes(random.Random(2).randbytes(SIZE - 100_000))
        run("nbdcopy", "--flush", *options, tmp_path / "in", uri)
        run("nbdcopy", *options, uri, tmp_path / "out")
    assert (tmp_path / "out").read_bytes()[: SIZE - 100_000] == (tmp_path / "in").read_bytes()


@requires("fio")
@pytest.mark.parametrize("sizes", ["512-128k", "4k-4k"])
def test_fio_verifies_what_it_wrote_through_five_layers(tmp_path, layers, sizes):
    with served(tmp_path, layers) as uri:
        command = ["fio", "--name=v", "--ioengine=nbd", f"--uri={uri}", "--rw=randwrite"]
        command += [f"--bsrange={sizes}", "--iodepth=16", "--size=4m", "--verify=crc32c"]
        run(*command, "--verify_fatal=1", "--do_verify=1", cwd=tmp_path)


@requires("qemu-io", "qemu-img")
def test_qemu_through_five_layers(tmp_path, layers):
    with served(tmp_path, layers) as uri:
        commands = ["write -P 7 0 1M", "read -P 7 0 1M", "write -z 512k 64k", "read -P 0 512k 64k"]
        commands += ["write -f -P 8 100k 3M", "write -z -u 1M 1M", "read -P 0 1M 1M", "flush"]
        commands += ["discard 2M 64k", "aio_write -P 9 5M 2M", "aio_flush", "read -P 9 5M 2M"]
        words = (word for command in commands for word in ("-c", command))
        out = run("qemu-io", "-f", "raw", *words, uri)
        assert "failed" not in out and "Pattern" not in out
        run("qemu-img", "convert", "-f", "raw", "-O", "raw", uri, tmp_path / "out")
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", tmp_path / "out", uri)


@requires("nbdsh")
def test_nbdsh_random_and_bad_requests_through_five_layers(tmp_path, layers):
    with served(tmp_path, layers) as uri:
        nbdsh("-u", uri, "-c", NBDSH)
