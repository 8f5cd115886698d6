"""What a seat's back end is tried on: real display servers where they are installed, and fakes; each can be used, stopped,
continued, killed and started again, and is seen through ``Displays``."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_bus import Daemon, until
from fake_compositor import Compositor, message, text, words
from fake_mutter import Mutter
from jeepney import DBusAddress, new_method_call
from jeepney.io.blocking import open_dbus_connection
from processes import end

from idle_sense.facts import Seat
from idle_sense.platform.display_client import DisplayClient
from idle_sense.platform.displays import Displays, Places

ROOT = os.environ.get("SEAT_SERVERS_ROOT", "")
"""A file system of another release, with /tmp the same as here, whose display servers are tried; empty: those of this machine."""


class Server:
    """One display server and the ``Displays`` that look at it."""

    name = ""
    lasting = True
    """Whether the seat is expected to be there also while its server is not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ: dict[str, str] = {}
        self.places = Places(
            sockets=str(folder / "none"),
            sessions=str(folder / "sessions"),
            runtimes=str(folder),
            devices=str(folder / "input"),
            classes=str(folder / "classes"),
        )
        self.process: subprocess.Popen | None = None
        self.start()
        self.displays = Displays(environ=self.environ, places=self.places)

    def seat(self) -> Seat | None:
        seats = self.displays.read(time.monotonic()).value
        assert seats is not None
        return next((seat for seat in seats if self.name in ("", seat.name)), None)

    def idle_s(self) -> float:
        """-1: not told."""
        seat = self.seat()
        return -1.0 if seat is None or seat.idle_s.value is None else seat.idle_s.value + seat.idle_s.age_s

    def start(self) -> None:
        raise NotImplementedError

    def use(self) -> None:
        raise NotImplementedError

    def hang(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def crash(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=30)

    def leave(self) -> None:
        assert self.process is not None
        end(self.process)

    def close(self) -> None:
        self.displays.close()
        if self.process is not None and self.process.poll() is None:
            self.leave()

    def session_of_wayland(self) -> Path:
        """A session as logind writes it down; returns its user's runtime folder."""
        (self.folder / "sessions").mkdir(exist_ok=True)
        facts = f"USER=ada\nUID={os.getuid()}\nCLASS=user\nTYPE=wayland\nACTIVE=1\n"
        (self.folder / "sessions" / "3").write_text(facts)
        runtime = self.folder / str(os.getuid())
        runtime.mkdir(exist_ok=True, mode=0o700)
        return runtime

    def run(self, *command: str, as_nobody: bool = False, **environ: str) -> None:
        if ROOT:
            user = ["--userspec=65534:65534"] if as_nobody else []
            command, as_nobody = ("chroot", *user, ROOT, *command), False
        self.process = subprocess.Popen(
            command,
            env=os.environ | environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **({"user": 65534, "group": 65534, "extra_groups": []} if as_nobody else {}),
        )


def needed(*programs: str) -> None:
    for program in programs:
        if shutil.which(program, path=f"{ROOT}/usr/bin" if ROOT else None) is None:
            pytest.skip(f"{program} is not installed")


class X11(Server):
    def start(self) -> None:
        needed("Xvfb", "xdotool")
        if not self.name:
            read_end, write_end = os.pipe()
            self.run_x("-displayfd", str(write_end), pass_fds=[write_end])
            os.close(write_end)
            with os.fdopen(read_end) as told:
                self.name = f":{int(told.readline())}"
            self.environ["DISPLAY"] = self.name
            self.places = self.places._replace(sockets="/tmp/.X11-unix")
        else:
            self.run_x(self.name)

    def run_x(self, *arguments: str, **more: object) -> None:
        self.process = subprocess.Popen(
            ["Xvfb", *arguments, "-screen", "0", "320x200x24", "-nolisten", "tcp"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **more,  # type: ignore[call-overload]
        )

    def use(self) -> None:
        place = str(int(time.monotonic() * 1000) % 300)
        command = ["xdotool", "mousemove", place, place[:2]]
        subprocess.run(command, env=os.environ | self.environ, check=True, timeout=30, capture_output=True)


class FakeWayland(Server):
    name = "Wayland session 3 of ada"
    protocol, version = "ext_idle_notifier_v1", 2

    def start(self) -> None:
        path = self.session_of_wayland() / "wayland-0"
        self.compositor = Compositor(path, protocol=self.protocol, version=self.version)

    def use(self) -> None:
        self.compositor.use()

    def hang(self) -> None:
        self.compositor.hanging.set()

    def go_on(self) -> None:
        self.compositor.hanging.clear()

    def crash(self) -> None:
        self.compositor.stop()

    def close(self) -> None:
        super().close()
        self.compositor.stop()
        assert self.compositor.violations == []


class FakeWayland1(FakeWayland):
    version = 1


class FakeKwinIdle(FakeWayland):
    protocol, version = "org_kde_kwin_idle", 1


class FakeMutter(Server):
    name = "Wayland session 3 of ada"
    bus: Daemon | None = None

    def start(self) -> None:
        runtime = self.session_of_wayland()
        if self.bus is None:
            self.bus = Daemon(runtime)
            # GNOME's own socket, which tells no idleness.
            self.compositor = Compositor(runtime / "wayland-0", protocol="")
            self.mutter = Mutter(self.bus.address)
        else:
            self.mutter.start()

    def use(self) -> None:
        self.mutter.use()

    def hang(self) -> None:
        self.mutter.hanging = True

    def go_on(self) -> None:
        self.mutter.hanging = False

    def crash(self) -> None:
        self.mutter.stop()

    def close(self) -> None:
        super().close()
        self.mutter.stop()
        self.compositor.stop()
        assert self.bus is not None
        self.bus.stop()


class RealMutter(Server):
    name = "Wayland session 3 of ada"
    bus: Daemon | None = None

    def start(self) -> None:
        needed("mutter")
        self.runtime = self.session_of_wayland()
        if self.bus is None:
            self.bus = Daemon(self.runtime)
        self.run(
            *("mutter", "--headless", "--virtual-monitor", "640x480", "--wayland", "--no-x11"),
            XDG_RUNTIME_DIR=str(self.runtime),
            DBUS_SESSION_BUS_ADDRESS=self.bus.address,
            XDG_CONFIG_HOME=str(self.folder),
            XDG_CACHE_HOME=str(self.folder),
        )
        self._connection = None

    def use(self) -> None:
        assert self.bus is not None
        desktop = "org.gnome.Mutter.RemoteDesktop"
        if self._connection is None:
            self._connection = open_dbus_connection(self.bus.address)
            where = DBusAddress("/org/gnome/Mutter/RemoteDesktop", desktop, desktop)
            created = self._connection.send_and_get_reply(new_method_call(where, "CreateSession"), timeout=30)
            self._session = DBusAddress(created.body[0], desktop, f"{desktop}.Session")
            self._connection.send_and_get_reply(new_method_call(self._session, "Start"), timeout=30)
        for pressed in (True, False):
            call = new_method_call(self._session, "NotifyKeyboardKeycode", "ub", (30, pressed))
            self._connection.send_and_get_reply(call, timeout=30)

    def crash(self) -> None:
        super().crash()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        super().close()
        if self._connection is not None:
            self._connection.close()
        assert self.bus is not None
        self.bus.stop()


class Wire(DisplayClient):
    """A Wayland client that may touch keys, where the compositor lets it."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.globals: dict[str, tuple[int, int]] = {}
        self._done = False
        self._made = 3

    def _greet(self) -> None:
        self._send(message(1, 1, words(2)) + message(1, 0, words(3)))

    def _ask(self) -> None:
        """Only what ``bind`` and ``say`` send."""

    def _outstanding(self) -> bool:
        return not self._done

    def _length(self) -> int | None:
        return None if len(self._received) < 8 else int.from_bytes(self._received[6:8], "little")

    def _take(self, data: bytes) -> None:
        target, opcode = int.from_bytes(data[:4], "little"), int.from_bytes(data[4:6], "little")
        if target == 2 and opcode == 0:
            length = int.from_bytes(data[12:16], "little")
            end = 16 + length + -length % 4
            numbers = int.from_bytes(data[8:12], "little"), int.from_bytes(data[end : end + 4], "little")
            self.globals[data[16 : 16 + length - 1].decode()] = numbers
        elif target == 3:
            self._done = True
        elif target == 1 and opcode == 0:
            raise AssertionError(data)

    def _forget(self) -> None:
        self._done = False

    def new_id(self) -> int:
        self._made += 1
        return self._made

    def bind(self, interface: str) -> int:
        name, made = self.globals[interface][0], self.new_id()
        self.say(message(2, 0, words(name) + text(interface) + words(1, made)))
        return made

    def say(self, data: bytes) -> None:
        self._send(data)
        assert self._socket is not None
        self._socket.flush()
        self._receive()


class _RealWayland(Server):
    name = "Wayland session 3 of ada"
    wire: Wire | None = None

    def sockets(self) -> list[Path]:
        return [path for path in self.runtime.glob("wayland-?") if path.is_socket()]

    def dial(self) -> Wire:
        until(self.sockets)
        wire = Wire(str(self.sockets()[0]))
        until(lambda: wire.poll(0.05) or wire._done)
        return wire

    def crash(self) -> None:
        super().crash()
        if self.wire is not None:
            self.wire.close()
            self.wire = None
        for path in self.runtime.glob("wayland-*"):
            path.unlink()

    def close(self) -> None:
        super().close()
        if self.wire is not None:
            self.wire.close()


class RealKwin(_RealWayland):
    """Plasma 5.27's has version 1 of ext_idle_notifier_v1, 6.7's version 2."""

    def start(self) -> None:
        needed("kwin_wayland", "dbus-run-session")
        self.runtime = self.session_of_wayland()
        # Debian's has capabilities, which a container may not give; a copy has none.
        program = self.folder / "kwin_wayland"
        if not program.exists():
            shutil.copy(
                f"{ROOT}/usr/bin/kwin_wayland" if ROOT else shutil.which("kwin_wayland") or "", program
            )
        self.run(
            *("dbus-run-session", str(program), "--virtual", "--no-lockscreen", "--socket", "wayland-0"),
            XDG_RUNTIME_DIR=str(self.runtime),
            XDG_CONFIG_HOME=str(self.folder),
            XDG_CACHE_HOME=str(self.folder),
            KWIN_WAYLAND_NO_PERMISSION_CHECKS="1",
        )

    def use(self) -> None:
        if self.wire is None:
            self.wire = self.dial()
            self._input = self.wire.bind("org_kde_kwin_fake_input")
            self.wire.say(message(self._input, 0, text("tests") + text("tests")))
        # pointer_motion, in 256ths.
        self.wire.say(message(self._input, 1, words(512, 512)))

    def _pids(self) -> list[int]:
        assert self.process is not None
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in listed.split()]

    def leave(self) -> None:
        # Who ends its parent ends the bus alone. It has made nothing that outlives it.
        self.crash()

    def hang(self) -> None:
        for pid in self._pids():
            os.kill(pid, signal.SIGSTOP)

    def go_on(self) -> None:
        for pid in self._pids():
            os.kill(pid, signal.SIGCONT)

    def crash(self) -> None:
        for pid in self._pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        super().crash()


class RealSway(_RealWayland):
    """1.7 has org_kde_kwin_idle, 1.8 ext_idle_notifier_v1, 1.11 its version 2."""

    command: tuple[str, ...] = ("sway", "-c", "/dev/null")

    def start(self) -> None:
        needed(self.command[0])
        self.runtime = self.session_of_wayland()
        root = os.geteuid() == 0
        if root:
            # wlroots does not run as root.
            for parent in (*self.runtime.parents, self.runtime):
                if parent.stat().st_uid == 0 and parent != Path("/"):
                    parent.chmod(parent.stat().st_mode | 0o011)
            os.chown(self.runtime, 65534, 65534)
        self.run(
            *self.command,
            as_nobody=root,
            XDG_RUNTIME_DIR=str(self.runtime),
            HOME=str(self.runtime),
            WLR_BACKENDS="headless",
            WLR_LIBINPUT_NO_DEVICES="1",
            WLR_RENDERER="pixman",
        )

    def use(self) -> None:
        if self.wire is None:
            self.wire = self.dial()
            seat = self.wire.bind("wl_seat")
            maker, self._pointer = self.wire.bind("zwlr_virtual_pointer_manager_v1"), self.wire.new_id()
            self.wire.say(message(maker, 0, words(seat, self._pointer)))
        # motion, in 256ths, and frame.
        self.wire.say(message(self._pointer, 0, words(0, 512, 512)) + message(self._pointer, 4))


class RealLabwc(RealSway):
    command = ("labwc",)


KINDS: tuple[type[Server], ...] = (
    X11,
    FakeWayland,
    FakeWayland1,
    FakeKwinIdle,
    FakeMutter,
    RealMutter,
    RealKwin,
    RealSway,
    # Debian 12 has none.
    *([RealLabwc] if ROOT else []),
)


@contextlib.contextmanager
def running(kind: type[Server], folder: Path) -> Iterator[Server]:
    server = kind(folder)
    try:
        yield server
    finally:
        server.close()
