"""Tries idle-sense on the display servers of a newer Debian: version 2 of ext-idle-notify (wlroots, KWin 6) and a newer Mutter.

    sudo .venv/bin/python bench/newer_desktops.py [--root /var/tmp/newer-desktops] [--release forky]

Needs root, debootstrap and 1.5 GB, and takes some minutes the first time: too much for each run of CI. The new system is only
unpacked, never booted; its servers run in it by chroot, with this machine's /tmp. Then the contract of every seat back end
(packages/idle-sense/tests/integration/test_seat_contract.py) and bench/idle_input.py run against them. The root stays, for the
next time; what was mounted is let go of.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
PACKAGES = ("sway", "labwc", "mutter", "kwin-wayland", "dbus-daemon")
KINDS = ("RealMutter", "RealKwin", "RealSway", "RealLabwc")
MIRROR = "http://deb.debian.org/debian"


def run(*command: str, **environ: str) -> None:
    print("$", " ".join(command), flush=True)
    subprocess.run(command, check=True, cwd=REPOSITORY, env=os.environ | environ)


def prepare(root: Path, release: str) -> None:
    if not (root / "usr/bin/apt-get").exists():
        # Its own script, where debootstrap is older than the release: all newer ones are made as the unstable one is.
        script = Path("/usr/share/debootstrap/scripts") / release
        more = [] if script.exists() else [str(script.with_name("sid"))]
        run("debootstrap", "--variant=minbase", release, str(root), MIRROR, *more)
    if not all((root / "usr/bin" / name).exists() for name in ("sway", "labwc", "mutter", "kwin_wayland")):
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
        inside = ("chroot", str(root), "env", "DEBIAN_FRONTEND=noninteractive", "apt-get")
        run(*inside, "update")
        run(*inside, "install", "-y", "--no-install-recommends", *PACKAGES)
    # wlroots keeps keymaps there, and does not run as root.
    (root / "dev/shm").chmod(0o1777)


def attempt(root: Path) -> None:
    run("chroot", str(root), "dpkg-query", "-W", "sway", "labwc", "mutter", "kwin-wayland")
    chosen = " or ".join(KINDS)
    contract = "packages/idle-sense/tests/integration/test_seat_contract.py"
    run(sys.executable, "-m", "pytest", "-q", contract, "-k", chosen, SEAT_SERVERS_ROOT=str(root))
    run(sys.executable, "bench/idle_input.py", *KINDS, SEAT_SERVERS_ROOT=str(root))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=Path("/var/tmp/newer-desktops"))
    parser.add_argument("--release", default="forky")
    options = parser.parse_args(arguments)
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        sys.exit("Needs root and debootstrap (Debian: apt-get install debootstrap).")
    prepare(options.root, options.release)
    run("mount", "--bind", "/tmp", str(options.root / "tmp"))
    try:
        attempt(options.root)
    finally:
        run("umount", str(options.root / "tmp"))


if __name__ == "__main__":
    main()
