"""A machine's graphics processors for tests: folders that look like /sys and /proc, and a clock that tests move."""

import os
import shutil
import subprocess
from pathlib import Path

from idle_sense.probes.guests import GuestLedger, ProcessInfo

NVIDIA, AMD, INTEL = "0x10de", "0x1002", "0x8086"


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


class Machine:
    """``sysfs`` and ``proc``, as the kernel shows them to somebody who may see everything."""

    def __init__(self, root: Path) -> None:
        self.sysfs, self.proc = root / "sys", root / "proc"
        for folder in ("class/drm", "bus/pci/devices", "bus/pci/drivers"):
            (self.sysfs / folder).mkdir(parents=True)
        self.proc.mkdir()
        self.program(1, parent=0)

    def card(
        self,
        address: str = "0000:01:00.0",
        *,
        driver: str = "amdgpu",
        vendor: str = AMD,
        number: int | None = 0,
        control: str = "on",
        delay_ms: int | None = None,
        kind: str = "0x030000",
    ) -> Path:
        """``number``: of its nodes below /dev/dri; None: it has none, as NVIDIA's without mode setting."""
        path = self.sysfs / "devices/pci0000:00" / address
        (path / "power").mkdir(parents=True)
        (path / "class").write_text(kind + "\n")
        (path / "vendor").write_text(vendor + "\n")
        (path / "power/control").write_text(control + "\n")
        (path / "power/runtime_status").write_text("active\n")
        if delay_ms is not None:
            (path / "power/autosuspend_delay_ms").write_text(f"{delay_ms}\n")
        if driver:
            (self.sysfs / "bus/pci/drivers" / driver).mkdir(exist_ok=True)
            (path / "driver").symlink_to(self.sysfs / "bus/pci/drivers" / driver)
        (self.sysfs / "bus/pci/devices" / address).symlink_to(path)
        for node in () if number is None else (f"card{number}", f"renderD{128 + number}"):
            (path / "drm" / node).mkdir(parents=True)
            (path / "drm" / node / "device").symlink_to(path)
            (self.sysfs / "class/drm" / node).symlink_to(path / "drm" / node)
        return path

    def sleep(self, card: Path, status: str = "suspended") -> None:
        (card / "power/runtime_status").write_text(status + "\n")

    def program(self, pid: int, *, parent: int = 1, opens: dict[int, tuple[str, str]] | None = None) -> None:
        """``opens``: by number of the file descriptor, what it leads to and what its fdinfo says."""
        folder = self.proc / str(pid)
        shutil.rmtree(folder, ignore_errors=True)
        for name in ("fd", "fdinfo"):
            (folder / name).mkdir(parents=True)
        (folder / "parent").write_text(str(parent))
        for number, (target, told) in (opens or {}).items():
            (folder / "fd" / str(number)).symlink_to(target)
            (folder / "fdinfo" / str(number)).write_text(told)

    def end(self, pid: int) -> None:
        shutil.rmtree(self.proc / str(pid))

    # What a ledger asks of the system.

    def process(self, pid: int) -> ProcessInfo | None:
        try:
            parent = int((self.proc / str(pid) / "parent").read_text())
        except FileNotFoundError:
            return None
        return ProcessInfo(pid=pid, parent=parent, session=0, terminal=0, started=1.0, threads=1, cpu_s=0.0)

    def children(self, process: ProcessInfo) -> list[int]:
        return []


def guests(*pids: int) -> GuestLedger:
    ledger = GuestLedger()
    for pid in pids:
        ledger.add(pid)
    return ledger


def amdgpu(client: int, *, gfx_s: float = 0.0, compute_s: float = 0.0, vram_kib: int = 0) -> str:
    """As amdgpu_fdinfo.c of Linux 6.x prints it (Documentation/gpu/amdgpu/driver-misc, drm-usage-stats)."""
    return (
        "pos:\t0\nflags:\t02100002\nmnt_id:\t29\nino:\t1140\n"
        "drm-driver:\tamdgpu\n"
        f"drm-client-id:\t{client}\n"
        "drm-pdev:\t0000:01:00.0\n"
        "pasid:\t32773\n"
        f"drm-total-vram:\t{vram_kib} KiB\ndrm-resident-vram:\t{vram_kib} KiB\n"
        "drm-total-gtt:\t4096 KiB\ndrm-resident-gtt:\t4096 KiB\n"
        f"drm-memory-vram:\t{vram_kib} KiB\ndrm-memory-gtt: \t4096 KiB\n"
        f"drm-engine-gfx:\t{round(gfx_s * 1e9)} ns\n"
        f"drm-engine-compute:\t{round(compute_s * 1e9)} ns\n"
    )


def i915(client: int, *, render_s: float = 0.0, video_s: float = 0.0) -> str:
    """As i915_drm_client.c prints it (Documentation/gpu/i915, i915 DRM client usage stats implementation)."""
    return (
        "pos:\t0\nflags:\t0100002\nmnt_id:\t26\nino:\t500\n"
        "drm-driver:\ti915\ndrm-pdev:\t0000:00:02.0\n"
        f"drm-client-id:\t{client}\n"
        "drm-total-system0:\t52 MiB\ndrm-shared-system0:\t0\ndrm-active-system0:\t0\n"
        "drm-resident-system0:\t52 MiB\ndrm-purgeable-system0:\t0\n"
        f"drm-engine-render:\t{round(render_s * 1e9)} ns\n"
        "drm-engine-copy:\t0 ns\n"
        f"drm-engine-video:\t{round(video_s * 1e9)} ns\ndrm-engine-capacity-video:\t2\n"
        "drm-engine-video-enhance:\t0 ns\n"
    )


def xe(client: int, *, rcs: int = 0, vcs: int = 0, total: int = 0) -> str:
    """As xe_drm_client.c prints it (its DOC comment)."""
    return (
        "pos:\t0\nflags:\t0100002\nmnt_id:\t26\nino:\t685\n"
        "drm-driver:\txe\n"
        f"drm-client-id:\t{client}\n"
        "drm-pdev:\t0000:03:00.0\n"
        "drm-total-system:\t0\ndrm-total-vram0:\t192 KiB\ndrm-resident-vram0:\t128 KiB\n"
        f"drm-cycles-rcs:\t{rcs}\ndrm-total-cycles-rcs:\t{total}\n"
        f"drm-cycles-vcs:\t{vcs}\ndrm-total-cycles-vcs:\t{total}\ndrm-engine-capacity-vcs:\t2\n"
    )


def compile_driver(folder: Path, *options: str) -> Path | None:
    """The fake NVML, built from ``integration/nvml_driver.c``; None without a C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    library = folder / f"libnvidia-ml{''.join(options)}.so.1"
    source = Path(__file__).parent / "integration/nvml_driver.c"
    subprocess.run(
        [
            compiler,
            "-shared",
            "-fPIC",
            "-nostdlib",
            "-O1",
            *options,
            "-o",
            os.fspath(library),
            os.fspath(source),
        ],
        check=True,
        timeout=120,
    )
    return library
