"""Whether a Mac's way to the network costs money: a phone's hotspot, or one that its owner has set to Low Data Mode.

Network.framework tells by a block (a C function with a head, clang.llvm.org/docs/Block-ABI-Apple.html) that it calls from a
thread of its own.
"""

import atexit
import ctypes
import threading
from collections.abc import Callable
from typing import ClassVar

from idle_sense.facts import Network, Reading
from idle_sense.platform.macos_frameworks import Frameworks
from idle_sense.probes.asked import Asked

IS_GLOBAL = 1 << 28
"""Block-ABI-Apple: BLOCK_IS_GLOBAL, a block that captures nothing, and that nobody copies or frees."""
FIRST_WAIT_S = 1.0
"""Of the thread that asks, for the first answer."""

HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
"""``void (^)(nw_path_t)``: the block itself comes first."""


class BlockDescriptor(ctypes.Structure):
    """Block-ABI-Apple, struct Block_descriptor_1, of a block without helpers and signature."""

    _fields_ = (("reserved", ctypes.c_ulong), ("size", ctypes.c_ulong))


class Block(ctypes.Structure):
    """Block-ABI-Apple, struct Block_literal_1."""

    _fields_ = (
        ("isa", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("reserved", ctypes.c_int),
        ("invoke", ctypes.c_void_p),
        ("descriptor", ctypes.POINTER(BlockDescriptor)),
    )


class PathWatch:
    """Hears of the way to the network. Raises OSError where this macOS has no Network.framework."""

    _kept: ClassVar[list[object]] = []
    """Blocks may be called once more after the watch was cancelled: they are never freed, and there is one of each watch."""

    def __init__(self, frameworks: Frameworks) -> None:
        self._network = frameworks.network
        self._system = frameworks.system
        self._monitor: int | None = None
        self._told = threading.Event()
        self._metered = False

    def metered(self) -> bool | None:
        """None: it has not been told yet, which takes a moment after the start."""
        if self._monitor is None:
            self._start()
        return self._metered if self._told.wait(FIRST_WAIT_S) else None

    def close(self) -> None:
        atexit.unregister(self.close)
        monitor, self._monitor = self._monitor, None
        if monitor is not None:
            self._told.clear()
            self._network.nw_path_monitor_cancel(monitor)
            self._network.nw_release(monitor)

    def _start(self) -> None:
        handler = HANDLER(self._hear)
        descriptor = BlockDescriptor(reserved=0, size=ctypes.sizeof(Block))
        block = Block(
            isa=self._system.address("_NSConcreteGlobalBlock"),
            flags=IS_GLOBAL,
            reserved=0,
            invoke=ctypes.cast(handler, ctypes.c_void_p),
            descriptor=ctypes.pointer(descriptor),
        )
        queue = self._system.dispatch_get_global_queue(0, 0)
        monitor = self._network.nw_path_monitor_create()
        if not monitor or not queue:
            raise OSError("Network.framework makes no watch")
        self._kept.append((handler, descriptor, block))
        self._monitor = monitor
        # No call must come while the interpreter is taken down.
        atexit.register(self.close)
        self._network.nw_path_monitor_set_queue(monitor, queue)
        self._network.nw_path_monitor_set_update_handler(monitor, ctypes.addressof(block))
        self._network.nw_path_monitor_start(monitor)

    def _hear(self, block: int | None, path: int | None) -> None:
        del block
        self._metered = bool(path) and bool(
            self._network.nw_path_is_expensive(path) or self._network.nw_path_is_constrained(path)
        )
        self._told.set()


class MacNetworkProbe(Asked[Network]):
    fact = "network"
    back_end = "Network.framework"
    every_s: float = 5.0

    def __init__(self, *, metered: Callable[[], bool | None], close: Callable[[], None]) -> None:
        super().__init__()
        self._metered = metered
        self._close = close

    def look(self, now_s: float) -> Reading[Network]:
        del now_s
        metered = self._metered()
        if metered is None:
            return Reading[Network].missing(
                self.back_end, "macOS has not told yet which way the network goes", "wait a moment"
            )
        return Reading(value=Network(metered=metered), source=self.back_end)

    def describe(self) -> tuple[str, ...]:
        return ("Whether the way to the network costs money, or is set to Low Data Mode.",)

    def close(self) -> None:
        self._close()
