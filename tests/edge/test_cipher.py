"""AES-XTS: published vectors, and every way against the `cryptography` package on random sectors."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import threading

import pytest

from headway.core.block.crypto import Secret
from headway.edge import libcrypto as found
from headway.edge.cipher import Direct, Packaged, aes_xts
from headway.edge.libcrypto import Sectorwise, libcrypto
from headway.errors import BlockError, NoMemory, UsageError

ciphers = pytest.importorskip("cryptography", reason="the reference is headway[crypt]'s package")

# IEEE 1619-2007, annex B: vectors 4 and 10, whose data is 00 01 ... ff twice over, 512 bytes.
DATA = bytes(range(256)) * 2
VECTORS = [
    (
        "2718281828459045235360287471352631415926535897932384626433832795",
        0,
        "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c",
        "eb4a427d1923ce3ff262735779a418f20a282df920147beabe421ee5319d0568",
    ),
    (
        "2718281828459045235360287471352662497757247093699959574966967627"
        "3141592653589793238462643383279502884197169399375105820974944592",
        0xFF,
        "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b",
        "773dad38014bd2092fa755c824bb5e54c4f36ffda9fcea70b9c6e693e148c151",
    ),
]


def both(length: int) -> tuple[memoryview, memoryview]:
    return memoryview(bytearray(length)), memoryview(bytearray(length))


@pytest.mark.parametrize(("key", "number", "start", "end"), VECTORS)
def test_published_vectors(key: str, number: int, start: str, end: str) -> None:
    made = aes_xts(Secret(bytes.fromhex(key)), 512)
    out = memoryview(bytearray(512))
    made.encrypt(memoryview(DATA), out, number)
    assert out[:32].hex() == start and out[-32:].hex() == end
    made.decrypt(out, out, number)
    assert out == DATA


@pytest.mark.parametrize("size", [512, 1024, 4096])
@pytest.mark.parametrize("key_size", [32, 64])
def test_every_way_gives_what_the_package_gives(size: int, key_size: int) -> None:
    chance = random.Random(size + key_size)
    key = Secret(chance.randbytes(key_size))
    reference = Packaged(key, size)
    library = libcrypto()
    assert library is not None
    from headway.edge.xts import CHUNK, Bulk

    ways = [Direct(library, key, size, None)]
    if size == 512:
        ways.append(Direct(library, key, size, Bulk))
    for length in (size, 8 * size, 111 * size, 112 * size, CHUNK, CHUNK + 9 * size):
        first = chance.choice([0, 1, chance.randrange(1 << 32), (1 << 32) - 3, 1 << 62])
        plain = memoryview(chance.randbytes(length))  # read-only, as a caller's may be
        wanted, found = both(length)
        reference.encrypt(plain, wanted, first)
        for way in ways:
            way.encrypt(plain, found, first)
            assert found == wanted
            way.decrypt(found, found, first)  # in place
            assert found == plain


class Other:
    """The libcrypto that is there, but for one thing it says."""

    def __init__(self, **other: object) -> None:
        self._other = other

    def __getattr__(self, name: str) -> object:
        if name not in self._other:
            return getattr(libcrypto(), name)
        if self._other[name] is None:
            raise AttributeError(name)
        return self._other[name]

    def __getitem__(self, name: str) -> object:
        return libcrypto()[name]


ELSEWHERE = (ctypes.c_uint64 * 2)()  # no tweak that is stored here matters


@pytest.mark.parametrize(
    "tell", [None, lambda handle: None, lambda handle: ctypes.addressof(ELSEWHERE)]
)
@pytest.mark.parametrize("size", [512, 4096])
def test_a_libcrypto_that_does_not_tell_where_its_tweak_is_kept_is_told_each(tell, size) -> None:
    """It has no such call, or says nothing, or tells of a place that it does not look at."""
    key = Secret(random.Random(size).randbytes(64))
    sectors = Sectorwise(Other(EVP_CIPHER_CTX_iv_noconst=tell), key, size, True)
    plain = memoryview(bytearray(random.Random(3).randbytes(20 * size)))
    wanted, found = both(20 * size)
    Packaged(key, size).encrypt(plain, wanted, 1 << 33)
    sectors.run(plain, found, 1 << 33)
    assert found == wanted


@pytest.mark.parametrize("size", [512, 4096])
def test_runs_that_begin_at_the_same_places_and_at_thousands_of_others(size: int) -> None:
    """Pointers are kept by address: of a shorter run before a longer one, and until they are too many."""
    chance = random.Random(size)
    key = Secret(chance.randbytes(64))
    sectors, reference = Sectorwise(libcrypto(), key, size, True), Packaged(key, size)
    plain = memoryview(bytearray(chance.randbytes(40 * size)))
    wanted, found = both(40 * size)
    reference.encrypt(plain, wanted, 0)
    for start, count in [
        (0, 2),
        (0, 9),
        (0, 3),
        *((start, 40 - start) for start in range(40)),
    ] * 12:
        part = slice(start * size, (start + count) * size)
        found[part] = bytes(count * size)
        sectors.run(plain[part], found[part], start * size // 512)
        assert found[part] == wanted[part]


def test_a_sector_counts_512_bytes_whatever_its_size() -> None:
    """dm-crypt without iv_large_sectors: the second sector of 4096 bytes is number 8."""
    key = Secret(random.Random(1).randbytes(64))
    large = aes_xts(key, 4096)
    out, alone = both(8192)
    large.encrypt(memoryview(bytes(8192)), out, 0)
    large.encrypt(memoryview(bytes(4096)), alone[:4096], 8)
    assert out[4096:] == alone[:4096]


@pytest.mark.parametrize("size", [512, 4096])
def test_threads_share_a_cipher_and_a_starved_one_still_works(monkeypatch, size: int) -> None:
    key = Secret(random.Random(2).randbytes(64))
    made = aes_xts(key, size)
    if not isinstance(made, Direct):
        pytest.skip("ctypes finds no libcrypto here")
    wanted, _ = both(128 * size)
    made.encrypt(memoryview(bytes(128 * size)), wanted, 5)
    ended = []

    def refuse(encrypting: bool) -> None:
        raise NoMemory("none")

    def work() -> None:
        view = memoryview(bytearray(128 * size))
        for _ in range(20):
            made.encrypt(memoryview(bytes(128 * size)), view, 5)
            assert view == wanted
            made.decrypt(view, view, 5)
            assert not any(view)
        ended.append(True)

    for starved in (False, True):
        if starved:
            made._ways[0].clear(), made._ways[1].clear()
            monkeypatch.setattr(Direct, "_way", lambda self, encrypting: refuse(encrypting))
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(ended) == 8


def test_keys_that_are_none_are_refused_and_not_shown() -> None:
    for key, why in ((b"x" * 48, "48 bytes"), (b"y" * 64, "must differ")):
        with pytest.raises(UsageError, match=why) as caught:
            aes_xts(Secret(key), 512)
        assert "xx" not in str(caught.value) and "yy" not in str(caught.value)


def test_without_libcrypto_the_package_does_it(monkeypatch) -> None:
    key = Secret(os.urandom(64))
    monkeypatch.setattr(found, "_library", [None])
    made = aes_xts(key, 512)
    assert isinstance(made, Packaged)


def test_a_sector_that_libcrypto_refuses_is_an_error() -> None:
    """XTS has no more than 2**20 blocks in a sector: what is refused must not pass for encrypted."""
    size = (1 << 24) + 16
    sectors = Sectorwise(libcrypto(), Secret(random.Random(4).randbytes(64)), size, True)
    for count in (1, 2):
        plain, out = both(count * size)
        with pytest.raises(BlockError, match="refused") as caught:
            sectors.run(plain, out, 0)
        assert caught.value.errno == errno.EIO


class Short(list):
    """There is no memory for one."""

    def __init__(self, *_: object) -> None:
        raise MemoryError


@pytest.mark.parametrize("count", [40, 5000])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_run_needs_no_memory_that_grows_with_it(monkeypatch, count: int, in_place: bool) -> None:
    """Too long for its pointers to be kept; or there is no memory for them."""
    key = Secret(random.Random(6).randbytes(64))
    sectors = Sectorwise(libcrypto(), key, 512, True)
    plain = memoryview(bytearray(random.Random(7).randbytes(count * 512)))
    wanted, found_here = both(count * 512)
    Packaged(key, 512).encrypt(plain, wanted, 9)
    if count == 40:
        monkeypatch.setattr(found, "list", Short, raising=False)
    out = plain if in_place else found_here
    sectors.run(plain, out, 9)
    assert out == wanted and not sectors._kept


@pytest.mark.parametrize("size", [512, 4096])
def test_a_cipher_that_is_closed_has_no_key(size: int) -> None:
    made = aes_xts(Secret(random.Random(8).randbytes(64)), size)
    if not isinstance(made, Direct):
        pytest.skip("ctypes finds no libcrypto here")
    view = memoryview(bytearray(size))
    made.encrypt(view, view, 0)
    made.close()
    for move in (made.encrypt, made.decrypt):
        with pytest.raises(UsageError, match="closed"):
            move(view, view, 0)
    assert made._spare is None and made._ways == ([], [])
