"""Runs idle-sense's Windows code on Wine, with a genuine Windows CPython: `python bench/windows_wine.py`.

Needs Debian's packages wine and wine64 (101 MB), xvfb and xdotool, and from PyPI the wheels panda3d for Windows, whose
python311.dll and extension modules are CPython's own (65 MB), and ziglang (101 MB) or mingw's gcc for a python.exe of six lines. The standard
library is that of this Python, which must be a 3.11. 270 MB, about a minute and a half: not part of CI. What it printed last is in
docs/reference/verified-windows.md.

Wine is no Windows: what it answers from stand-ins of its own (sessions, notification state, performance counters) is not verified by
this, and the checks say so.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
import zipfile
from collections.abc import Generator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PANDA = "panda3d==1.10.16"
LEFT_OUT = ("tcl", "tk", "_tkinter")
LAUNCHER = """
typedef unsigned short character;
__declspec(dllimport) int Py_Main(int, character **);
__declspec(dllimport) character *GetCommandLineW(void);
__declspec(dllimport) character **CommandLineToArgvW(const character *, int *);
__declspec(dllimport) void ExitProcess(unsigned);
void start(void) {
  int count = 0;
  character **arguments = CommandLineToArgvW(GetCommandLineW(), &count);
  ExitProcess((unsigned)Py_Main(count, arguments));
}
"""
SOUND = "pcm.!default { type null }\nctl.!default { type null }\n"


def python_folder(folder: Path, wheels: Path) -> Path:
    """A folder with python.exe that finds idle_sense. Raises subprocess.CalledProcessError."""
    if not list(wheels.glob("panda3d-*.whl")):
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
        subprocess.run(
            [*command, "--platform", "win_amd64", "--python-version", "3.11", "-d", str(wheels), PANDA],
            check=True,
        )
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(next(wheels.glob("panda3d-*.whl"))) as wheel:
        for member in wheel.infolist():
            path = Path(member.filename)
            wanted = path.parent.name == "deploy_libs" and path.suffix.lower() in (".pyd", ".dll")
            if wanted and not path.name.lower().startswith(LEFT_OUT):
                (folder / path.name).write_bytes(wheel.read(member))
    paths = (Path(os.__file__).parent, folder, ROOT / "packages/idle-sense/src", ROOT / "bench")
    # A ._pth file alone decides where modules come from: nothing of this machine's own environment.
    (folder / "python311._pth").write_text(
        "".join(f"Z:{str(path).replace('/', chr(92))}\n" for path in paths)
    )
    described = tomllib.loads((ROOT / "packages/idle-sense/pyproject.toml").read_text())["project"]
    installed = folder / f"idle_sense-{described['version']}.dist-info"
    installed.mkdir(exist_ok=True)
    (installed / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: idle-sense\nVersion: {described['version']}\n"
    )
    (folder / "launcher.c").write_text(LAUNCHER)
    (folder / "python311.def").write_text("LIBRARY python311.dll\nEXPORTS\nPy_Main\n")
    for command in launcher_commands():
        subprocess.run(command, check=True, cwd=folder)
    return folder / "python.exe"


def launcher_commands() -> list[list[str]]:
    mingw = shutil.which("x86_64-w64-mingw32-gcc") or shutil.which("x86_64-w64-mingw32-gcc-posix")
    library, program = "libpython311.a", "python.exe"
    ends = ["-nostdlib", "-O1", "launcher.c", library, "-o", program]
    if mingw is not None:
        dlltool = "x86_64-w64-mingw32-dlltool"
        return [
            [dlltool, "-d", "python311.def", "-l", library],
            [mingw, "-Wl,-e,start", *ends, "-lkernel32", "-lshell32"],
        ]
    zig = [sys.executable, "-m", "ziglang"]
    return [
        [*zig, "dlltool", "-m", "i386:x86-64", "-d", "python311.def", "-D", "python311.dll", "-l", library],
        [*zig, "cc", "-target", "x86_64-windows-gnu", "-Wl,-e,start", *ends, "-lkernel32", "-lshell32"],
    ]


@contextlib.contextmanager
def display(folder: Path) -> Generator[str]:
    """An X server of its own, without anybody at it."""
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1024x768x24", "-nolisten", "tcp"]
    with (folder / "xvfb.log").open("wb") as log:
        server = subprocess.Popen(command, pass_fds=(writing,), stdout=log, stderr=log)
    os.close(writing)
    try:
        with os.fdopen(reading) as told:
            yield f":{told.readline().strip()}"
    finally:
        server.terminate()
        server.wait()


def type_when_asked(requests: Path, screen: str, over: threading.Event) -> None:
    """The checks inside ask for a key or a movement by writing a file."""
    while not over.wait(0.02):
        try:
            what = requests.read_text().strip()
            requests.unlink()
        except FileNotFoundError:
            continue
        command = {"key": ["key", "a"], "mouse": ["mousemove_relative", "5", "5"]}[what]
        subprocess.run(["xdotool", *command], env={**os.environ, "DISPLAY": screen}, check=False)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wheels", type=Path, help="a folder that has the wheel of panda3d, or will have it")
    options = parser.parse_args()
    if sys.version_info[:2] != (3, 11):
        raise SystemExit("this Python is not a 3.11, whose standard library is needed")
    missing = [name for name in ("wine", "Xvfb", "xdotool") if shutil.which(name) is None]
    if missing:
        raise SystemExit(
            f"not installed: {', '.join(missing)}\n"
            "next: apt-get install --no-install-recommends wine wine64 xvfb xdotool"
        )
    with tempfile.TemporaryDirectory(prefix="idle-sense-wine") as name:
        folder = Path(name)
        wheels = options.wheels or folder
        began_s = time.monotonic()
        python = python_folder(folder / "python", wheels)
        print(f"a Windows CPython was put together in {time.monotonic() - began_s:.0f} s", flush=True)
        (folder / "asound.conf").write_text(SOUND)
        with display(folder) as screen:
            environment = {
                **{key: value for key, value in os.environ.items() if not key.startswith("PYTHON")},
                "DISPLAY": screen,
                "WINEPREFIX": str(folder / "prefix"),
                "WINEDEBUG": "-all",
                "WINEDLLOVERRIDES": "mscoree=;mshtml=;winemenubuilder.exe=",
                "ALSA_CONFIG_PATH": str(folder / "asound.conf"),
                "PYTHONDONTWRITEBYTECODE": "1",
                "IDLE_SENSE_REQUESTS": str(folder / "requests"),
            }
            quiet = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
            told_too = {**quiet, "stderr": subprocess.STDOUT}
            subprocess.run(
                ["wine", "wineboot", "-i"], stdout=subprocess.DEVNULL, check=True, timeout=180, **quiet
            )
            subprocess.run(
                ["wine", "winecfg", "-v", "win10"], stdout=subprocess.DEVNULL, check=True, timeout=60, **quiet
            )
            over = threading.Event()
            hand = threading.Thread(target=type_when_asked, args=(folder / "requests", screen, over))
            hand.start()
            try:
                # Wine has input for the windows of a desktop alone: the programs run in one.
                desktop = [
                    "wine",
                    "explorer",
                    "/desktop=sense,1024x768",
                    "Z:" + str(python).replace("/", "\\"),
                ]
                status = 0
                for arguments in (["-m", "windows_inside_wine"], ["-m", "idle_sense.cli", "doctor"]):
                    # Through a pipe: Python on Wine takes no file for its output. The exit status is the desktop's.
                    told = subprocess.run(
                        [*desktop, *arguments], stdout=subprocess.PIPE, check=False, timeout=300, **told_too
                    ).stdout.decode("utf-8", "replace")
                    print(f"\n$ python.exe {' '.join(arguments)}\n{told}", flush=True)
                    if arguments[1] == "windows_inside_wine" and "none failed" not in told:
                        status = 1
            finally:
                over.set()
                hand.join()
                subprocess.run(["wineserver", "-k"], check=False, **quiet)
    return status


if __name__ == "__main__":
    sys.exit(main())
