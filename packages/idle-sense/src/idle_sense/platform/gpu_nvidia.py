"""Cards of NVIDIA: samples by NVML."""

import contextlib
import ctypes
import dataclasses
import time
from collections.abc import Callable, Sequence

from idle_sense.platform import nvml
from idle_sense.platform.gpu_devices import GpuDevice, sees_all_processes
from idle_sense.platform.gpus import QUIET_RATIO, GpuSample, GpuUnreadable, ProgramUse
from idle_sense.platform.nvml import Nvml, NvmlError

LOOK_BACK_US = 3_000_000
"""How far back programs' work is asked for: a window that always holds a sample, and forgets what has ended."""


class NvidiaCards:
    """Holds the driver open only where no card could sleep instead: an open handle keeps a card awake.

    ``load`` raises OSError where the library is not installed.
    """

    def __init__(
        self,
        *,
        load: Callable[[], Nvml] = Nvml,
        now_s: Callable[[], float] = time.monotonic,
        wall_s: Callable[[], float] = time.time,
        sees_all: Callable[[], bool] | None = None,
    ) -> None:
        self._load = load
        self._now_s = now_s
        self._wall_s = wall_s
        self._sees_all = sees_all or sees_all_processes
        self._nvml: Nvml | None = None
        self._open = False
        self._handles: dict[str, ctypes.c_void_p] = {}
        self.version = ""
        """Of the driver, once it has answered."""

    def samples(self, cards: Sequence[GpuDevice]) -> list[GpuSample]:
        """Of cards that are awake. Raises GpuUnreadable."""
        return self._ask(cards, self._sample)

    def programs(self, cards: Sequence[GpuDevice], samples: Sequence[GpuSample]) -> list[GpuSample]:
        """The samples of these cards, in the same order, with their programs. Raises GpuUnreadable."""
        taken = {card.address: sample for card, sample in zip(cards, samples, strict=True)}
        return self._ask(cards, lambda library, card: self._with_programs(library, card, taken[card.address]))

    def close(self) -> None:
        """Lets the cards go."""
        self._handles.clear()
        if self._open and self._nvml is not None:
            self._open = False
            # A driver that is gone holds nothing.
            with contextlib.suppress(NvmlError):
                self._nvml.close()

    def _ask(
        self, cards: Sequence[GpuDevice], ask: Callable[[Nvml, GpuDevice], GpuSample]
    ) -> list[GpuSample]:
        if not cards:
            return []
        kept = False
        try:
            library = self._library()
            found = [ask(library, card) for card in cards]
            kept = not any(card.may_sleep for card in cards)
        except OSError as error:
            raise GpuUnreadable(
                f"the library of NVIDIA's driver cannot be loaded: {error}",
                hint="install the driver's own package that brings libnvidia-ml (nvidia-smi must work)",
            ) from error
        except NvmlError as error:
            raise GpuUnreadable(str(error), hint=_mend(error.code)) from error
        finally:
            if not kept:
                self.close()
        return found

    def _library(self) -> Nvml:
        if self._nvml is None:
            self._nvml = self._load()
        if not self._open:
            self._nvml.open()
            self._open = True
            if not self.version:
                self.version = self._nvml.driver()
        return self._nvml

    def _handle(self, library: Nvml, card: GpuDevice) -> ctypes.c_void_p:
        handle = self._handles.get(card.address)
        if handle is None:
            self._handles[card.address] = handle = library.device(card.address)
        return handle

    def _sample(self, library: Nvml, card: GpuDevice) -> GpuSample:
        handle = self._handle(library, card)
        busy_ratio, used_bytes = library.busy_ratio(handle), library.used_bytes(handle)
        sample = GpuSample(name=card.name, at_s=self._now_s(), busy_ratio=busy_ratio, used_bytes=used_bytes)
        # In MIG mode the card tells no share at all: whose programs are on it is all that can be known.
        return sample if busy_ratio is not None else self._with_programs(library, card, sample)

    def _with_programs(self, library: Nvml, card: GpuDevice, sample: GpuSample) -> GpuSample:
        handle = self._handle(library, card)
        held = self._held(library, handle)
        if held is None and sample.busy_ratio is None:
            return dataclasses.replace(sample, tells=False)
        work = library.work(handle, max(0, int(self._wall_s() * 1e6) - LOOK_BACK_US))
        if not work and sample.busy_ratio is not None and sample.busy_ratio >= QUIET_RATIO:
            # The card works, and nobody is named: not told, rather than nobody.
            work = None
        pids = sorted({*(held or ()), *(work or ())})
        programs: list[ProgramUse] = []
        for pid in pids:
            done = None if work is None else work.get(pid)
            programs.append(
                ProgramUse(
                    pid=pid,
                    ratios={} if done is None else done._asdict(),
                    timed=work is not None and sample.busy_ratio is not None,
                    used_bytes=None if held is None else held.get(pid),
                )
            )
        complete = held is not None and self._sees_all()
        return dataclasses.replace(sample, programs=tuple(programs), complete=complete)

    def _held(self, library: Nvml, handle: ctypes.c_void_p) -> dict[int, int | None] | None:
        """Of a card in MIG mode only some users may ask for the whole: then each instance is asked."""
        try:
            return library.programs(handle)
        except NvmlError as error:
            if error.code != nvml.NO_PERMISSION or not library.has_mig(handle):
                raise
        found: dict[int, int | None] = {}
        for instance in library.instances(handle):
            found.update(library.programs(instance) or {})
        return found


def _mend(code: int) -> str:
    """What a person can do about an error of NVML."""
    match code:
        case nvml.LIB_RM_VERSION_MISMATCH:
            return "the driver was updated and the old one still runs: restart the machine"
        case nvml.DRIVER_NOT_LOADED:
            return "load NVIDIA's driver (modprobe nvidia), or look into dmesg why it did not load"
        case nvml.GPU_IS_LOST | nvml.RESET_REQUIRED:
            return "the card has dropped off the bus or needs a reset: restart the machine, and look into dmesg for Xid"
        case nvml.NO_PERMISSION:
            return (
                "let this user open /dev/nvidiactl and /dev/nvidia0 (often a group, such as video or render)"
            )
        case _:
            return "see what nvidia-smi says; restarting the machine often helps"
