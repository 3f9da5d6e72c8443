"""Being told of pressure: systemd's protocol on real sockets and FIFOs, triggers, and polling of data."""

from __future__ import annotations

import base64
import errno
import os
import socket
import threading
from pathlib import Path

import pytest

from headway.edge.pressure import pressure_files
from headway.edge.pressure_signal import PressureSignal
from headway.errors import UsageError
from tests.edge.test_pressure import PSI, v2, write

LONG_S = 60.0  # never waited for: something must end it before


def told(watch: Path, text: bytes = b"some 1 2\0") -> dict[str, str]:
    return {
        "MEMORY_PRESSURE_WATCH": str(watch),
        "MEMORY_PRESSURE_WRITE": base64.b64encode(text).decode(),
    }


def test_systemd_s_protocol_over_a_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        with PressureSignal(environ=told(tmp_path / "s")) as signal:
            assert signal.how == "systemd"
            peer, _ = server.accept()
            with peer:
                assert peer.recv(100) == b"some 1 2\0", "what it was told to say, first and only"
                assert not signal.wait(0)
                peer.sendall(b"x" * 10)
                assert signal.wait(LONG_S)
                assert not signal.wait(0), "all that was there is one event"
                peer.sendall(b"x")
                assert signal.wait(LONG_S)
            assert not signal.wait(LONG_S), "the teller is gone: that is no pressure"
            assert signal.how == "polling"
            assert not signal.wait(0)


def test_systemd_s_protocol_over_a_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f")
    with PressureSignal(environ=told(tmp_path / "f", b"")) as signal:
        assert not signal.wait(0)
        (tmp_path / "f").write_bytes(b"now")
        assert signal.wait(LONG_S) and not signal.wait(0)


def test_dev_null_turns_it_off(tmp_path: Path) -> None:
    with PressureSignal(
        root=v2(tmp_path), environ={"MEMORY_PRESSURE_WATCH": "/dev/null"}
    ) as signal:
        assert signal.how == "off"
        write(tmp_path, {"sys/fs/cgroup/pod/job/memory.pressure": PSI.format(10**9)})
        assert not signal.wait(0)


def test_what_cannot_be_watched_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"MEMORY_PRESSURE_WATCH=.*gone cannot be watched"):
        PressureSignal(environ=told(tmp_path / "gone"))
    with pytest.raises(UsageError, match="not base64"):
        PressureSignal(
            environ={"MEMORY_PRESSURE_WATCH": str(tmp_path), "MEMORY_PRESSURE_WRITE": "%%"}
        )
    with pytest.raises(UsageError, match="stall of 3 ms in a window of 2 ms"):
        PressureSignal(stall_ms=3, window_ms=2)


def test_data_is_polled_and_never_written_to(tmp_path: Path) -> None:
    root = v2(tmp_path)
    (path,) = pressure_files(root)
    before = Path(path).read_text()
    with PressureSignal(root=root, environ={}, stall_ms=200) as signal:
        assert signal.how == "polling" and Path(path).read_text() == before
        assert not signal.wait(0)
        Path(path).write_text(PSI.format(1000 + 199_999))
        assert not signal.wait(0), "less than a fifth of a second"
        Path(path).write_text(PSI.format(1000 + 199_999 + 200_000))
        assert signal.wait(0) and not signal.wait(0)
        Path(path).unlink()
        assert not signal.wait(0)


def test_where_there_is_nothing_only_time_passes(tmp_path: Path) -> None:
    with PressureSignal(root=tmp_path, environ={}) as signal:
        assert signal.how == "polling" and not signal.wait(0.001)


def test_a_wait_ends_when_it_is_stopped(tmp_path: Path) -> None:
    signal = PressureSignal(root=tmp_path, environ={})
    heard: list[bool] = []
    waiting = threading.Thread(target=lambda: heard.append(signal.wait(LONG_S)))
    waiting.start()
    signal.stop()
    waiting.join(LONG_S)
    assert heard == [False] and not signal.wait(LONG_S)
    signal.close()
    signal.close()
    assert repr(signal) == "<PressureSignal by polling, closed>"


def test_the_machine_s_own_trigger() -> None:
    if not pressure_files():
        pytest.skip("this kernel tells no stalls")
    with PressureSignal(environ={}) as signal:
        if signal.how != "trigger":
            pytest.skip("this kernel refuses triggers here")
        with pytest.raises(OSError) as refused:
            os.write(signal._fd, b"some 200000 2000000\0")
        assert refused.value.errno == errno.EBUSY, "the kernel has taken the first one"
