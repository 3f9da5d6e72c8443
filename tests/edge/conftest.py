"""Certificates of our own making, for whoever speaks TLS."""

import shutil
import subprocess

import pytest


def openssl(directory, *words):
    subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """An authority, and certificates that it has signed for `localhost` and for a client."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    place = tmp_path_factory.mktemp("pki")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    days = ["-days", "2", "-sha256"]
    openssl(place, "req", "-x509", *key, *days, "-subj", "/CN=ca", "-keyout", "ca-key.pem",
            "-out", "ca-cert.pem", "-addext", "basicConstraints=critical,CA:TRUE", "-addext",
            "keyUsage=critical,keyCertSign,cRLSign")  # fmt: skip
    for name, subject in (("server", "localhost"), ("client", "somebody")):
        extensions = "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        (place / "names").write_text(f"subjectAltName=DNS:{subject}\n{extensions}")
        openssl(place, "req", *key, "-subj", f"/CN={subject}", "-keyout", f"{name}-key.pem",
                "-out", f"{name}.csr")  # fmt: skip
        openssl(place, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca-cert.pem", "-CAkey",
                "ca-key.pem", "-CAcreateserial", "-out", f"{name}-cert.pem", *days,
                "-extfile", "names")  # fmt: skip
    return place
