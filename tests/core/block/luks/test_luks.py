"""LUKS1 and LUKS2 against cryptsetup, qemu and nbdkit, both ways; damaged headers; secrets kept."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import random
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

import headway as hw
from headway.core.block.crypto import Secret
from headway.core.block.luks import luks2, volume
from headway.edge.crypto import Crypto
from headway.errors import BlockError, UsageError

SIZE = 1 << 20
QUICK = "iterations=1000"
PASSPHRASE = b"correct horse \xc3\xa9 battery"


def tool(name: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/bin")
    if found is None:
        pytest.skip(
            f"{name} is not installed (Debian: cryptsetup-bin, qemu-utils, nbdkit, libnbd-bin)"
        )
    return found


def run(name: str, *arguments: str | Path) -> str:
    done = subprocess.run(
        [tool(name), *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(PASSPHRASE)
    path.chmod(0o600)
    return path


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    return random.Random(7).randbytes(SIZE)


def image(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def created(path: Path, key: Path, options: str, data: bytes) -> Path:
    offset = (2 << 20) if "luks1" in options else (16 << 20)
    spec = f"crypt,key-file={key},{QUICK},{options}"
    image(path, offset + SIZE)
    with hw.open_stack(str(path), [spec], writable=True, create=True) as device:
        assert device.size == SIZE
        device.pwrite(memoryview(data), 0)
        device.flush()
    return path


def contents(path: Path, key: Path, *options: str) -> bytes:
    with hw.open_stack(str(path), [",".join(("crypt", f"key-file={key}", *options))]) as device:
        view = memoryview(bytearray(SIZE))
        device.pread_into(view, 0)
    return bytes(view)


@pytest.mark.parametrize(
    "options",
    ["format=luks2", "sector=512", "sector=1024,key-bits=256", "format=luks1", "key-bits=256,format=luks1"],
)  # fmt: skip
def test_what_was_created_opens_again(tmp_path, key, data, options) -> None:
    path = created(tmp_path / "disk", key, options, data)
    assert contents(path, key) == data
    assert data[:64] not in path.read_bytes()


@pytest.mark.parametrize("options", ["format=luks2", "sector=512", "format=luks1"])
def test_cryptsetup_opens_what_headway_created(tmp_path, key, data, options) -> None:
    path = created(tmp_path / "disk", key, options, data)
    run("cryptsetup", "open", "--test-passphrase", "--key-file", key, path)
    shown = run("cryptsetup", "luksDump", path)
    assert "xts-plain64" in shown and ("sector: 4096" in shown) == (options == "format=luks2")
    key.write_bytes(b"wrong")
    with pytest.raises(AssertionError, match="No key available"):
        run("cryptsetup", "open", "--test-passphrase", "--key-file", key, path)


def test_cryptsetup_decrypts_what_headway_encrypted(tmp_path, key, data) -> None:
    """Its own AES on the data, without the kernel's device-mapper."""
    path = created(tmp_path / "disk", key, "format=luks2", data)
    run(
        "cryptsetup", "reencrypt", "--decrypt", "--force-offline-reencrypt", "--batch-mode",
        "--header", tmp_path / "header", "--key-file", key, path,
    )  # fmt: skip
    assert path.read_bytes()[:SIZE] == data


def test_qemu_reads_what_headway_encrypted(tmp_path, key, data) -> None:
    path = created(tmp_path / "disk", key, "format=luks1", data)
    run(
        "qemu-img", "convert", "--object", f"secret,id=s0,file={key}", "--image-opts",
        f"driver=luks,key-secret=s0,file.filename={path}", "-O", "raw", tmp_path / "plain",
    )  # fmt: skip
    assert (tmp_path / "plain").read_bytes() == data


def test_nbdkit_reads_what_headway_encrypted(tmp_path, key, data) -> None:
    tool("nbdcopy")
    path = created(tmp_path / "disk", key, "format=luks1", data)
    run(
        "nbdkit", "-U", "-", "file", path, "--filter=luks", f"passphrase=+{key}",
        "--run", f'nbdcopy "$uri" {tmp_path / "plain"}',
    )  # fmt: skip
    assert (tmp_path / "plain").read_bytes() == data


def test_headway_reads_what_qemu_encrypted(tmp_path, key, data) -> None:
    (tmp_path / "plain").write_bytes(data)
    command = (
        "convert", "--object", f"secret,id=s0,file={key}", "-O", "luks", "-o",
        "key-secret=s0,iter-time=100", tmp_path / "plain", tmp_path / "disk",
    )  # fmt: skip
    for _ in range(5):
        try:
            run("qemu-img", *command)
            break
        except (
            AssertionError
        ) as error:  # it measures the processor first, and may give up on a busy one
            if "accurate CPU usage" not in str(error):
                raise
    else:
        pytest.skip("qemu-img cannot measure this processor")
    assert contents(tmp_path / "disk", key, "format=luks1") == data


@pytest.mark.parametrize(
    "options",
    [
        ("--type", "luks2", "--sector-size", "4096", "--pbkdf", "argon2id", "--pbkdf-memory", "1024",
         "--pbkdf-force-iterations", "4"),
        ("--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"),
        ("--type", "luks1", "--pbkdf-force-iterations", "1000"),
    ],
)  # fmt: skip
def test_headway_opens_what_cryptsetup_formatted(tmp_path, key, data, options) -> None:
    path = image(tmp_path / "disk", (16 << 20) + SIZE)
    run("cryptsetup", "luksFormat", "--batch-mode", "--key-file", key, *options, path)
    with hw.open_stack(str(path), [f"crypt,key-file={key}"], writable=True) as device:
        device.pwrite(memoryview(data), 0)
    assert contents(path, key) == data


def test_a_header_of_its_own(tmp_path, key, data) -> None:
    """The data begins at byte 0; cryptsetup opens the header."""
    disk, header = image(tmp_path / "disk", SIZE), image(tmp_path / "header", 16 << 20)
    spec = f"crypt,key-file={key},header={header},{QUICK}"
    with hw.open_stack(str(disk), [spec], writable=True, create=True) as device:
        assert device.size == SIZE
        device.pwrite(memoryview(data), 0)
    assert contents(disk, key, f"header={header}") == data
    run("cryptsetup", "open", "--test-passphrase", "--key-file", key, header)


def test_copy_through_crypt_in_a_hard_limit(tmp_path, key, data) -> None:
    """An odd size: the last sector is filled up with zeros, and the digest is the source's."""
    (tmp_path / "source").write_bytes(data[:-77])
    spec = f"crypt,key-file={key},{QUICK},buffer=64KiB"
    for options in ({}, {"starve": True, "memory": "512KiB"}, {"hash": False}):
        report = hw_copy(tmp_path, [spec], verify=True, request_size="64KiB", **options)
        assert report.sha256 in (None, hashlib.sha256(data[:-77]).hexdigest())
        assert report.memory_peak <= report.memory_limit
        assert contents(tmp_path / "target", key)[: SIZE - 77] == data[:-77]


def hw_copy(tmp_path: Path, layers: Sequence[str], **options):
    from headway.copying import copy

    return copy(tmp_path / "source", tmp_path / "target", layers=layers, **options)


# -- headers that are not as they should be --------------------------------------------------------


def test_the_second_copy_of_a_header_serves_when_the_first_is_lost(tmp_path, key, data) -> None:
    path = created(tmp_path / "disk", key, "format=luks2", data)
    with path.open("r+b") as file:
        file.seek(4096 + 20)
        file.write(b"rubbish")
    assert contents(path, key) == data
    with path.open("r+b") as file:
        file.seek(16384 + 4096 + 20)
        file.write(b"rubbish")
    with pytest.raises(UsageError, match="neither copy"):
        contents(path, key)


def broken(path: Path, change) -> None:
    """Both copies of the JSON part changed, with good checksums."""
    raw = bytearray(path.read_bytes()[: 2 << 14])
    for at in (0, 1 << 14):
        meta = json.loads(bytes(raw[at + 4096 : at + (1 << 14)]).split(b"\0")[0])
        change(meta)
        area = json.dumps(meta).encode().ljust((1 << 14) - 4096, b"\0")
        digest = luks2._checksum(raw[at : at + 4096], area, "sha256")
        raw[at + 448 : at + 480] = digest
        raw[at + 4096 : at + (1 << 14)] = area
    with path.open("r+b") as file:
        file.write(raw)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m["segments"]["0"].update(encryption="aes-cbc-essiv:sha256"), "aes-cbc-essiv"),
        (lambda m: m["segments"]["0"].update(integrity={}), "plainly encrypted"),
        (lambda m: m["segments"]["0"].update(sector_size=777), "777"),
        (lambda m: m["segments"]["0"].update(offset="-5"), "offset"),
        (lambda m: m["segments"]["0"].update(offset="99999999999"), "cut off"),
        (lambda m: m["segments"].update({"1": {}}), "2 segments"),
        (lambda m: m["config"].update(requirements={"mandatory": ["online-reencrypt"]}), "reencrypt"),
        (lambda m: m["keyslots"]["0"]["kdf"].update(type="scrypt"), "scrypt"),
        (lambda m: m["keyslots"]["0"]["kdf"].update(iterations="many"), "iterations"),
        (lambda m: m["keyslots"]["0"]["af"].update(stripes=1 << 40), "stripes"),
        (lambda m: m["keyslots"]["0"]["area"].update(offset=str(1 << 40)), "outside"),
        (lambda m: m["keyslots"].clear(), "lacks"),
        (lambda m: m.update(segments=[1]), "damaged"),
        (lambda m: m["digests"].clear(), "no digest"),
        (lambda m: m["keyslots"]["0"].update(priority=0), "no key slot opens"),
    ],
)  # fmt: skip
def test_a_header_that_is_not_for_us_is_refused_by_name(tmp_path, key, data, change, says) -> None:
    path = created(tmp_path / "disk", key, "format=luks2", data)
    broken(path, change)
    with pytest.raises(UsageError, match=says):
        contents(path, key)


@pytest.mark.parametrize("options", ["format=luks2", "format=luks1"])
def test_the_wrong_key_opens_nothing_and_is_not_shown(tmp_path, key, data, options) -> None:
    path = created(tmp_path / "disk", key, options, data)
    key.write_bytes(b"another secret")
    with pytest.raises(UsageError, match="no key slot opens") as caught:
        contents(path, key)
    assert "another" not in str(caught.value)


def test_a_volume_is_not_overwritten_unless_that_was_said(tmp_path, key, data) -> None:
    path = created(tmp_path / "disk", key, "format=luks2", data)
    with pytest.raises(UsageError, match="has a LUKS header already"):
        hw.open_stack(str(path), [f"crypt,key-file={key},create=yes,{QUICK}"], writable=True)
    assert contents(path, key) == data
    with pytest.raises(UsageError, match="header of luks2"):
        contents(path, key, "format=luks1")
    with pytest.raises(UsageError, match="has no LUKS header"):
        contents(image(tmp_path / "blank", 17 << 20), key)


def test_nothing_is_written_when_a_later_layer_cannot_be_made(tmp_path, key) -> None:
    path = image(tmp_path / "disk", 17 << 20)
    for layers in (
        ["crypt,cheese=1,key-file=" + str(key)],
        [f"crypt,key-file={key},{QUICK}", "no"],
    ):
        with pytest.raises(UsageError):
            hw.open_stack(str(path), layers, writable=True, create=True)
        assert not any(path.read_bytes())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("", "key-file=PATH"),
        ("key-file=KEY,sector=100", "one of 512"),
        ("key-file=KEY,format=luks1,sector=4096", "512"),
        ("key-file=KEY,format=luks1,kdf=argon2id", "pbkdf2 alone"),
        ("key-file=KEY,iterations=10", "from 1000"),
        ("key-file=KEY,offset=4097", "multiple of 4096"),
        ("key-file=KEY,kdf=argon2id,kdf-memory=1KiB", "kdf-memory"),
        ("key-file=KEY,buffer=512", "no sector"),
        ("key-file=KEY,format=plain", "key of"),
        ("key-file=/none/such", "cannot be read"),
    ],
)
def test_what_makes_no_volume_is_refused_with_what_to_write(tmp_path, key, options, says) -> None:
    spec = ",".join(["crypt", *[options.replace("KEY", str(key))][: bool(options)]])
    with pytest.raises(UsageError, match=says):
        hw.open_stack(str(image(tmp_path / "disk", 17 << 20)), [spec], writable=True, create=True)


# -- secrets -----------------------------------------------------------------------------------------


def test_a_key_file_that_others_can_read_warns(tmp_path, key, caplog) -> None:
    said: list[str] = []
    Crypto(said.append).key_file(str(key))
    assert said == []
    key.chmod(0o644)
    with caplog.at_level(logging.WARNING, "headway"):
        path = created(tmp_path / "disk", key, "format=luks1", bytes(512))
    assert f"chmod 600 {key}" in caplog.text and path.exists()


def test_a_secret_is_shown_to_nobody() -> None:
    secret = Secret(PASSPHRASE)
    assert repr(secret) == str(secret) == f"{secret}" == f"<Secret of {len(PASSPHRASE)} bytes>"
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(secret)
    secret.wipe()
    assert bytes(secret.reveal()) == bytes(len(PASSPHRASE))


def test_an_empty_key_file_is_none(tmp_path, key) -> None:
    key.write_bytes(b"")
    with pytest.raises(UsageError, match="is empty"):
        Crypto(print).key_file(str(key))


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("size", [32, 64])
def test_split_key_material_gives_the_key_again_and_not_with_a_bit_lost(algorithm, size) -> None:
    key = Secret(random.Random(size).randbytes(size))
    material = bytearray(volume.split(key, 50, algorithm, Crypto(print)))
    assert volume.merge(material, size, 50, algorithm).reveal() == key.reveal()
    material[13 * size] ^= 1
    assert volume.merge(material, size, 50, algorithm).reveal() != key.reveal()


def test_a_write_that_fails_while_the_header_is_written_is_told(tmp_path, key) -> None:
    with pytest.raises(BlockError):
        hw.open_stack("zero:20MiB", [f"crypt,key-file={key},{QUICK}"], writable=True, create=True)
