"""Memory-starved stacks behind the server: each layer with its reserve at the documented minimum.

Every allocation beyond a reserve fails, and the server has as few frames as it can: requests are slower
then, but every one of them ends, and rightly. (In the simulator: `tests/core/block/layers/test_conformance.py`
and `tests/simulation`.)
"""

import random
import threading

import pytest

from headway.core.block.layers import LAYERS
from headway.devices import open_stack
from headway.threaded import Zone
from tests.edge.serving.served import Served
from tests.nbd_client import FLUSH, ZERO

SIZE = 256 << 10
CLIENTS = 4
SHARE = 48 << 10
# Each layer as small as its page lets it be. A layer of headway that is not here fails the first test.
SMALLEST = {
    "bounce": "bounce,buffer=4KiB,reserve=1",
    "crypt": "crypt,format=plain,key-file={key},sector=512,buffer=4KiB,reserve=1",
    "crypt of LUKS1": "crypt,create=yes,format=luks1,{luks},buffer=4KiB,reserve=1",
    "crypt of LUKS2": "crypt,create=yes,sector=512,{luks},buffer=4KiB,reserve=1",
    "delay": "delay,seconds=0.0001",
    "ebs": "ebs,reserve=1",
    "error": "error,offset=250KiB,size=512,ops=writes",
    "flaky": "flaky,up=1000000",
    "integrity": "integrity,create=yes,block=512,section=1",
    "linear": "linear,offset=4KiB",
    "mirror": "mirror,leg={leg},window=4KiB",
    "stripe": "stripe,with={leg},chunk=4KiB",
    "thin": "thin,create=yes,block=512,extent=4KiB",
    "verity": "verity,hash={leg},create=yes,block=512",
    "writecache": "writecache,cache={leg},create=yes,block=512,section=4,buffer=512",
}
ALL = [
    "linear",
    "thin",
    "integrity",
    "crypt",
    "mirror",
    "bounce",
    "writecache",
    "stripe",
    "flaky",
    "delay",
    "ebs",
]


def test_every_layer_is_starved_here():
    written = {name.split()[0] for name in SMALLEST}
    assert written | {"qcow2"} == set(LAYERS)  # that one has its own test: it cannot be written


@pytest.fixture
def place(tmp_path):
    """Specifications with their files: a key, and a leg for each time one is asked for."""
    (tmp_path / "key").write_bytes(random.Random(1).randbytes(64))
    (tmp_path / "key").chmod(0o600)
    legs = 0

    def spec(text):
        nonlocal legs
        legs += 1
        leg = tmp_path / f"leg{legs}"
        leg.write_bytes(bytes(2 * SIZE))
        luks = f"key-file={tmp_path / 'key'},key-bits=256,iterations=1000,header={leg}"
        return text.format(key=tmp_path / "key", leg=leg, luks=luks)

    (tmp_path / "image").write_bytes(bytes(2 * SIZE))
    return tmp_path / "image", spec


def starved(image, specs, zone):
    return open_stack(
        str(image), specs, memory=zone, writable=True, starve=True, prompt=True, private=True
    )


def use(client, start, failures):
    """Writes, zeroes and reads its own share, in requests larger than any reserve."""
    chance, model = random.Random(start), bytearray(SHARE)
    try:
        assert client.ask(ZERO, start, SHARE) == b""
        for _ in range(6):
            offset = chance.randrange(0, SHARE, 512)
            length = chance.randrange(512, min(SHARE - offset, 24 << 10) + 1, 512)
            model[offset : offset + length] = data = chance.randbytes(length)
            assert client.write(start + offset, data) == b""
            assert client.read(start, SHARE) == model
        assert client.ask(FLUSH) == b""
        assert client.read(start, SHARE) == model
    except BaseException as error:
        failures.append(error)


def at_once(clients, work):
    failures = []
    threads = [
        threading.Thread(target=work, args=(client, number * SHARE, failures))
        for number, client in enumerate(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def served(device):
    served = Served(device, "512KiB")
    for _ in range(CLIENTS):
        served.connect()
    return served, served.start()


@pytest.mark.parametrize("layers", [*[[name] for name in SMALLEST], ALL], ids="+".join)
def test_memory_starved_stacks_complete_every_request_of_every_client(place, layers):
    image, spec = place
    with Zone("256KiB", min_free=0) as zone:
        under = (
            ["integrity,create=yes,section=1"] if layers == ["ebs"] else []
        )  # has parts to do then
        device = starved(image, [*under, *(spec(SMALLEST[name]) for name in layers)], zone)
        assert device.size >= CLIENTS * SHARE
        server, clients = served(device)
        at_once(clients, use)
        server.end()
        reserves = [pool for site in device.stack.sites for pool in site.pools]
        busy = [pool for pool in reserves if "resync" not in pool.name]
        assert not busy or any(pool.stats().reserve_uses for pool in busy)
        device.close()


def test_a_memory_starved_tree_vouches_for_every_request_of_every_client(place):
    image, spec = place
    data = random.Random(2).randbytes(SIZE)
    text = spec("verity,hash={leg},block=512")
    with Zone("64KiB", min_free=0) as zone:
        with starved(image, [f"{text},create=yes"], zone) as making:
            making.pwrite(memoryview(bytearray(data)), 0)
            making.flush()
            root = making.stack.top.root.hex()
        device = starved(image, [f"{text},root={root}"], zone)

        def read(client, start, failures):
            chance = random.Random(start)
            try:
                for _ in range(6):
                    offset = chance.randrange(0, SIZE - SHARE, 512)
                    assert client.read(offset, SHARE) == data[offset : offset + SHARE]
            except BaseException as error:
                failures.append(error)

        server, clients = served(device)
        at_once(clients, read)
        server.end()
        device.close()
