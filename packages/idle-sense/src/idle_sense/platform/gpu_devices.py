"""Linux: which graphics processors there are, and whether they sleep; from sysfs, without waking one.

Documentation/ABI/testing/sysfs-devices-power: ``power/runtime_status`` is kept by the kernel's power management, and reading it
touches no hardware; the same holds for ``vendor``, ``class`` and the link ``driver``.
"""

import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path

FIRST_PID_NAMESPACE = 0xEFFFFFFC
"""The inode of the machine's own process namespace (PROC_PID_INIT_INO, include/linux/proc_ns.h)."""
DISPLAY_CLASS = "0x03"
"""PCI base class of display controllers (pci.ids, class 03: VGA, XGA, 3D, other)."""
VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}
SILENT = {
    "nouveau": "the driver nouveau does not tell how busy the card is; NVIDIA's own driver does",
    "radeon": "the driver radeon does not tell how busy the card is; amdgpu does, for cards from 2013 on",
    "vfio-pci": "it is given to a virtual machine, and what that does with it is not seen here",
    "asahi": "the driver asahi does not tell how busy it is",
    "v3d": "the driver v3d does not tell how busy it is without a look into every program",
    "panfrost": "the driver panfrost does not tell how busy it is without a look into every program",
    "panthor": "the driver panthor does not tell how busy it is without a look into every program",
    "lima": "the driver lima does not tell how busy it is without a look into every program",
    "etnaviv": "the driver etnaviv does not tell how busy it is without a look into every program",
    "msm": "the driver msm does not tell how busy it is without a look into every program",
}
"""Drivers of real graphics processors that do not say how busy the whole device is, and why that is so."""
TELLING = ("nvidia", "amdgpu", "i915", "xe")
"""Drivers that do. All others (``virtio-pci``, ``ast``, ``simple-framebuffer`` ...) only show pictures: no program computes there."""


@dataclass(frozen=True, kw_only=True)
class GpuDevice:
    name: str
    """``NVIDIA GPU 0000:01:00.0``: the same whether it sleeps or not, which the model's name is not."""
    driver: str
    address: str
    """On the PCI bus, ``0000:01:00.0``; for one that is not there, its name in sysfs."""
    path: str
    """Of its folder in sysfs."""
    cards: tuple[str, ...] = ()
    """Its names under /dev/dri: ``card1``, ``renderD128``."""

    @property
    def may_sleep(self) -> bool:
        """Whether the kernel may switch it off while nobody uses it (``power/control`` is ``auto``)."""
        return text(f"{self.path}/power/control") == "auto"

    @property
    def asleep(self) -> bool:
        """Now, or about to be."""
        return text(f"{self.path}/power/runtime_status") in ("suspended", "suspending")

    @property
    def falls_asleep_s(self) -> float:
        """How long it must be left alone until it sleeps (``power/autosuspend_delay_ms``); ``inf``: it never will; ``nan``: this
        is not told."""
        try:
            delay_s = float(text(f"{self.path}/power/autosuspend_delay_ms")) / 1000.0
        except ValueError:
            # Not in use: reading it is an input/output error, which is no text.
            return math.nan
        return delay_s if delay_s >= 0 else math.inf


def find(sysfs: Path = Path("/sys")) -> tuple[GpuDevice, ...]:
    """Every graphics processor that programs can compute on, in the order of their addresses."""
    cards: dict[str, list[str]] = {}
    for entry in _names(sysfs / "class/drm"):
        # card0-HDMI-A-1 is a connector.
        if (entry.startswith("card") and entry[4:].isdigit()) or entry.startswith("renderD"):
            cards.setdefault(os.path.realpath(sysfs / "class/drm" / entry / "device"), []).append(entry)
    paths = set(cards)
    for entry in _names(sysfs / "bus/pci/devices"):
        path = os.path.realpath(sysfs / "bus/pci/devices" / entry)
        if text(f"{path}/class").startswith(DISPLAY_CLASS):
            paths.add(path)
    found = [_device(path, tuple(sorted(cards.get(path, ())))) for path in sorted(paths)]
    return tuple(device for device in found if device is not None)


def _device(path: str, cards: tuple[str, ...]) -> GpuDevice | None:
    driver = os.path.basename(os.path.realpath(f"{path}/driver")) if os.path.exists(f"{path}/driver") else ""  # noqa: PTH110, PTH119 - paths are text here
    # msm is called msm_dpu, msm-mdss ... by its parts; all are one.
    driver = "msm" if driver.startswith("msm") else driver
    if driver not in TELLING and driver not in SILENT:
        return None
    address = os.path.basename(path)  # noqa: PTH119 - as above
    maker = VENDORS.get(text(f"{path}/vendor"), "")
    return GpuDevice(
        name=f"{maker} GPU {address}".lstrip(), driver=driver, address=address, path=path, cards=cards
    )


def sees_all_processes() -> bool:
    """Whether process ids mean the same to the driver as to us: not in a container, which sees its own alone. On Linux;
    elsewhere there is one namespace."""
    if sys.platform != "linux":
        return True
    try:
        return os.stat("/proc/self/ns/pid").st_ino == FIRST_PID_NAMESPACE  # noqa: PTH116 - one call, one answer
    except OSError:
        return False


def text(path: str) -> str:
    """What a file of sysfs says, without its newline; empty where it is missing or refuses."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:  # noqa: PTH123 - these are read again and again
            return file.read().strip()
    except OSError:
        return ""


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - names alone are wanted
    except OSError:
        return []
