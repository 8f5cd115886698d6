"""Threads of the agent itself that may wait until nobody else wants the disk."""

import ctypes
import sys

if sys.platform == "linux":
    from idle_accelerator.agent.host.priority import lower_this_thread
elif sys.platform == "darwin":

    def lower_this_thread() -> None:
        """setiopolicy_np(3): disk accesses of this thread are throttled. Signature-only: not tried on a Mac."""
        ctypes.CDLL(None, use_errno=True).setiopolicy_np(
            0, 1, 3
        )  # IOPOL_TYPE_DISK, IOPOL_SCOPE_THREAD, IOPOL_THROTTLE

elif sys.platform == "win32":

    def lower_this_thread() -> None:
        """SetThreadPriority: background mode, for CPU, disk and memory. Signature-only: not tried on Windows."""
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.GetCurrentThread.restype = ctypes.c_void_p
        kernel.SetThreadPriority(
            ctypes.c_void_p(kernel.GetCurrentThread()), 0x00010000
        )  # THREAD_MODE_BACKGROUND_BEGIN


__all__ = ["lower_this_thread"]
