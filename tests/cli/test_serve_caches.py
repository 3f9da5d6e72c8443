"""`headway serve` with layers that keep a log: killed in the middle, what was flushed is there."""

from __future__ import annotations

import random

import pytest

from tests.cli.test_serve import ended, serving
from tests.nbd_client import connect

BLOCK = 4096
BLOCKS = 128
FLUSH, TRIM, ZEROES, FUA = 3, 4, 6, 1


@pytest.fixture(params=["writecache,cache={}/fast,section=30,drain=no"], ids=["writecache"])
def command(request, tmp_path):
    (tmp_path / "disk").write_bytes(bytes(BLOCKS * BLOCK))
    (tmp_path / "fast").write_bytes(bytes(80 * BLOCK))
    layer = request.param.format(tmp_path)
    return [
        tmp_path / "disk",
        "--layer",
        layer,
        "--listen",
        f"unix:{tmp_path}/s",
        "--memory",
        "8MiB",
    ]


def test_a_killed_server_has_kept_what_was_flushed(command, tmp_path):
    chance = random.Random(3)
    model = bytearray(BLOCKS * BLOCK)
    for _ in range(4):
        with serving(*command) as process:
            client = connect(tmp_path / "s")
            assert client.read(0, len(model)) == model
            for _ in range(40):
                number = chance.randrange(BLOCKS - 8)
                data = chance.randbytes(chance.randrange(1, 9) * BLOCK)
                model[number * BLOCK : number * BLOCK + len(data)] = data
                client.write(number * BLOCK, data, FUA * (chance.random() < 0.2))
            client.ask(ZEROES, 5 * BLOCK, 2 * BLOCK)
            model[5 * BLOCK : 7 * BLOCK] = bytes(2 * BLOCK)
            client.ask(FLUSH)
            process.kill()
            process.wait()
            client.close()
    with serving(*command) as process:
        client = connect(tmp_path / "s")
        assert client.read(0, len(model)) == model
        client.close()
        assert ended(process)[0] == 0
