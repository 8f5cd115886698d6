"""Programs and libraries that pip cannot bring: installed by apt-get where that needs no question, else named."""

import ctypes
import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

from bootstrap.console import ProblemError, run_quietly, say


@dataclasses.dataclass(frozen=True, kw_only=True)
class SystemPackage:
    """A program or a library that some tests or benches need."""

    apt_name: str
    programs: tuple[str, ...] = ()
    """Any of these on PATH will do."""
    library: str | None = None
    """The shared library that the package brings, by the name that programs link to."""
    header: str | None = None
    """The C header that it brings."""
    serves: str

    def is_here(self) -> bool:
        if any(shutil.which(name) for name in self.programs):
            return True
        if self.header is not None and os.path.exists(f"/usr/include/{self.header}"):  # noqa: PTH110
            return True
        try:
            return self.library is not None and ctypes.CDLL(self.library) is not None
        except OSError:
            return False


FOR_TESTS = (
    SystemPackage(apt_name="xvfb", programs=("Xvfb",), serves="idleness read from a real X11 server"),
    SystemPackage(
        apt_name="xdotool", programs=("xdotool",), serves="typing and mouse moves on that X11 server"
    ),
    SystemPackage(
        apt_name="chromium",
        programs=("chromium", "chromium-browser", "google-chrome"),
        serves="the web page in a real browser",
    ),
    SystemPackage(
        apt_name="libatomic1",
        library="libatomic.so.1",
        serves="the web page in a real browser (the Node that drives it links to this)",
    ),
    SystemPackage(
        apt_name="gcc",
        programs=("gcc", "cc"),
        serves="a graphics driver that fails and hangs, compiled for the tests",
    ),
    SystemPackage(
        apt_name="libc6-dev",
        header="stdio.h",
        serves="the headers that compiling it takes",
    ),
    SystemPackage(
        apt_name="mutter",
        programs=("mutter",),
        serves="idleness read from a real GNOME compositor",
    ),
    SystemPackage(
        apt_name="sway",
        programs=("sway",),
        serves="idleness read from a real wlroots compositor",
    ),
    SystemPackage(
        apt_name="dbus-daemon",
        programs=("dbus-daemon",),
        serves="desktops, sessions and players on a real message bus",
    ),
    SystemPackage(
        apt_name="pipewire-pulse",
        programs=("pipewire-pulse",),
        serves="calls and films on a real sound server",
    ),
    SystemPackage(
        apt_name="wireplumber", programs=("wireplumber",), serves="calls and films on a real sound server"
    ),
    SystemPackage(
        apt_name="pulseaudio",
        programs=("pulseaudio",),
        serves="calls and films on the older real sound server",
    ),
    SystemPackage(
        apt_name="pulseaudio-utils",
        programs=("pactl",),
        serves="programs that record and play on that server",
    ),
    SystemPackage(
        apt_name="bubblewrap",
        programs=("bwrap",),
        serves="work of strangers in a sandbox",
    ),
    SystemPackage(apt_name="podman", programs=("podman",), serves="work of strangers in containers"),
    SystemPackage(apt_name="crun", programs=("crun",), serves="work of strangers in containers"),
    SystemPackage(
        apt_name="slirp4netns",
        programs=("slirp4netns",),
        serves="an open network for work in a sandbox",
    ),
    SystemPackage(
        apt_name="openssl", programs=("openssl",), serves="work in a sandbox that reaches a host over TLS"
    ),
    SystemPackage(
        apt_name="tmux", programs=("tmux",), serves="terminals that outlive the program that opened them"
    ),
)
FOR_BENCHES = (
    SystemPackage(
        apt_name="redis-server", programs=("redis-server",), serves="peers that keep their queue in Redis"
    ),
)


def apt_get() -> list[str] | None:
    """How apt-get runs without asking anybody, as root or by passwordless sudo; None where it may not."""
    if sys.platform != "linux" or shutil.which("apt-get") is None:
        return None
    prefix: list[str] = []
    if os.geteuid() != 0:
        if shutil.which("sudo") is None:
            return None
        if subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode != 0:
            return None
        prefix = ["sudo", "-n", "DEBIAN_FRONTEND=noninteractive"]
    return [*prefix, "apt-get", "-o", "DPkg::Lock::Timeout=120"]


def apt_install(names: Sequence[str]) -> bool:
    """Whether apt-get may be used here and has installed them."""
    command = apt_get()
    if command is None:
        return False
    try:
        run_quietly("Refreshing the list of system packages", [*command, "update"])
        run_quietly(
            f"Installing system packages: {' '.join(names)}",
            [*command, "install", "-y", "--no-install-recommends", *names],
        )
    except ProblemError as problem:
        say(str(problem))
        return False
    return True


def lacking(wanted: Sequence[SystemPackage]) -> list[SystemPackage]:
    return [package for package in wanted if not package.is_here()]


def ensure(wanted: Sequence[SystemPackage]) -> None:
    """Install what is missing where that is allowed; else say what will be skipped for want of it."""
    if sys.platform != "linux" or not (missing := lacking(wanted)):
        return
    apt_install([package.apt_name for package in missing])
    if still := lacking(wanted):
        for package in still:
            say(f"Not installed: {package.apt_name}. Skipped for want of it: {package.serves}.")
        say(f"To have it too: sudo apt-get install -y {' '.join(package.apt_name for package in still)}")
