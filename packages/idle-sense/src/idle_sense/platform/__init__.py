"""The operating system underneath, behind one facade (``facade.System``)."""

import functools
import sys

from idle_sense.errors import SenseError
from idle_sense.platform.facade import System


@functools.cache
def current() -> System:
    """This machine's system; each system's file is imported only there. Raises SenseError on a system without one."""
    if sys.platform == "win32":
        from idle_sense.platform.windows import Windows  # noqa: PLC0415

        return Windows()
    if sys.platform == "darwin":
        from idle_sense.platform.macos import MacOS  # noqa: PLC0415

        return MacOS()
    if sys.platform == "linux":
        from idle_sense.platform.linux import Linux  # noqa: PLC0415

        return Linux()
    raise SenseError(
        f"idle-sense has no back end for {sys.platform}.",
        hint="It runs on Linux, macOS and Windows; hand your own probes to Monitor(probes=...) elsewhere.",
    )
