"""In a memory group of 48 MiB a server is not killed, and no request goes without an answer."""

import sys

import pytest

from bench.nbd_memory import MIB, READ, WRITE, groups, lost_of, served

GROUPS = groups()


@pytest.mark.skipif(GROUPS is None, reason="needs root, and memory groups")
@pytest.mark.parametrize("layers", [[], ["linear", "mirror,leg=LEG", "bounce,reserve=4"]])
def test_no_request_is_lost_where_others_are_killed(tmp_path, layers):
    """64 connections, and requests of 32 MiB, sixteen at once; clients that do not read for a while."""
    image, total = tmp_path / "image", 96 * MIB
    for name in ("image", "leg"):
        with open(tmp_path / name, "wb") as file:
            file.truncate(total)
    command = [sys.executable, "-m", "headway", "serve", str(image), "--listen", "unix:SOCKET"]
    command += ["--memory", "16MiB"]
    for layer in layers:
        command += ["--layer", layer.replace("LEG", str(tmp_path / "leg"))]
    with served(GROUPS, tmp_path, command, 48 * MIB) as path:
        assert lost_of(path, 64, 4, MIB, READ, total=total) == 0
        assert lost_of(path, 4, 2, 32 * MIB, WRITE, total=total) == 0
        assert lost_of(path, 16, 4, MIB, WRITE, total=total) == 0
