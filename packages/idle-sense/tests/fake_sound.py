"""Real sound servers of the test's own, without any sound card; and the files of cards that are not there."""

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

RUNNING = "state: RUNNING\nowner_pid   : {pid}\ntrigger_time: 1.5\n-----\nhw_ptr      : 1\n"


class Server:
    """A sound server with a sink ``out`` and a source ``mic``, at ``runtimes/UID/pulse/native``."""

    def __init__(self, folder: Path) -> None:
        self.runtimes = folder / "run"
        self.runtime = self.runtimes / str(os.geteuid())
        self.runtime.mkdir(parents=True, mode=0o700)
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "PULSE_SERVER": f"unix:{self.runtime}/pulse/native",
        }
        self.socket = self.runtime / "pulse" / "native"
        self.processes: list[subprocess.Popen] = []

    def run(self, *words: str) -> subprocess.Popen:
        process = subprocess.Popen(
            words,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.processes.append(process)
        return process

    def tell(self, *words: str) -> bool:
        """``pactl``; whether it did."""
        asked = subprocess.run(
            ["pactl", *words], env=self.environ, capture_output=True, timeout=60, check=False
        )
        return asked.returncode == 0

    def wait(self) -> None:
        deadline_s = time.monotonic() + 60
        while not (self.socket.exists() and self.tell("info")):
            assert time.monotonic() < deadline_s, "the sound server never served"
            assert self.processes[-1].poll() is None, "the sound server ended"
            time.sleep(0.05)

    def record(self, source: str = "mic") -> subprocess.Popen:
        return self.run("parecord", "--raw", "-d", source, "/dev/null")

    def play(self) -> subprocess.Popen:
        return self.run("pacat", "--raw", "-d", "out", "/dev/zero")

    def stop(self) -> None:
        while self.processes:
            process = self.processes.pop()
            process.kill()
            process.wait(timeout=30)


class PulseAudio(Server):
    def __init__(self, folder: Path) -> None:
        _need("pulseaudio", "pactl")
        super().__init__(folder)
        self.start()

    def start(self) -> None:
        modules = (
            "module-native-protocol-unix",
            "module-null-sink sink_name=out",
            "module-null-source source_name=mic",
        )
        loads = [f"--load={module}" for module in modules]
        self.run("pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", *loads)
        self.wait()


class PipeWire(Server):
    """With its session manager, which links programs to devices, on a bus of their own."""

    def __init__(self, folder: Path, bus_address: str) -> None:
        _need("pipewire", "wireplumber", "pipewire-pulse", "pactl")
        super().__init__(folder)
        self.environ["DBUS_SESSION_BUS_ADDRESS"] = self.environ["DBUS_SYSTEM_BUS_ADDRESS"] = bus_address
        self.run("pipewire")
        _wait_for(self.runtime / "pipewire-0")
        self.run("wireplumber")
        self.run("pipewire-pulse")
        self.wait()
        assert self.tell("load-module", "module-null-sink", "sink_name=out")
        assert self.tell(
            "load-module",
            "module-null-sink",
            "media.class=Audio/Source/Virtual",
            "sink_name=mic",
            "channel_map=mono",
        )


def card(asound: Path, name: str, status: str) -> Path:
    """``name``: ``card0/pcm0c``."""
    file = asound / name / "sub0" / "status"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(status)
    return file


def _need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(
                f"{program} is not installed (Debian: pipewire, pipewire-pulse, wireplumber, pulseaudio-utils; or pulseaudio)"
            )


def _wait_for(path: Path) -> None:
    deadline_s = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline_s, f"{path.name} never came"
        with contextlib.suppress(InterruptedError):
            time.sleep(0.02)
