"""Fixtures that several folders of tests share: real scheduler processes over temporary data directories."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

sys.path.insert(
    0, str(Path(__file__).parent)
)  # so that tests can import pool_builders, which stands beside this file

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a script: then processes that these tests start and stop by Ctrl-C would not hear it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

_START_S = 30.0
_STOP_S = 20.0
_SERVE = """
import logging, sys
from pathlib import Path
from idle_accelerator.scheduler.app import SchedulerConfig, serve
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
serve(SchedulerConfig(
    data_dir=Path(sys.argv[1]), host=sys.argv[2], port=int(sys.argv[3]), allowed_hosts=tuple(sys.argv[4:])
))
"""


@pytest.fixture(autouse=True, scope="session")
def private_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What agents of these tests learn and say of themselves is not this user's affair."""
    with pytest.MonkeyPatch.context() as changes:
        changes.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        if sys.platform != "win32" and os.geteuid() == 0:
            # Whom guests of root's agents are: somebody of whom no account has to know.
            changes.setenv("IDLE_GUEST_USER", "61999")
        yield


def unused_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listened on a moment ago."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class SchedulerProcess:
    """A scheduler in a process of its own, as ``idlectl scheduler`` would start it."""

    def __init__(
        self,
        data_dir: Path,
        port: int,
        *,
        host: str = "127.0.0.1",
        allowed_hosts: tuple[str, ...] = (),
    ) -> None:
        self.data_dir = data_dir
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log_path = data_dir.with_name(data_dir.name + ".log")
        self._host = host
        self._allowed_hosts = allowed_hosts
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def key(self) -> str:
        """The key that the first start made; only there when bound beyond loopback."""
        return (self.data_dir / "scheduler.key").read_text(encoding="utf-8").strip()

    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def start(self) -> None:
        """Returns when it answers /readyz."""
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    _SERVE,
                    str(self.data_dir),
                    self._host,
                    str(self.port),
                    *self._allowed_hosts,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _START_S
        while True:
            with contextlib.suppress(httpx2.TransportError):
                if httpx2.get(f"{self.url}/readyz", timeout=5).status_code == 200:
                    return
            assert self._process.poll() is None, f"the scheduler ended at its start:\n{self.log()}"
            assert time.monotonic() < deadline, f"the scheduler does not answer:\n{self.log()}"
            time.sleep(0.05)

    def kill9(self) -> None:
        """Ends it without any chance to tidy up."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=_STOP_S)

    def stop(self) -> int:
        """Asks it to stop, as Ctrl-C does; returns its exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            if sys.platform == "win32":
                self._process.terminate()
            else:
                os.kill(self._process.pid, signal.SIGINT)
        return self._process.wait(timeout=_STOP_S)

    def restart(self) -> None:
        """Kills it if it still runs, and starts it over the same data directory and port."""
        self.kill9()
        self.start()

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill9()


@pytest.fixture
def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    return unused_port()


@pytest.fixture
def start_scheduler(tmp_path: Path) -> Iterator[Callable[..., SchedulerProcess]]:
    """Starts schedulers with the options of SchedulerProcess; each gets its own data directory unless one is given."""
    started: list[SchedulerProcess] = []

    def start(data_dir: Path | None = None, **options: object) -> SchedulerProcess:
        process = SchedulerProcess(
            data_dir or tmp_path / f"scheduler-{len(started)}",
            unused_port(),
            **options,  # pyright: ignore[reportArgumentType]  # the tests name them
        )
        started.append(process)
        process.start()
        return process

    yield start
    for process in started:
        process.close()


@pytest.fixture
def scheduler_process(start_scheduler: Callable[..., SchedulerProcess]) -> SchedulerProcess:
    """A real scheduler on loopback, over a new data directory and a free port; gone when the test ends."""
    return start_scheduler()
