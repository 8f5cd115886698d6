"""How soon idle-sense knows of the first input after quiet, and what a look costs: X11, Mutter, KWin, sway, as installed.

    .venv/bin/python bench/idle_input.py [--rounds 30] [X11 RealMutter RealKwin RealSway RealLabwc …]

From the moment the input is sent: to the monitor's socket being readable (woken), and to the look that says so (known). Then
the processor time of one look, while nothing happens. Servers are those of packages/idle-sense/tests/seat_servers.py; what is
not installed is left out. Input goes in by XTest, org.gnome.Mutter.RemoteDesktop, fake_input and virtual_pointer.
"""

import argparse
import select
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "packages" / "idle-sense" / "tests"))

from _pytest.outcomes import Skipped
from seat_servers import KINDS, X11, Server, running

from idle_sense.platform.x11 import IdleClient

QUIET_S = 1.3
LOOKS = 300


class XTest(IdleClient):
    """XTEST 2.2: FakeInput, a movement from where the pointer is."""

    def begin(self) -> None:
        self.poll(1.0)
        self._request(struct.pack("<BxHHxx", 98, 4, 5) + b"XTEST\0\0\0", self._take_xtest)
        self.poll(1.0)

    def _take_xtest(self, answer: bytes) -> None:
        self._xtest = answer[9]

    def move(self) -> None:
        self._count = (self._count + 1) & 0xFFFF
        head = struct.pack("<BBHBBxxII8x", self._xtest, 2, 9, 6, 1, 0, 0)
        self._send(head + struct.pack("<hh8x", 1, 1))
        if self._socket is not None:
            self._socket.flush()


def input_of(server: Server) -> Callable[[], None]:
    if not isinstance(server, X11):
        return server.use
    client = XTest(f"/tmp/.X11-unix/X{server.name[1:]}")
    client.begin()
    return client.move


def settled(server: Server) -> None:
    deadline_s = time.monotonic() + 60
    while server.idle_s() < QUIET_S or select.select(list(server.displays.filenos()), [], [], 0.1)[0]:
        if time.monotonic() > deadline_s:
            sys.exit(f"{type(server).__name__} does not get quiet")


def measured(server: Server, rounds: int) -> tuple[list[float], list[float], float]:
    """Milliseconds until woken and until known, and microseconds of processor time of a look."""
    use = input_of(server)
    use()  # the first may have to connect
    woken_ms: list[float] = []
    known_ms: list[float] = []
    for _ in range(rounds):
        settled(server)
        descriptors = list(server.displays.filenos())
        began_s = time.perf_counter()
        use()
        select.select(descriptors, [], [], 30)
        woken_ms.append((time.perf_counter() - began_s) * 1e3)
        while not 0 <= server.idle_s() < 1.0:
            select.select(list(server.displays.filenos()), [], [], 1)
        known_ms.append((time.perf_counter() - began_s) * 1e3)
    settled(server)
    cpu_s = 0.0
    for _ in range(LOOKS):
        time.sleep(0.01)
        began_s = time.thread_time()
        server.displays.read(time.monotonic())
        cpu_s += time.thread_time() - began_s
    return woken_ms, known_ms, cpu_s / LOOKS * 1e6


def shown(values: list[float]) -> str:
    ordered = sorted(values)
    return f"{statistics.median(ordered):.2f} / {ordered[round((len(ordered) - 1) * 0.9)]:.2f} / {ordered[-1]:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument(
        "kinds", nargs="*", default=["X11", "RealMutter", "RealKwin", "RealSway", "RealLabwc", "FakeWayland"]
    )
    options = parser.parse_args()
    print(f"{options.rounds} rounds; ms: median / 90 % / worst")
    print("| server | back end | input → woken | input → known | one look, CPU |")
    print("|---|---|---|---|---|")
    for kind in KINDS:
        if kind.__name__ not in options.kinds:
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                with running(kind, Path(folder)) as server:
                    settled(server)
                    woken_ms, known_ms, look_us = measured(server, options.rounds)
                    seat = server.seat()
            except Skipped as reason:
                print(f"| {kind.__name__} | {reason.msg} | | | |")
                continue
        source = "" if seat is None else seat.idle_s.source
        print(
            f"| {kind.__name__} | {source} | {shown(woken_ms)} | {shown(known_ms)} | {look_us:.0f} µs |",
            flush=True,
        )


if __name__ == "__main__":
    main()
