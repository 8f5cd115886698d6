"""Holds idle-sense's declarations for Windows against mingw-w64's headers: `python bench/windows_headers.py`.

Compiled, not run: the size of every structure, and the place and size of each field; every number; of every function the count
of its arguments and the width of each, whether it is a pointer, and its sign; of every COM interface its identity and
the place of each method that is called. It takes a compiler for Windows:

- the ``ziglang`` wheel from PyPI (100 MB, 410 MB unpacked): Windows on x86_64 and on arm64;
- or Debian's ``g++-mingw-w64-x86-64-posix`` (85 MB): x86_64 alone.

What it printed last is in docs/reference/verified-windows.md. It is not part of CI for the size of these.
"""

import argparse
import ctypes
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from idle_sense.platform import windows_numbers as numbers
from idle_sense.platform.windows_functions import FUNCTIONS
from idle_sense.platform.windows_interfaces import CLASSES, IDENTITIES, PLACES
from idle_sense.platform.windows_structures import STRUCTURES

TARGETS = ("x86_64-windows-gnu", "aarch64-windows-gnu")
PREAMBLE = """
#define WIN32_LEAN_AND_MEAN
#define COBJMACROS
#define _WIN32_WINNT 0x0A00
#define NTDDI_VERSION 0x0A000006
#include <winsock2.h>
#include <ws2ipdef.h>
#include <windows.h>
#include <winternl.h>
#include <initguid.h>
#include <wtsapi32.h>
#include <shellapi.h>
#include <tlhelp32.h>
#include <hidusage.h>
#include <hidsdi.h>
#include <pdh.h>
#include <pdhmsg.h>
#include <powrprof.h>
#include <iphlpapi.h>
#include <netioapi.h>
#include <objbase.h>
#include <mmdeviceapi.h>
#include <audiopolicy.h>
#include <endpointvolume.h>
#include <netlistmgr.h>
"""
UNDECLARED = {"RtlGetVersion": "<wdm.h> has it, which is for drivers"}
"""Functions that the headers for programs leave out."""
WITHOUT_HEADER = {"IAudioMeterInformation": "mingw-w64's <endpointvolume.h> leaves it out"}
PARTS = {"RID_DEVICE_INFO": ("_room",), "MIB_IF_ROW2": (), "WTSINFOEXW": ()}
"""Fields of ours that fill a union up."""
BIT_FIELDS = {("MIB_IF_ROW2", "InterfaceAndOperStatusFlags")}
UNIONS = {
    ("WTSINFOEXW", "Data"): "Data.WTSInfoExLevel1",
    ("MIB_IF_ROW2", "InterfaceLuid"): "InterfaceLuid.Value",
}


def told_numbers() -> dict[str, int]:
    return {
        name: one for name, one in vars(numbers).items() if isinstance(one, int) and not name.startswith("_")
    }


def layout_checks() -> Iterator[str]:
    """Our structures are laid out by this Python, which must be a 64-bit one."""
    for name, structure in STRUCTURES.items():
        yield same(f"sizeof({name})", ctypes.sizeof(structure), f"size of {name}")
        for field, kind in ((one[0], one[1]) for one in structure._fields_):
            if field in PARTS.get(name, ()):
                continue
            inside = UNIONS.get((name, field), field)
            place = getattr(structure, field).offset
            yield same(f"offsetof({name}, {inside})", place, f"place of {name}.{field}")
            if (name, field) not in BIT_FIELDS:
                width = ctypes.sizeof(kind)
                if name == "RAWHID" and field == "bRawData":
                    width = 1
                yield same(f"sizeof((({name} *)0)->{inside})", width, f"size of {name}.{field}")


def number_checks() -> Iterator[str]:
    for name, value in told_numbers().items():
        yield same(f"(unsigned long long)(unsigned)({name})", value, name)


def function_checks() -> Iterator[str]:
    for functions in FUNCTIONS.values():
        for name, (result, arguments) in functions.items():
            if name in UNDECLARED:
                continue
            kinds = ", ".join(kind_of(one) for one in (result, *arguments))
            yield f'static_assert(matches<{kinds}>(&{name}), "{name}");'


def kind_of(kind: Any) -> str:
    if kind is None:
        return "Nothing"
    if kind in (ctypes.c_void_p, ctypes.c_wchar_p):
        return "Pointer"
    signed = kind(-1).value < 0
    return f"Whole<{ctypes.sizeof(kind)}, {str(signed).lower()}>"


MATCHING = """
#include <type_traits>
#include <cstddef>
struct Nothing {}; struct Pointer {}; template<int width, bool isSigned> struct Whole {};
template<class Ours, class Theirs> struct fits { static constexpr bool value = false; };
template<> struct fits<Nothing, void> { static constexpr bool value = true; };
template<class T> struct fits<Pointer, T> {
  static constexpr bool value = std::is_pointer<T>::value || std::is_reference<T>::value; };
template<int width, bool isSigned, class T> struct fits<Whole<width, isSigned>, T> {
  static constexpr bool value = sizeof(T) == width && (std::is_enum<T>::value
    || (std::is_integral<T>::value && std::is_signed<T>::value == isSigned)); };
template<class R, class... A, class TR, class... TA> constexpr bool all(TR (WINAPI *)(TA...)) {
  if constexpr (sizeof...(A) != sizeof...(TA)) return false;
  else return fits<R, TR>::value && (fits<A, TA>::value && ...); }
template<class R, class... A, class F> constexpr bool matches(F function) { return all<R, A...>(function); }
"""


def interface_checks() -> Iterator[str]:
    """In C, where interfaces are structures with a table."""
    for method, place in PLACES.items():
        interface, _, name = method.partition(".")
        if interface in WITHOUT_HEADER:
            continue
        yield same(f"offsetof({interface}Vtbl, {name}) / sizeof(void *)", place, f"place of {method}")


def identity_checks() -> Iterator[tuple[str, str]]:
    """(name of the header's constant, what it must be), compared with the compiled object's bytes."""
    for name, text in CLASSES.items():
        yield f"CLSID_{name}", text
    for name, text in IDENTITIES.items():
        if name not in WITHOUT_HEADER:
            yield f"IID_{name}", text


def same(theirs: str, ours: int, what: str) -> str:
    return f'_Static_assert({theirs} == {ours}, "{what}");'


def compiler(target: str, language: str) -> list[str] | None:
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "c++" if language == "c++" else "cc", "-target", target]
    mingw = shutil.which("x86_64-w64-mingw32-g++-posix") or shutil.which("x86_64-w64-mingw32-g++")
    if mingw is not None and target.startswith("x86_64"):
        return [mingw, "-x", language]
    return None


def compiled(target: str, language: str, lines: Iterable[str], folder: Path) -> tuple[list[str], bytes]:
    """(complaints, the object file). Raises SystemExit where there is no compiler."""
    command = compiler(target, language)
    if command is None:
        raise SystemExit("there is no compiler for Windows\nnext: pip install ziglang (100 MB)")
    source = folder / f"check.{'cpp' if language == 'c++' else 'c'}"
    source.write_text("\n".join((PREAMBLE, *lines, "")))
    made = folder / "check.o"
    made.unlink(missing_ok=True)
    standard = "-std=c++17" if language == "c++" else "-std=c11"
    ended = subprocess.run(
        [*command, standard, "-w", "-c", str(source), "-o", str(made)],
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in ended.stderr.splitlines() if "error:" in line]
    if ended.returncode and not complaints:
        complaints = ended.stderr.splitlines()[-5:]
    return complaints, made.read_bytes() if made.exists() else b""


def main() -> int:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        raise SystemExit("this Python is not a 64-bit one")
    failed = 0
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for target in TARGETS:
            if compiler(target, "c") is None and not target.startswith("x86_64"):
                print(f"{target}: no compiler")
                continue
            asserts = list(layout_checks())
            identities = list(identity_checks())
            kept = [f"const GUID *kept_{name}(void) {{ return &{name}; }}" for name, _ in identities]
            interfaces = list(interface_checks())
            complaints, made = compiled(
                target,
                "c",
                ["#include <stddef.h>", *asserts, *number_checks(), *interfaces, *kept],
                Path(folder),
            )
            for name, text in identities:
                if made and uuid.UUID(text).bytes_le not in made:
                    complaints.append(f"{name} is not {text}")
            functions = list(function_checks())
            more, _ = compiled(target, "c++", [MATCHING, *functions], Path(folder))
            complaints += more
            print(
                f"{target}: {len(STRUCTURES)} structures ({len(asserts)} sizes and places), "
                f"{len(told_numbers())} numbers, {len(functions)} functions, {len(interfaces)} methods, "
                f"{len(identities)} identities: {len(complaints)} wrong"
            )
            for complaint in complaints:
                print(f"  {complaint}")
            failed += len(complaints)
    for name, why in {**UNDECLARED, **WITHOUT_HEADER}.items():
        print(f"read only: {name}: {why}")
    print(f"{time.monotonic() - began_s:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
