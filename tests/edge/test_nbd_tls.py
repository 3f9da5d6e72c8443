"""Our client over TLS: our server, nbdkit's and qemu's kind of certificates, and who is not trusted."""

import contextlib
import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading

import pytest

import headway as hw
from headway.copying import copy
from headway.edge.memory_devices import MemoryDevice
from headway.edge.nbd_link import Link
from headway.edge.nbd_uri import TlsWish, parse_uri
from headway.edge.psk import psk_of
from headway.errors import BlockError, UsageError
from headway.server import serve
from tests.edge.serving.served import DATA, SIZE, make

PSK = hasattr(ssl.SSLContext, "set_psk_client_callback")


@pytest.fixture
def directory(certificates, tmp_path):
    """For a server that asks clients for certificates."""
    for name in ("server-cert.pem", "server-key.pem", "ca-cert.pem"):
        shutil.copy(certificates / name, tmp_path / name)
    return tmp_path


@contextlib.contextmanager
def serving(device, directory, listen="tcp::0", tls="require"):
    with serve(device, listen=listen, tls=tls, tls_certificates=str(directory)) as uri:
        yield uri.replace("127.0.0.1", "localhost")


@pytest.mark.parametrize("where", ["tcp", "unix"])
def test_everything_goes_over_tls(certificates, directory, where):
    device = make(MemoryDevice)
    listen = "tcp::0" if where == "tcp" else f"unix:{directory}/s"
    with serving(device, directory, listen) as uri:
        uri += f"{'&' if '?' in uri else '?'}tls-certificates={certificates}"
        assert uri.startswith("nbds")
        ours = hw.open_device(uri, writable=True)
        view = memoryview(bytearray(SIZE))
        ours.pread_into(view, 0)
        assert bytes(view) == DATA
        ours.pwrite(memoryview(DATA[:1_000_000]), 1_234_567)
        ours.flush()
        ours.close()
        copy(uri, directory / "out", memory="2MiB", request_size="256KiB", verify=True)
    assert (directory / "out").read_bytes()[1_234_567:2_234_567] == DATA[:1_000_000]


def test_a_leg_of_a_mirror_is_reached_over_tls(certificates, directory, tmp_path):
    leg, image = make(MemoryDevice), tmp_path / "image"
    image.write_bytes(bytes(SIZE))
    with serving(leg, directory) as uri:
        layer = f"mirror,leg={uri}?tls-certificates={certificates},deadline=5"
        stack = hw.open_stack(str(image), [layer], writable=True)
        stack.pwrite(memoryview(b"on both"), 5000)
        stack.close()
        view = memoryview(bytearray(7))
        leg.pread_into(view, 5000)
        assert bytes(view) == b"on both" == image.read_bytes()[5000:5007]


def refused(uri, says, kind=BlockError):
    with pytest.raises(kind, match=says) as caught:
        hw.open_device(uri, deadline_s=20)
    assert "\n" not in str(caught.value)
    return caught.value


def test_who_is_not_trusted(certificates, directory, tmp_path):
    """Whom nobody vouches for, who has another name, and who does not protect what is said."""
    ours = f"tls-certificates={certificates}"
    with serving(make(MemoryDevice), directory) as uri:
        refused(uri, "not to be trusted: .*(self-signed|unable to get)")
        refused(f"{uri}?{ours}&tls-hostname=elsewhere", "not to be trusted: .*elsewhere")
        refused(
            uri.replace("localhost", "127.0.0.1") + f"?{ours}", "not to be trusted: .*127.0.0.1"
        )
        refused(uri.replace("nbds:", "nbd:"), "it requires TLS: write nbds")
        hw.open_device(f"{uri}?{ours}&tls-hostname=localhost").close()
        empty = tmp_path / "empty"
        empty.mkdir()
        refused(f"{uri}?tls-certificates={empty}", "has no ca-cert.pem", UsageError)
        (empty / "ca-cert.pem").write_text("nonsense")
        refused(f"{uri}?tls-certificates={empty}", "cannot use the certificates")
    with serve(make(MemoryDevice), listen="tcp::0") as uri:
        refused(uri.replace("nbd:", "nbds:"), "does not speak TLS")


def test_a_client_without_a_certificate_is_told(certificates, directory, tmp_path):
    trusting = tmp_path / "trusting"
    trusting.mkdir()
    shutil.copy(certificates / "ca-cert.pem", trusting)
    with serving(make(MemoryDevice), directory) as uri:
        refused(f"{uri}?tls-certificates={trusting}", "cannot open nbds")


def test_a_server_that_freezes_in_the_middle_of_tls_is_left_at_the_deadline():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        uri = f"nbds://127.0.0.1:{listener.getsockname()[1]}/"
        with pytest.raises(BlockError, match="did not answer within"):
            hw.open_device(uri, deadline_s=0.2)


def test_what_uris_wish():
    assert parse_uri("nbd://h/").tls is None
    assert parse_uri("nbds://h/").tls == TlsWish("h")
    assert parse_uri("nbds+unix:///?socket=s").tls == TlsWish(None)
    assert parse_uri("nbds+unix://me@/?socket=s&tls-psk-file=k").tls == TlsWish(
        None, None, "k", "me"
    )
    assert parse_uri("nbds://h/?tls-certificates=d&tls-hostname=x").tls == TlsWish("x", "d")


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("nbd://h/?tls-certificates=d", "write nbds instead of nbd"),
        ("nbds://h/?tls-verify-peer=false", "tls-verify-peer is not known"),
        ("nbds://h/?tls-certificates=d&tls-psk-file=f", "give one of them"),
        ("nbds+unix:///x", "names no socket"),
        ("nbds:///x", "names no host"),
    ],
)
def test_what_cannot_be_wished(uri, says):
    with pytest.raises(UsageError, match=says):
        parse_uri(uri)


def test_keys_of_a_file(tmp_path):
    path = tmp_path / "keys"
    path.write_text("# ours\nalice:00ff10\nbob:aa\ncarol:xyz\n")
    assert psk_of(str(path), None) == ("alice", b"\0\xff\x10")
    assert psk_of(str(path), "bob") == ("bob", b"\xaa")
    for user, says in (("carol", "not hexadecimal"), ("dave", "has not a line of 'dave'")):
        with pytest.raises(UsageError, match=says):
            psk_of(str(path), user)
    with pytest.raises(BlockError, match="cannot read"):
        psk_of(str(tmp_path / "none"), None)


@pytest.mark.skipif(PSK, reason="this Python can use pre-shared keys")
def test_a_shared_key_needs_a_newer_python(tmp_path):
    with serve(make(MemoryDevice), listen="tcp::0") as uri:  # nothing is said to it
        refused(
            uri.replace("nbd:", "nbds:") + "?tls-psk-file=f", "Python 3.13 or newer", UsageError
        )


@contextlib.contextmanager
def nbdkit(tmp_path, *words):
    if shutil.which("nbdkit") is None:
        pytest.skip("needs nbdkit (a Debian package)")
    image, path = tmp_path / "image", tmp_path / "kit"
    image.write_bytes(DATA)
    command = ["nbdkit", "-f", "-U", str(path), "--tls=require", *words, "file", str(image)]
    process = subprocess.Popen(command)
    try:
        connected = False
        while not connected:
            assert process.poll() is None
            with socket.socket(socket.AF_UNIX) as probe:
                connected = probe.connect_ex(str(path)) == 0
        yield f"nbds+unix:///?socket={path}", image
    finally:
        process.terminate()
        process.wait()


def test_nbdkit_with_certificates(certificates, directory, tmp_path):
    words = [f"--tls-certificates={directory}", "--tls-verify-peer"]
    with nbdkit(tmp_path, *words) as (uri, _):
        uri += f"&tls-certificates={certificates}&tls-hostname=localhost"
        copy(uri, tmp_path / "out", memory="4MiB", verify=True)
    assert (tmp_path / "out").read_bytes() == DATA


@pytest.mark.skipif(not PSK, reason="needs Python 3.13")
def test_nbdkit_with_a_shared_key(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(f"alice:{os.urandom(32).hex()}\nbob:{os.urandom(32).hex()}\n")
    with nbdkit(tmp_path, f"--tls-psk={keys}") as (uri, image):
        copy(f"{uri}&tls-psk-file={keys}", tmp_path / "out", memory="4MiB", verify=True)
        assert (tmp_path / "out").read_bytes() == DATA
        bob = uri.replace(":///", "://bob@/") + f"&tls-psk-file={keys}"
        (tmp_path / "new").write_bytes(DATA[::-1])
        assert copy(tmp_path / "new", bob, memory="4MiB").bytes == SIZE
        assert image.read_bytes() == DATA[::-1]
        keys.write_text(f"alice:{os.urandom(32).hex()}\n")


def test_a_device_given_up_in_the_middle_of_tls_fails_at_once():
    """`abort` reaches a connection whose server has taken the first bytes of TLS, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = parse_uri(f"nbds://127.0.0.1:{listener.getsockname()[1]}/")
        link, failures = Link(place, 60.0), []

        def opens():
            try:
                link.open()
            except OSError as error:
                failures.append(error)

        opening = threading.Thread(target=opens, daemon=True)
        opening.start()
        server, _ = listener.accept()
        with server:
            server.sendall(b"NBDMAGICIHAVEOPT\0\3")
            exactly(server, 4 + 16)  # flags, and the option
            server.sendall(struct.pack(">QIII", 0x3E889045565A9, 5, 1, 0))
            exactly(server, 5)  # TLS has begun
            link.abort()
            opening.join(20)
            assert not opening.is_alive() and not isinstance(failures[0], TimeoutError)
    link.close(politely=False)


@pytest.mark.skipif(sys.platform != "linux", reason="how a full queue is answered is Linux's")
def test_a_device_given_up_while_it_connects_fails_at_once():
    """The queue of the listener is full: nobody answers, and nobody refuses."""
    with contextlib.ExitStack() as held:
        listener = held.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = held.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        link = Link(parse_uri(f"nbd://127.0.0.1:{listener.getsockname()[1]}/"), 60.0)
        failures = []

        def opens():
            try:
                link.open()
            except OSError as error:
                failures.append(error)

        opening = threading.Thread(target=opens, daemon=True)
        opening.start()
        while link._sock is None and opening.is_alive():
            opening.join(0.001)
        link.abort()
        opening.join(20)
        assert not opening.is_alive() and not isinstance(failures[0], TimeoutError)
        link.close(politely=False)


def exactly(sock, count):
    while count:
        count -= len(sock.recv(count))
