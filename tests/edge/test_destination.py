"""A destination appears whole or not at all, with the right mode, and leaves no debris."""

import os
import stat

import pytest

from headway.edge.destination import InPlace, open_destination
from headway.errors import BlockError, UsageError

DATA = b"new contents"


@pytest.fixture
def umask():
    old = os.umask(0o027)
    yield 0o027
    os.umask(old)


@pytest.fixture(params=["nameless", "named"])
def where(request, tmp_path, monkeypatch):
    """A directory; with `named` as on a platform that has no files without a name."""
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    return tmp_path


def write(path, data=DATA, preserve=None):
    destination = open_destination(str(path), size=len(data))
    destination.device.pwrite(memoryview(data), 0)
    destination.commit(preserve)


def test_a_new_file_appears_on_commit_and_follows_the_umask(where, umask):
    path = where / "new"
    destination = open_destination(str(path), size=len(DATA))
    destination.device.pwrite(memoryview(DATA), 0)
    assert not path.exists()
    destination.commit(None)
    assert path.read_bytes() == DATA
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(where) == ["new"]


def test_an_old_file_is_whole_until_commit_and_keeps_its_mode(where, umask):
    path = where / "old"
    path.write_bytes(b"old")
    path.chmod(0o604)
    destination = open_destination(str(path), size=len(DATA))
    destination.device.pwrite(memoryview(DATA), 0)
    assert path.read_bytes() == b"old"
    destination.commit(None)
    assert path.read_bytes() == DATA
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    assert os.listdir(where) == ["old"]


def test_discard_leaves_the_old_file_and_no_debris(where):
    path = where / "old"
    path.write_bytes(b"old")
    destination = open_destination(str(path), size=1 << 20)
    destination.device.pwrite(memoryview(DATA), 0)
    destination.discard()
    assert path.read_bytes() == b"old"
    assert os.listdir(where) == ["old"]


def test_a_name_taken_in_the_meantime_is_replaced_at_once(where):
    path = where / "late"
    destination = open_destination(str(path), size=len(DATA))
    destination.device.pwrite(memoryview(DATA), 0)
    path.write_bytes(b"somebody else's")
    destination.commit(None)
    assert path.read_bytes() == DATA
    assert os.listdir(where) == ["late"]


def test_a_symlink_stays_and_its_target_is_written(where):
    (where / "real").mkdir()
    target = where / "real" / "target"
    target.write_bytes(b"old")
    link = where / "link"
    link.symlink_to("real/target")
    dangling = where / "dangling"
    dangling.symlink_to("real/later")
    write(link)
    write(dangling)
    assert link.is_symlink() and dangling.is_symlink()
    assert target.read_bytes() == DATA and (where / "real" / "later").read_bytes() == DATA
    assert sorted(os.listdir(where / "real")) == ["later", "target"]


def test_preserve_keeps_mode_and_times(where):
    source = where / "source"
    source.write_bytes(DATA)
    source.chmod(0o751)
    os.utime(source, ns=(1_000_000_001, 2_000_000_002))
    write(where / "copy", preserve=source.stat())
    found = (where / "copy").stat()
    assert stat.S_IMODE(found.st_mode) == 0o751
    assert (found.st_atime_ns, found.st_mtime_ns) == (1_000_000_001, 2_000_000_002)


def test_the_source_itself_is_refused_by_any_name(where):
    source = where / "source"
    source.write_bytes(DATA)
    os.link(source, where / "hard")
    (where / "soft").symlink_to("source")
    for name in ("source", "hard", "soft"):
        with pytest.raises(UsageError, match="is the source, or"):
            open_destination(str(where / name), size=1, apart=[source.stat()])
    assert source.read_bytes() == DATA


def test_fifo_directory_and_missing_directory_are_refused(where):
    os.mkfifo(where / "fifo")
    with pytest.raises(UsageError, match="is a FIFO"):
        open_destination(str(where / "fifo"), size=1)
    with pytest.raises(UsageError, match="is a directory"):
        open_destination(str(where), size=1)
    with pytest.raises(UsageError, match="names a directory that does not exist"):
        open_destination(str(where / "no") + "/", size=1)
    with pytest.raises(BlockError, match=r"cannot create .*No such file or directory"):
        open_destination(str(where / "no" / "file"), size=1)
    with pytest.raises(UsageError, match="character device"):
        open_destination("/dev/null", size=1)
    assert os.listdir(where) == ["fifo"]


def test_made_devices_are_written_in_place_if_large_enough():
    with pytest.raises(UsageError, match="holds 10 bytes, and the source has 11"):
        open_destination("memory:10", size=11)
    with pytest.raises(UsageError, match="cannot be written"):
        open_destination("zero:10", size=5)
    destination = open_destination("null:", size=1 << 60)
    assert isinstance(destination, InPlace)
    destination.commit(None)
