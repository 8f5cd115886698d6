"""What this machine is, found out without starting a program or waking a device."""

import os
import platform
import shutil
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import psutil

from idle_accelerator import __version__
from idle_accelerator.agent.sandbox import wasm
from idle_accelerator.errors import InvalidInput
from idle_accelerator.wire.network import NO_OFFER, NetworkOffer
from idle_accelerator.wire.nodes import Isolation, NodeFacts
from idle_accelerator.wire.resources import Resources
from idle_accelerator.wire.units import format_size

MEMORY_SHARE_RATIO = 0.75
"""Of all memory, unless the owner says otherwise: the rest stays for the owner's own programs."""
DISK_SHARE_RATIO = 0.5
"""Of what is free on the disk of the agent's data directory."""
DISK_RESERVE_BYTES = 512 * 1024 * 1024
"""Below this much free space the agent takes nothing new."""

_ARCHITECTURES = {"amd64": "x86_64", "x64": "x86_64", "aarch64": "arm64"}


def fingerprint(
    *,
    data_dir: Path,
    name: str | None,
    cpus: float | None,
    memory_bytes: int | None,
    disk_bytes: int | None,
    labels: Mapping[str, str],
    isolation: Isolation,
    idleness: tuple[str, ...],
    gpu_names: tuple[str, ...] = (),
    network: NetworkOffer = NO_OFFER,
) -> NodeFacts:
    """The node's facts. None means: as much as is polite to lend. Raises InvalidInput for more than there is."""
    return NodeFacts(
        name=_text(name or socket.gethostname().split(".")[0] or "node"),
        os=operating_system(),
        arch=_text(_ARCHITECTURES.get(platform.machine().lower(), platform.machine().lower())),
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        cpu_model=_text(_cpu_model()),
        resources=Resources(
            cpus=_cpus(cpus),
            memory_bytes=_memory(memory_bytes),
            disk_bytes=_disk(disk_bytes, data_dir),
            gpus=len(gpu_names),
        ),
        gpu_names=tuple(_text(item) for item in gpu_names),
        labels=dict(labels),
        sandbox_tier=isolation.tier,
        isolation=isolation,
        wasm=_text(wasm.version()),
        network=network,
        agent_version=__version__,
        idleness=tuple(_text(sentence) for sentence in idleness),
    )


def operating_system() -> Literal["linux", "macos", "windows"]:
    if sys.platform == "darwin":
        return "macos"
    return "windows" if sys.platform == "win32" else "linux"


def usable_cpus() -> float:
    """Cores that this process may use: its affinity, and the limit of its control group where there is one."""
    cores = float(os.cpu_count() or 1)
    if sys.platform == "linux":
        cores = float(len(os.sched_getaffinity(0)))
        try:
            quota, _, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").partition(" ")
            if quota != "max":
                cores = min(cores, float(quota) / float(period))
        except (OSError, ValueError):
            return cores
    return cores


def free_disk_bytes(directory: Path) -> int:
    return shutil.disk_usage(directory).free


def _cpus(wanted: float | None) -> float:
    there = usable_cpus()
    if wanted is None:
        return there
    if not 0 < wanted <= 4096:
        raise InvalidInput(
            "must be more than 0 and at most 4096.", field="--cpus", hint="For example: --cpus 2."
        )
    return wanted


def _memory(wanted: int | None) -> int:
    there = psutil.virtual_memory().total
    if wanted is None:
        return int(there * MEMORY_SHARE_RATIO)
    if not 0 <= wanted <= there:
        raise InvalidInput(
            f"this machine has {format_size(there)} of memory.", field="--memory", hint="Lend at most that."
        )
    return wanted


def _disk(wanted: int | None, data_dir: Path) -> int:
    there = free_disk_bytes(data_dir)
    if wanted is None:
        return max(0, int((there - DISK_RESERVE_BYTES) * DISK_SHARE_RATIO))
    if not 0 <= wanted <= there:
        raise InvalidInput(
            f"{data_dir} has {format_size(there)} free.",
            field="--disk",
            hint="Lend at most that, or put --data-dir on a larger disk.",
        )
    return wanted


def _cpu_model() -> str:
    if sys.platform == "linux":
        try:
            with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
                for line in file:
                    if line.startswith(("model name", "Model", "Hardware")):
                        return line.partition(":")[2].strip()
        except OSError:
            return ""
    return platform.processor()


def _text(text: str) -> str:
    """Fit for the wire: printable, and not too long."""
    return "".join(sign if sign.isprintable() else " " for sign in text).strip()[:200]
