"""What psutil tells alike on every system."""

import psutil

from idle_sense.facts import MemoryUse
from idle_sense.probes.guests import ProcessInfo

_NOT_BUSY = frozenset({"idle", "iowait", "steal", "guest", "guest_nice"})
"""Guest time is in user time already."""
_NOT_OURS_TO_COUNT = frozenset({"guest", "guest_nice"})


def cpu_times_s() -> tuple[float, float]:
    """(busy, all) processor time."""
    times: dict[str, float] = psutil.cpu_times()._asdict()
    busy_s = sum(value for name, value in times.items() if name not in _NOT_BUSY)
    all_s = sum(value for name, value in times.items() if name not in _NOT_OURS_TO_COUNT)
    return busy_s, all_s


def memory() -> MemoryUse:
    use = psutil.virtual_memory()
    return MemoryUse(total_bytes=use.total, available_bytes=use.available)


def process(pid: int) -> ProcessInfo | None:
    try:
        one = psutil.Process(pid)
        with one.oneshot():
            times = one.cpu_times()
            spent_s = times.user + times.system
            # Only some systems tell what a process inherited from the children it waited for.
            spent_s += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
            return ProcessInfo(
                pid=pid,
                parent=one.ppid(),
                session=0,
                terminal=0,
                started=one.create_time(),
                threads=1,
                cpu_s=spent_s,
            )
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def parents() -> dict[int, int]:
    """Each process's parent: a scan of all processes."""
    found: dict[int, int] = {}
    for one in psutil.process_iter():
        try:
            found[one.pid] = one.ppid()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
