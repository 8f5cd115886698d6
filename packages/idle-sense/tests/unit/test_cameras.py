"""Who holds a camera: a made-up /dev, /sys and /proc, and the real inotify on files that stand for cameras."""

import os
import select
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("inotify and /proc are Linux's", allow_module_level=True)

from idle_sense.platform.cameras import BLIND_EVERY_S, Cameras, Places


class Machine:
    def __init__(self, folder: Path, *, guests: frozenset[int] = frozenset(), sees_all: bool = True) -> None:
        self.folder = folder
        self.now_s = 100.0
        self.scans = 0
        self.guests = guests
        for name in ("dev", "class", "modules", "proc"):
            (folder / name).mkdir()
        self.places = Places(
            devices=str(folder / "dev"),
            classes=str(folder / "class"),
            modules=str(folder / "modules"),
            proc=str(folder / "proc"),
        )
        self.cameras = Cameras(
            is_guest=lambda pid: pid in self.guests,
            places=self.places,
            now=lambda: self.now_s,
            sleep=lambda _s: None,
            sees_all=sees_all,
        )
        scan = self.cameras._scan

        def counted():
            self.scans += 1
            return scan()

        self.cameras._scan = counted  # type: ignore[method-assign]

    def plug(
        self, name: str = "video0", *, called: str = "Integrated Camera", module: str | None = None
    ) -> Path:
        """A file in /dev that stands for the camera, and what /sys says of it."""
        camera = self.folder / "dev" / name
        camera.touch()
        entry = self.folder / "class" / name
        (entry / "device" / "power").mkdir(parents=True)
        (entry / "name").write_text(called + "\n")
        if module is not None:
            (self.folder / "modules" / module / "holders").mkdir(parents=True, exist_ok=True)
            self.count(0, module)
            (entry / "device" / "driver").mkdir()
            (entry / "device" / "driver" / "module").symlink_to(self.folder / "modules" / module)
        return camera

    def count(self, handles: int, module: str = "uvcvideo") -> None:
        (self.folder / "modules" / module / "refcnt").write_text(f"{handles}\n")

    def power(self, state: str, name: str = "video0") -> None:
        (self.folder / "class" / name / "device" / "power" / "runtime_status").write_text(state + "\n")

    def process(self, pid: int, name: str, *links: str, maps: str = "") -> None:
        folder = self.folder / "proc" / str(pid)
        (folder / "fd").mkdir(parents=True, exist_ok=True)
        (folder / "status").write_text(f"Name:\t{name}\nTgid:\t{pid}\nUid:\t1000\t1000\t1000\t1000\n")
        (folder / "maps").write_text(maps)
        for old in (folder / "fd").iterdir():
            old.unlink()
        for number, link in enumerate(links):
            (folder / "fd" / str(number)).symlink_to(link)

    def look(self, passed_s: float = 0.0):
        self.now_s += passed_s
        return self.cameras.read(self.now_s).value


@pytest.fixture
def machine(tmp_path: Path):
    made = Machine(tmp_path)
    yield made
    made.cameras.close()


def test_a_machine_without_a_camera_has_nothing_to_look_for(machine: Machine) -> None:
    assert machine.look() == ()
    assert machine.scans == 0
    assert machine.cameras.filenos() == ()


def test_a_program_that_opens_the_camera_is_named_at_once_and_gone_with_it(machine: Machine) -> None:
    camera = machine.plug()
    assert machine.look() == ()
    with camera.open("rb"):
        machine.process(50, "zoom", "/dev/null", str(camera))
        assert select.select(list(machine.cameras.filenos()), [], [], 30)[0], "inotify tells of it"
        assert machine.look() == ("zoom",)
    machine.process(50, "zoom", "/dev/null")
    assert select.select(list(machine.cameras.filenos()), [], [], 30)[0]
    assert machine.look() == ()
    assert not select.select(list(machine.cameras.filenos()), [], [], 0)[0], "what was told is taken"


def test_nothing_is_looked_through_while_nothing_changes(machine: Machine) -> None:
    machine.plug()
    for _ in range(20):
        machine.look(5.0)
    assert machine.scans == 1


def test_a_driver_that_counts_nobody_saves_even_the_first_look(machine: Machine) -> None:
    machine.plug(module="uvcvideo")
    machine.process(50, "zoom", str(machine.folder / "dev/video0"))
    assert machine.look() == ()
    assert machine.scans == 0
    machine.count(1)
    assert machine.look() == ("zoom",)


def test_a_use_count_leaves_out_drivers_that_build_on_this_one(machine: Machine) -> None:
    machine.plug(module="uvcvideo")
    machine.count(1)
    (machine.folder / "modules/uvcvideo/holders/other").mkdir()
    assert machine.look() == ()
    assert machine.scans == 0


@pytest.mark.parametrize("keeper", ["wireplumber", "pipewire"])
def test_who_keeps_a_camera_without_looking_does_not_count_until_it_streams(
    machine: Machine, keeper: str
) -> None:
    camera = str(machine.plug())
    machine.process(60, keeper, camera)
    assert machine.look() == ()
    machine.process(60, keeper, camera, "/dmabuf:")
    assert machine.look(5.0) == (keeper,)
    machine.process(60, keeper, camera, maps=f"7f00-7f10 rw-s 00000000 00:06 300 {camera}\n")
    assert machine.look(5.0) == (keeper,)
    machine.process(60, keeper, camera)
    assert machine.look(5.0) == ()


def test_a_keeper_is_looked_at_without_a_look_through_everything(machine: Machine) -> None:
    machine.process(60, "wireplumber", str(machine.plug()))
    for _ in range(10):
        machine.look(5.0)
    assert machine.scans == 1


def test_our_guests_camera_is_nobodys(tmp_path: Path) -> None:
    machine = Machine(tmp_path, guests=frozenset({70}))
    machine.process(70, "guest", str(machine.plug()))
    assert machine.look() == ()
    machine.cameras.close()


def test_a_holder_that_ends_without_a_word_is_noticed(machine: Machine) -> None:
    import shutil

    machine.process(50, "zoom", str(machine.plug()))
    assert machine.look() == ("zoom",)
    shutil.rmtree(machine.folder / "proc" / "50")
    assert machine.look(5.0) == ()


def test_a_converter_of_video_is_no_camera(machine: Machine) -> None:
    machine.process(50, "mpv", str(machine.plug("video10", called="bcm2835-codec-decode")))
    assert machine.look() == ()


def test_a_camera_that_is_plugged_in_later_is_watched(machine: Machine) -> None:
    assert machine.look() == ()
    camera = machine.plug("video2")
    assert machine.look() == ()
    with camera.open("rb"):
        machine.process(50, "cheese", str(camera))
        assert machine.look() == ("cheese",)


def test_another_users_program_counts_by_the_drivers_count(tmp_path: Path) -> None:
    machine = Machine(tmp_path, sees_all=False)
    machine.plug(module="uvcvideo")
    machine.process(50, "zoom")
    machine.power("active")
    machine.count(1)
    assert machine.look() == ("another user's program",)
    machine.power("suspended")
    assert machine.look() == (), "kept open, and switched off: nobody looks through it"
    machine.cameras.close()


def test_where_nobody_counts_and_others_are_hidden_it_is_missing_until_the_camera_sleeps(
    tmp_path: Path,
) -> None:
    machine = Machine(tmp_path, sees_all=False)
    machine.plug()
    machine.power("active")
    reading = machine.cameras.read(0.0)
    assert reading.value is None
    assert reading.tells
    assert reading.advice
    machine.power("suspended")
    assert machine.look() == ()
    machine.cameras.close()


def test_a_blind_watch_looks_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from idle_sense.platform import cameras

    class Blind(cameras.Inotify):
        def watch(self, path: str, mask: int) -> bool:
            return False

    monkeypatch.setattr(cameras, "Inotify", Blind)
    machine = Machine(tmp_path)
    camera = str(machine.plug())
    machine.look()
    machine.process(50, "zoom", camera)
    assert machine.look(BLIND_EVERY_S) == ("zoom",)
    machine.cameras.close()


def test_the_real_proc_names_this_process(tmp_path: Path) -> None:
    """The one look through all processes, for real."""
    machine = Machine(tmp_path)
    camera = machine.plug()
    machine.cameras._places = machine.places._replace(proc="/proc")
    with camera.open("rb"):
        expected = Path(f"/proc/{os.getpid()}/comm").read_text().strip()
        assert expected in (machine.look() or ())
    machine.cameras.close()


def test_hundreds_of_openings_are_one_look(machine: Machine) -> None:
    camera = machine.plug()
    machine.look()
    for _ in range(500):
        camera.open("rb").close()
    before = machine.scans
    machine.look()
    assert machine.scans == before + 1


def test_who_only_asks_for_the_wiring_of_a_camera_does_not_look_through_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path, sees_all=False)
    machine.plug(module="uvcvideo")
    machine.process(60, "wireplumber", "/dev/media0")
    machine.process(61, "cam", "/dev/media0")
    machine.count(2)
    machine.power("active")
    assert machine.look() == ()
    machine.count(3)
    assert machine.look(5.0) == ("another user's program",)
    machine.cameras.close()
