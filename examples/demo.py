"""headway in half a minute: a hang shown, explained and cured; then a real job through starved pools.

Everything printed is real: the freeze is a frozen process, the schedule comes from a search over the
same function, and the copies move and hash real files. ``./dev demo`` runs it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import headway as hw
from headway.copying import CopyReport, copy
from headway.core.units import format_size

HERE = Path(__file__).resolve().parent
SIZE = 24 << 20  # bytes of each file; the zone all copies share has 8MiB
COPIES = 3


def title(text: str) -> None:
    print(f"\n== {text}", flush=True)


def headway(*arguments: str) -> str:
    """Run the command as a user would; what it prints."""
    command = [sys.executable, "-m", "headway", *arguments]
    done = subprocess.run(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True, check=False)
    return done.stdout


def show_the_hang() -> None:
    title(
        "hang: two threads, two units of a threading.Semaphore, each needs two (examples/frozen.py)"
    )
    frozen = subprocess.run([sys.executable, str(HERE / "frozen.py")], check=False)
    print(f"ended by its watchdog, exit status {frozen.returncode}")


def show_why_and_the_cure() -> None:
    title("why: the same function on a headway pool (headway check examples/bounce.py:two_mappers)")
    print(headway("check", "examples/bounce.py:two_mappers"), end="")
    title("cure: every schedule of each remedy")
    sys.path.insert(0, str(HERE))
    from bounce import REMEDIES

    for name, remedy in REMEDIES.items():
        report = headway("check", f"examples/bounce.py:{remedy.__name__}").splitlines()
        verdict = report[0].partition(":")[0]
        how = next((line for line in report if line.startswith("real code")), "")
        print(f"  {name:<26} {verdict}: {how}")


def show_the_job(folder: Path) -> bool:
    title(
        f"job: {COPIES} copies of {format_size(SIZE)} share one zone of 8MiB, "
        "and every allocation beyond the reserves fails"
    )
    zone = hw.Zone("8MiB", name="demo", min_free=0)
    wanted: list[str] = []
    reports: list[CopyReport | BaseException] = []
    for number in range(COPIES):
        data = os.urandom(SIZE)
        wanted.append(hashlib.sha256(data).hexdigest())
        (folder / f"source-{number}").write_bytes(data)
    del data

    def one(number: int) -> None:
        try:
            source, target = folder / f"source-{number}", folder / f"copy-{number}"
            reports.append(copy(source, target, memory="2MiB", zone=zone, starve=True))
        except BaseException as error:
            reports.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(COPIES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    good = True
    for report in reports:
        if isinstance(report, BaseException):
            raise report
        right = report.sha256 in wanted
        good = good and right
        print(
            f"  sha256 {(report.sha256 or '')[:12]} {'right' if right else 'WRONG'}, "
            f"reserve_uses {report.reserve_uses}, waits {report.waits}, "
            f"longest wait {report.longest_wait_s * 1000:.1f} ms, "
            f"at most {format_size(report.memory_peak)} leased"
        )
    zone.close()
    return good and all(
        isinstance(report, CopyReport) and report.reserve_uses and report.waits
        for report in reports
    )


def main() -> int:
    show_the_hang()
    show_why_and_the_cure()
    with tempfile.TemporaryDirectory() as folder:
        good = show_the_job(Path(folder))
    print("\nall digests right, nothing lost" if good else "\nsomething is wrong: see above")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
