"""A stand-in for macOS, compiled from macos_frameworks.c, with answers that a test records."""

import contextlib
import ctypes
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from idle_sense.platform.macos import MacOS
from idle_sense.platform.macos_audio import code
from idle_sense.platform.macos_frameworks import Frameworks
from idle_sense.platform.macos_structures import (
    BsdInfo,
    BsdShortInfo,
    IfMsghdr2,
    RusageInfoV4,
    Utmpx,
    VmStatistics64,
)

SOURCE = Path(__file__).parent / "integration" / "macos_frameworks.c"
POINTERS = ("string", "whole", "real", "boolean", "opaque", "data", "array", "dictionary")


def compiled(folder: Path) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("the stand-in for macOS is compiled on Linux, where there is a C compiler")
    library = folder / "macos.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-pthread", "-o", library, SOURCE]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return library


class Stage:
    """One machine: a copy of the library of its own, so that nothing is left over from another test."""

    def __init__(self, library: Path, folder: Path) -> None:
        own = folder / f"{folder.name}.so"
        shutil.copy(library, own)
        self.fake = ctypes.CDLL(str(own))
        for name in POINTERS:
            getattr(self.fake, f"fake_{name}").restype = ctypes.c_void_p
        for name in ("live", "mistakes", "handles"):
            getattr(self.fake, f"fake_{name}").restype = ctypes.c_long
        self.frameworks = Frameworks(str(own))
        self.system = MacOS(self.frameworks)

    def build(self, value: object) -> ctypes.c_void_p | None:
        """A CoreFoundation object of a Python value."""
        fake = self.fake
        if value is None:
            return None
        if isinstance(value, bool):
            return ctypes.c_void_p(fake.fake_boolean(int(value)))
        if isinstance(value, int):
            return ctypes.c_void_p(fake.fake_whole(ctypes.c_int64(value)))
        if isinstance(value, float):
            return ctypes.c_void_p(fake.fake_real(ctypes.c_double(value)))
        if isinstance(value, str):
            return ctypes.c_void_p(fake.fake_string(value.encode()))
        if isinstance(value, bytes):
            return ctypes.c_void_p(fake.fake_data(value, ctypes.c_long(len(value))))
        if isinstance(value, dict):
            made = ctypes.c_void_p(fake.fake_dictionary())
            for key, item in value.items():
                fake.fake_put(made, self.build(key), self.build(item))
            return made
        assert isinstance(value, list), value
        made = ctypes.c_void_p(fake.fake_array())
        for item in value:
            fake.fake_append(made, self.build(item))
        return made

    def entry(self, kind: str, properties: dict[str, object], *, below: int = 0) -> int:
        return self.fake.fake_entry(kind.encode(), below, self.build(properties))

    def change(self, entry: int, properties: dict[str, object]) -> None:
        self.fake.fake_entry_is(entry, self.build(properties))

    def sound(
        self, thing: int, selector: str, value: int | list[int] | str, *, scope: str = "glob", media: int = 0
    ) -> None:
        """A property of CoreAudio (media 0) or CoreMediaIO (1)."""
        where = (media, thing, ctypes.c_uint32(code(selector)), ctypes.c_uint32(code(scope)))
        if isinstance(value, str):
            self.fake.fake_property(*where, None, 0, self.build(value))
            return
        numbers = value if isinstance(value, list) else [value]
        raw = b"".join(number.to_bytes(4, "little") for number in numbers)
        self.fake.fake_property(*where, raw, len(raw), None)

    def process(
        self,
        pid: int,
        parent: int,
        *,
        visible: bool = True,
        name: str = "program",
        started_s: int = 1_700_000_000,
        terminal: int = 0xFFFFFFFF,
        **usage: int,
    ) -> None:
        info = BsdInfo(pbi_pid=pid, pbi_ppid=parent, e_tdev=terminal, pbi_start_tvsec=started_s)
        brief = BsdShortInfo(pbsi_pid=pid, pbsi_ppid=parent)
        told = RusageInfoV4(**usage)
        self.fake.fake_process(
            pid, parent, int(visible), bytes(info), bytes(brief), bytes(told), name.encode()
        )

    def pages(self, **counts: int) -> None:
        raw = bytes(VmStatistics64(**counts))
        self.fake.fake_memory(raw, len(raw))

    def setting(self, name: str, value: int, size: int) -> None:
        raw = value.to_bytes(size, "little")
        self.fake.fake_setting(name.encode(), raw, ctypes.c_size_t(size))

    def interfaces(self, *messages: IfMsghdr2 | bytes) -> None:
        raw = b"".join(bytes(message) for message in messages)
        self.fake.fake_interfaces(raw, ctypes.c_size_t(len(raw)))

    def login(self, user: str, line: str, host: str, pid: int, kind: int = 7) -> None:
        entry = Utmpx(ut_type=kind, ut_pid=pid)
        entry.ut_user, entry.ut_line, entry.ut_host = user.encode(), line.encode(), host.encode()
        self.fake.fake_login(bytes(entry))

    @contextlib.contextmanager
    def balanced(self) -> Iterator[None]:
        """What happens within gives back all references and handles, and none twice."""
        before = self.fake.fake_live(), self.fake.fake_handles()
        yield
        assert (self.fake.fake_live(), self.fake.fake_handles()) == before
        assert self.fake.fake_mistakes() == 0
