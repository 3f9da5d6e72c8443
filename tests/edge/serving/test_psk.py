"""TLS with keys that both sides have: our client, libnbd's, and who has another key, or none."""

import os
import shutil
import ssl
import subprocess

import pytest

import headway as hw
from headway.copying import copy
from headway.edge.psk import _CIPHERS, exposed, keys_of
from headway.errors import BlockError, UsageError
from headway.server import serve
from tests.edge.serving.served import DATA, SIZE

PSK = hasattr(ssl.SSLContext, "set_psk_server_callback")
needs_psk = pytest.mark.skipif(not PSK, reason="needs Python 3.13")


@pytest.fixture
def keys(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"# ours\nalice:{os.urandom(32).hex()}\nbob:{os.urandom(16).hex()}\n")
    path.chmod(0o600)
    return path


@needs_psk
def test_everything_goes_over_tls(device, keys, tmp_path):
    with serve(device, listen="tcp::0", tls="require", tls_psk=str(keys)) as uri:
        assert uri.startswith("nbds://")
        copy(f"{uri}?tls-psk-file={keys}", tmp_path / "out", memory="4MiB", verify=True)
        assert (tmp_path / "out").read_bytes() == DATA
        bob = hw.open_device(uri.replace("://", "://bob@") + f"?tls-psk-file={keys}", writable=True)
        assert bob.size == SIZE
        bob.pwrite(memoryview(b"bob was here"), 5000)
        bob.flush()
        view = memoryview(bytearray(12))
        bob.pread_into(view, 5000)
        assert bytes(view) == b"bob was here"
        bob.close()


@needs_psk
def test_who_has_another_key_or_none_is_not_let_in(device, keys, certificates, tmp_path):
    """And the server goes on, for those who have the right one."""
    other = tmp_path / "other"
    with serve(device, listen="tcp::0", tls="on", tls_psk=str(keys)) as uri:
        secure = uri.replace("nbd:", "nbds:")
        for line in (f"alice:{os.urandom(32).hex()}", f"mallory:{os.urandom(32).hex()}"):
            other.write_text(line + "\n")
            with pytest.raises(BlockError, match="cannot open nbds"):
                hw.open_device(f"{secure}?tls-psk-file={other}", deadline_s=20)
        with pytest.raises(BlockError, match="cannot open nbds"):
            hw.open_device(f"{secure}?tls-certificates={certificates}", deadline_s=20)
        hw.open_device(f"{secure}?tls-psk-file={keys}").close()
        hw.open_device(uri).close()  # `on`: whoever does without may


@needs_psk
@pytest.mark.skipif(shutil.which("nbdcopy") is None, reason="needs libnbd-bin (a Debian package)")
def test_libnbd(device, keys, tmp_path):
    with serve(device, listen=f"unix:{tmp_path}/s", tls="require", tls_psk=str(keys)) as uri:
        assert uri.startswith("nbds+unix:///")
        uri = uri.replace("://", "://alice@") + f"&tls-psk-file={keys}"
        done = subprocess.run(["nbdinfo", "--size", uri], capture_output=True, text=True)
        assert (done.stdout.strip(), done.returncode) == (str(SIZE), 0), done.stderr
        done = subprocess.run(["nbdcopy", uri, str(tmp_path / "out")], capture_output=True)
        assert done.returncode == 0, done.stderr
        done = subprocess.run(
            ["nbdinfo", uri.replace("alice", "mallory")], capture_output=True, text=True
        )
        assert done.returncode
    assert (tmp_path / "out").read_bytes() == DATA


@pytest.mark.skipif(PSK, reason="this Python can use pre-shared keys")
def test_it_needs_a_newer_python(device, keys, tmp_path):
    with pytest.raises(UsageError, match=r"--tls-psk .* Python 3.13 or newer.*--tls-certificates"):
        serve(device, listen=f"unix:{tmp_path}/s", tls="on", tls_psk=str(keys))
    assert not (tmp_path / "s").exists()


def test_misuse(device, keys, tmp_path):
    for options, says in [
        ({"tls_psk": str(keys)}, "keys were given, and TLS is off"),
        ({"tls": "on", "tls_psk": str(keys), "tls_certificates": "d"}, "give one of them"),
        ({"tls": "on"}, "--tls-psk FILE"),
    ]:
        with pytest.raises(UsageError, match=says):
            serve(device, listen=f"unix:{tmp_path}/s", **options)
        assert not (tmp_path / "s").exists()


def test_a_file_of_keys(keys):
    found = keys_of(str(keys))
    assert list(found) == ["alice", "bob"] and len(found["alice"]) == 32
    assert exposed(str(keys)) is None
    keys.chmod(0o640)
    assert exposed(str(keys)) == str(keys)
    for text, says in [
        ("# nobody\n", "has not a line USER:HEX"),
        ("alice:00\nbob:xyz\n", "the key of 'bob' is not hexadecimal"),
        ("alice:\n", "the key of 'alice' has 0 bytes"),
        (f"alice:{'00' * 257}\n", "has 257 bytes"),
    ]:
        keys.write_text(text)
        with pytest.raises(UsageError, match=says) as caught:
            keys_of(str(keys))
        assert "00" not in str(caught.value)  # no part of a key is told
    with pytest.raises(BlockError, match="cannot read"):
        keys_of(str(keys) + "s")


def test_ciphers_with_a_key_of_each_connection_come_first():
    """What was recorded stays secret when the file does not: plain PSK is the last to be agreed on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    kinds = [
        one["name"].partition("PSK")[0]
        for one in context.get_ciphers()
        if one["protocol"] != "TLSv1.3"
    ]
    assert kinds == sorted(kinds, key=["ECDHE-", "DHE-", ""].index)
    assert kinds.count("ECDHE-") > 1 and "DHE-" in kinds and "" in kinds
