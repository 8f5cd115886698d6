"""Linux: finding every process of a guest, and what else the kernel offers without privilege.

How a tree is found. The agent is a *child subreaper* (prctl(2)): a process whose parent died becomes the
agent's child, not that of init. So all of a guest's processes are at all times descendants of its main process or
of such orphans. Which guest an orphan belongs to is told by its *brand*: a random soft limit RLIMIT_RTTIME, which has no effect on programs
without real-time priority, is inherited over fork, exec, setsid and a wiped environment, and can be read by the
agent (prlimit(2)). A guest that changes this limit on purpose and orphans itself escapes until the agent's tiers
with real isolation contain it; one that hands its work to a service of the machine (cron, systemd-run, docker) does too.
"""

import asyncio
import contextlib
import ctypes
import os
import resource
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import psutil

from idle_accelerator.agent.host import posix
from idle_accelerator.agent.host.posix import Member
from idle_accelerator.agent.host.types import Guest, GuestRecord, GuestUsage, Launch, Verified

VERIFIED: Verified = "native"

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_PR_SET_CHILD_SUBREAPER: Final = 36
_PF_EXITING: Final = 0x4
_REAP_EVERY_S: Final = 5.0
_AUTOGROUP_RETRY_S: Final = 0.12
_LEFTOVER_LIMIT_S: Final = 10.0


async def spawn(launch: Launch) -> Guest:
    """Start a program as a guest; it runs on return. Raises SpawnFailed."""
    return await posix.spawn(launch, _Linux())
