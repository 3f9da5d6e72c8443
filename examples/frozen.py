"""A real program that freezes: the loop of 2009 on the two units of a `threading.Semaphore`.

Nothing is arranged: two threads run the same loop until both hold one unit and want another. A
watchdog notices that nothing moves, prints where the threads stand, and ends the process with status 3.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from bounce import map_request

PATIENCE_S = 0.5  # without any progress


def main() -> None:
    units = threading.Semaphore(2)
    rounds = [0, 0]

    def loop(me: int) -> None:
        while True:
            map_request(units.acquire, lambda unit: units.release())
            rounds[me] += 1

    threads = [threading.Thread(target=loop, args=(me,), daemon=True) for me in range(2)]
    for thread in threads:
        thread.start()
    seen, since = -1, time.monotonic()
    while time.monotonic() - since < PATIENCE_S:
        time.sleep(0.05)
        if sum(rounds) != seen:
            seen, since = sum(rounds), time.monotonic()
    print(f"frozen after {seen:,} rounds: nothing has moved for {PATIENCE_S} s")
    for thread in threads:
        frame = sys._current_frames()[thread.ident or 0]
        while frame.f_code is not map_request.__code__:
            assert frame.f_back is not None
            frame = frame.f_back
        print(
            f"  {thread.name} waits in {frame.f_code.co_name}, line {frame.f_lineno}: second = take()"
        )
    sys.stdout.flush()
    os._exit(3)  # the threads will never end by themselves


if __name__ == "__main__":
    main()
