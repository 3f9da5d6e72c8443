"""Requests to a device that may fail: what was taken for them must come home all the same."""

import headway as hw


def copies(frames, device):
    with frames.lease() as frame:
        device.pread_into(memoryview(frame), 0)
        device.pwrite(memoryview(frame), 512)


def copies_carelessly(frames, device):
    frame = frames.alloc()
    device.pread_into(memoryview(frame), 0)
    frames.free(frame)


def tries_again(frames, device):
    with frames.lease() as frame:
        for _ in range(2):
            try:
                device.pread_into(memoryview(frame), 0)
                return
            except hw.BlockError:
                continue


def gives_up_with_another(frames, device):
    """The error path takes a second frame, to log with, while it holds the first."""
    with frames.lease() as frame:
        try:
            device.pread_into(memoryview(frame), 0)
        except hw.BlockError:
            with frames.lease():
                pass


def run(size, *fns):
    device = hw.open_device("memory:1KiB", writable=True)
    frames = hw.Mempool.of([bytearray(512) for _ in range(size)], name="frames")
    for fn in fns:
        hw.spawn(fn, frames, device)


def ok_a_scope_around_the_request():
    run(1, copies, copies)


def ok_a_second_try():
    run(1, tries_again, tries_again)


def leak_when_the_read_fails():
    run(2, copies_carelessly, copies_carelessly)


def deadlock_in_the_error_path():
    run(2, gives_up_with_another, gives_up_with_another)


def ok_room_for_the_error_path():
    run(3, gives_up_with_another, gives_up_with_another)
