"""What every back end of a seat promises, whatever it speaks."""

import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("these are the seats of a Linux machine", allow_module_level=True)

from fake_bus import until
from seat_servers import KINDS, Server, running


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    with running(request.param, tmp_path) as started:
        until(lambda: started.idle_s() >= 0)
        yield started


def readable(server: Server, within_s: float) -> bool:
    return bool(select.select(list(server.displays.filenos()), [], [], within_s)[0])


def settle(server: Server) -> None:
    """Waits until it is quiet, and nothing more arrives by itself."""

    def quiet() -> bool:
        return server.idle_s() > 1.5 and not readable(server, 0.1)

    until(quiet)


def test_the_idle_time_grows_with_the_time_that_passes(server: Server) -> None:
    settle(server)
    before_s, began_s = server.idle_s(), time.monotonic()
    time.sleep(0.5)
    grown_s, passed_s = server.idle_s() - before_s, time.monotonic() - began_s
    assert 0.3 < grown_s < passed_s + 1.5


def test_input_starts_it_anew(server: Server) -> None:
    settle(server)
    server.use()
    until(lambda: 0 <= server.idle_s() < 1.0)
    settle(server)


def test_the_first_input_after_quiet_wakes_who_waits(server: Server) -> None:
    for _ in range(2):
        settle(server)
        server.use()
        assert readable(server, 30.0)
        until(lambda: 0 <= server.idle_s() < 1.0)


def test_input_that_goes_on_wakes_nobody(server: Server) -> None:
    """Else a monitor would do as much work as its owner."""
    for _ in range(10):
        settle(server)
        server.use()
        until(lambda: 0 <= server.idle_s() < 1.0 and not readable(server, 0.1))
        began_s = time.monotonic()
        for _ in range(4):
            server.use()
        woken = readable(server, 0.05)
        if time.monotonic() - began_s < 0.5:
            assert not woken
            return
    pytest.fail("this machine is too busy to use a display four times in half a second")


def test_a_server_that_hangs_blocks_nobody_and_its_reading_grows_old(server: Server) -> None:
    settle(server)
    server.hang()
    try:
        worst_s, cpu_began_s, looks = 0.0, time.thread_time(), 0

        def old() -> bool:
            nonlocal worst_s, looks
            began_s = time.monotonic()
            seat = server.seat()
            worst_s, looks = max(worst_s, time.monotonic() - began_s), looks + 1
            assert seat is not None
            return seat.idle_s.age_s > 3.0

        until(old)
        # The bound is 50 ms a look; the rest is leave for a machine that is busy with other tests.
        assert worst_s < 2.0
        assert (time.thread_time() - cpu_began_s) / looks < 0.02, "it waits without computing"
        seat = server.seat()
        assert seat is not None
        assert "answer" in seat.idle_s.problem
        assert seat.idle_s.advice
    finally:
        server.go_on()

    def fresh() -> bool:
        seat = server.seat()
        return seat is not None and seat.idle_s.value is not None and seat.idle_s.age_s < 1.0

    until(fresh)


def test_a_server_that_crashes_counts_as_busy_until_it_is_back(server: Server) -> None:
    settle(server)
    server.crash()

    def missed() -> bool:
        seat = server.seat()
        return seat is not None and (seat.idle_s.value is None or seat.idle_s.age_s > 3.0)

    until(missed)
    seat = server.seat()
    assert seat is not None
    assert seat.idle_s.problem
    assert seat.idle_s.advice
    server.start()
    until(lambda: server.idle_s() >= 0 and not missed(), within_s=90.0)
    settle(server)
    server.use()
    until(lambda: 0 <= server.idle_s() < 1.0)


def test_it_may_be_closed_twice_and_read_again(server: Server) -> None:
    server.displays.close()
    server.displays.close()
    assert list(server.displays.filenos()) == []
    until(lambda: server.idle_s() >= 0)
