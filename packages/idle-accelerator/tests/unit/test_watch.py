"""The watch: every group in one folder stands still at the first input, but the spared ones, and also one that began in that moment."""

import contextlib
import json
import os
import select
import sys
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Self

import pytest
from agent_process import until

if sys.platform != "linux":
    pytest.skip("control groups are Linux's", allow_module_level=True)

from idle_accelerator.agent.watch import Ear, Hands, Watch


class Kernel:
    """A folder in which groups freeze when they are told to, as the kernel makes them."""

    def __init__(self, home: Path, *, version: int = 2) -> None:
        self.home = home
        self.version = version
        home.mkdir()

    def add(self, name: str, *, weighs: bool = True) -> Path:
        # Made aside, so that it is whole when it is seen, as the kernel's are.
        folder = self.home.with_name(f"{self.home.name} {name}")
        folder.mkdir()
        if self.version == 1:
            (folder / "freezer.state").write_text("THAWED\n")
        else:
            (folder / "cgroup.freeze").write_text("0")
            (folder / "cgroup.events").write_text("populated 1\nfrozen 0\n")
        if weighs:
            (folder / "cpu.idle").write_text("1")
        return folder.rename(self.home / name)

    def obey(self) -> None:
        for folder in self.home.iterdir():
            if self.version == 1:
                if (folder / "freezer.state").read_text().startswith("FROZEN"):
                    (folder / "freezer.state").write_text("FROZEN\n")
            else:
                frozen = (folder / "cgroup.freeze").read_text()[:1]
                (folder / "cgroup.events").write_text(f"populated 1\nfrozen {frozen}\n")

    def told(self, name: str) -> bool:
        if self.version == 1:
            return (self.home / name / "freezer.state").read_text().startswith("FROZEN")
        return (self.home / name / "cgroup.freeze").read_text() == "1"


class Obeying(threading.Thread):
    def __init__(self, kernel: Kernel) -> None:
        super().__init__(daemon=True)
        self.kernel = kernel
        self.ends = threading.Event()

    def run(self) -> None:
        while not self.ends.is_set():
            self.kernel.obey()
            time.sleep(0.002)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ends.set()
        self.join()


@pytest.mark.parametrize("version", [1, 2])
def test_all_but_the_spared_stand_still_and_the_kernel_is_asked(tmp_path: Path, version: int) -> None:
    kernel = Kernel(tmp_path / "home", version=version)
    for name in ("11", "22", "33"):
        kernel.add(name)
    with Obeying(kernel):
        frozen, missed = Hands(str(kernel.home), version, None).freeze({"22"})
    assert sorted(frozen) == [f"{kernel.home}/11", f"{kernel.home}/33"]
    assert missed == []
    assert [kernel.told(name) for name in ("11", "22", "33")] == [True, False, True]
    assert (kernel.home / "11/cpu.idle").read_text() == "1", "lifted only until it stands still"


def test_what_the_kernel_does_not_call_frozen_is_told_as_missed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("idle_accelerator.agent.watch.FREEZE_LIMIT_S", 0.02)
    kernel = Kernel(tmp_path / "home")
    kernel.add("11")
    frozen, missed = Hands(str(kernel.home), 2, None).freeze(())
    assert (frozen, missed) == ({}, [f"{kernel.home}/11"])


def test_a_home_that_is_gone_is_nothing_to_freeze(tmp_path: Path) -> None:
    assert Hands(str(tmp_path / "gone"), 2, None).freeze(()) == ({}, [])


class Scripted(Ear):
    """Hears what a test says."""

    def __init__(self) -> None:
        self.at_s = float("-inf")

    def wait(self, others: Collection[int], timeout_s: float) -> frozenset[int]:
        ready, _, _ = select.select(list(others), [], [], min(timeout_s, 0.01))
        return frozenset(ready)

    def latest_s(self) -> float:
        return self.at_s


class Running:
    """A watch in a thread, with its two pipes."""

    def __init__(self, kernel: Kernel) -> None:
        self.ear = Scripted()
        commands, self._commands = os.pipe()
        self._reports, reports = os.pipe()
        os.set_blocking(self._reports, False)
        self._heard = b""
        watch = Watch(self.ear, Hands(str(kernel.home), kernel.version, None), commands, reports)
        self._thread = threading.Thread(target=watch.run, daemon=True)
        self._thread.start()
        until(lambda: {"ready": True} in self.reports(), what="it is ready")

    def tell(self, *, armed: bool, since_s: float = 0.0, spared: Collection[str] = ()) -> None:
        command = {"armed": armed, "since_s": since_s, "spared": list(spared)}
        os.write(self._commands, json.dumps(command).encode() + b"\n")

    def reports(self) -> list[dict[str, object]]:
        with contextlib.suppress(BlockingIOError):
            self._heard += os.read(self._reports, 65536)
        return [json.loads(line) for line in self._heard.splitlines()]

    def end(self) -> None:
        os.close(self._commands)
        self._thread.join(30)
        assert not self._thread.is_alive(), "it ends with its standard input"


def test_the_first_input_after_it_was_armed_freezes_and_an_older_one_does_not(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path / "home")
    kernel.add("11")
    with Obeying(kernel):
        running = Running(kernel)
        running.ear.at_s = 100.0
        running.tell(armed=True, since_s=100.0)
        time.sleep(0.1)
        assert not kernel.told("11")
        running.ear.at_s = 100.2
        until(lambda: kernel.told("11"), what="the group is frozen")
        until(lambda: len(running.reports()) >= 2, what="it tells")
        assert running.reports()[1]["input_at_s"] == 100.2
        running.end()


def test_disarmed_it_freezes_nobody(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path / "home")
    kernel.add("11")
    with Obeying(kernel):
        running = Running(kernel)
        running.tell(armed=True, since_s=100.0)
        running.tell(armed=False)
        time.sleep(0.05)
        running.ear.at_s = 200.0
        time.sleep(0.1)
        assert not kernel.told("11")
        running.end()


def test_a_guest_that_begins_after_the_first_input_is_frozen_too_until_the_agent_says_otherwise(
    tmp_path: Path,
) -> None:
    kernel = Kernel(tmp_path / "home")
    kernel.add("11")
    with Obeying(kernel):
        running = Running(kernel)
        running.tell(armed=True, since_s=0.0)
        running.ear.at_s = 1.0
        until(lambda: kernel.told("11"), what="the group is frozen")
        kernel.add("22")
        until(lambda: kernel.told("22"), what="the late one is frozen")
        running.tell(armed=False)
        time.sleep(0.1)
        kernel.add("33")
        time.sleep(0.1)
        assert not kernel.told("33")
        running.end()
