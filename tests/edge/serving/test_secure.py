"""TLS: certificates of our own making, Python's client and libnbd's, and who is not let in."""

import shutil
import socket
import ssl
import stat
import subprocess

import pytest

from headway.errors import UsageError
from headway.server import serve
from tests.edge.serving.served import DATA, SIZE, Waiting, make
from tests.nbd_client import Client, counted

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
TLS_REQUIRED = 0x80000005


@pytest.fixture
def server_side(certificates, tmp_path):
    """A directory for the server; with the authority, it asks clients for certificates."""
    for name in ("server-cert.pem", "server-key.pem"):
        shutil.copy(certificates / name, tmp_path / name)
    return tmp_path


def secured(uri, certificates, *, own=False):
    """A client that has started TLS, and agreed on nothing else."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(uri.rpartition("socket=")[2])
    client = Client(sock, handshake=False)
    client.greet()
    assert client.option(5) == [(1, b"")]
    context = ssl.create_default_context(cafile=str(certificates / "ca-cert.pem"))
    if own:
        context.load_cert_chain(certificates / "client-cert.pem", certificates / "client-key.pem")
    try:
        client.sock = context.wrap_socket(sock, server_hostname="localhost")
    except BaseException:
        sock.close()
        raise
    return client


def entered(client):
    assert client.option(8) == [(1, b"")]
    assert client.option(7, counted("") + b"\0\0")[-1] == (1, b"")
    return client


@pytest.mark.parametrize("memory", ["256KiB", "8MiB"])
def test_everything_goes_over_tls(device, memory, server_side, certificates):
    options = {"tls": "require", "tls_certificates": str(server_side), "memory": memory}
    with serve(device, listen=f"unix:{server_side}/s", **options) as uri:
        assert uri.startswith("nbds+unix:///")
        client = entered(secured(uri, certificates))
        assert client.read(0, SIZE) == DATA
        assert client.write(5, DATA[:700_000]) == b""
        assert client.read(5, 700_000) == DATA[:700_000]
        for number in range(50):
            client.send(0, number, 20_000)
        assert sorted(client.reply()[0] for _ in range(50)) == list(range(4, 54))
        client.close()


def test_required_means_that_nothing_else_is_answered(device, server_side):
    options = {"tls": "require", "tls_certificates": str(server_side)}
    with serve(device, listen=f"unix:{server_side}/s", **options) as uri:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(uri.rpartition("socket=")[2])
        client = Client(sock, handshake=False)
        client.greet()
        assert client.option(3)[0][0] == TLS_REQUIRED
        assert client.option(7, counted("") + b"\0\0")[0][0] == TLS_REQUIRED
        client.close()


def test_a_client_without_a_certificate_is_not_let_in_where_one_is_asked_for(
    device, server_side, certificates
):
    shutil.copy(certificates / "ca-cert.pem", server_side / "ca-cert.pem")
    options = {"tls": "on", "tls_certificates": str(server_side)}
    with serve(device, listen=f"unix:{server_side}/s", **options) as uri:
        with pytest.raises((ssl.SSLError, EOFError, ConnectionError)):
            stranger = secured(uri, certificates)
            try:
                entered(stranger)
            finally:
                stranger.close()
        friend = entered(secured(uri, certificates, own=True))
        assert friend.read(0, 1000) == DATA[:1000]
        friend.close()


def test_garbage_where_tls_should_begin_ends_its_connection_only(server_side, certificates):
    options = {"tls": "on", "tls_certificates": str(server_side)}
    with serve(make(Waiting), listen=f"unix:{server_side}/s", **options) as uri:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(uri.rpartition("socket=")[2])
        client = Client(sock, handshake=False)
        client.greet()
        assert client.option(5) == [(1, b"")]
        sock.sendall(bytes(1000))
        with pytest.raises((EOFError, ConnectionError)):
            client.exactly(1 << 16)
        client.close()
        client = entered(secured(uri, certificates))
        assert client.read(0, 1000) == DATA[:1000]
        client.close()


@pytest.mark.skipif(shutil.which("nbdcopy") is None, reason="needs libnbd-bin (a Debian package)")
def test_libnbd(device, server_side, certificates):
    shutil.copy(certificates / "ca-cert.pem", server_side / "ca-cert.pem")
    options = {"tls": "require", "tls_certificates": str(server_side)}
    with serve(device, listen="tcp:localhost:0", **options) as uri:
        uri = uri.replace("127.0.0.1", "localhost") + f"?tls-certificates={certificates}"
        done = subprocess.run(["nbdcopy", uri, str(server_side / "out")], capture_output=True)
        assert done.returncode == 0, done.stderr
    assert (server_side / "out").read_bytes() == DATA


def test_misuse(server_side, device):
    for options, says in [
        ({"tls": "on"}, "needs certificates"),
        ({"tls": "maybe"}, "off, on or require"),
        ({"tls_certificates": str(server_side)}, "TLS is off"),
        ({"tls": "on", "tls_certificates": str(server_side / "none")}, "has no server-cert.pem"),
    ]:
        with pytest.raises(UsageError, match=says):
            serve(device, listen=f"unix:{server_side}/s", **options)
        assert not (server_side / "s").exists()


def test_a_key_that_others_can_read_is_noticed(server_side):
    from headway.edge.serving.secure import exposed_key

    key = server_side / "server-key.pem"
    key.chmod(0o644)
    assert exposed_key(str(server_side)) == str(key)
    key.chmod(0o600)
    assert exposed_key(str(server_side)) is None
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
