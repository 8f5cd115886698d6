"""Holds idle-sense's declarations for macOS against Apple's own: `python bench/macos_headers.py`.

Two independent sources, both from PyPI and needing no Mac:

- the headers of libSystem that the ``ziglang`` wheel carries: every function's declaration and every structure's size, and
  the place, size and sign of each of its fields are compiled for arm64 and x86_64, then linked against the list of
  symbols that libSystem exports;
- the type encodings that the ``pyobjc-framework-*`` wheels carry, made by their project from Xcode's headers: for the
  functions and constants of CoreFoundation, CoreGraphics, CoreAudio and CoreMediaIO.

IOKit's and Network.framework's headers are in neither: their declarations are listed as read only. What it printed last is in
docs/reference/verified-macos.md. It is not part of CI: the wheel is 100 MB, and 410 MB unpacked.
"""

import argparse
import ctypes
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from idle_sense.platform import macos_audio as audio
from idle_sense.platform import macos_frameworks as frameworks
from idle_sense.platform import macos_network as network
from idle_sense.platform import macos_power as power
from idle_sense.platform import macos_processes as processes
from idle_sense.platform import macos_screen as screen
from idle_sense.platform import macos_seats as seats
from idle_sense.platform import macos_structures as structures
from idle_sense.platform import macos_values as values

TARGETS = ("aarch64-macos", "x86_64-macos")
HEADERS = (
    "libproc.h",
    "unistd.h",
    "mach/mach.h",
    "mach/mach_host.h",
    "mach/mach_time.h",
    "sys/proc_info.h",
    "sys/resource.h",
    "sys/socket.h",
    "sys/sysctl.h",
    "net/if.h",
    "net/if_types.h",
    "net/if_var.h",
    "net/route.h",
    "utmpx.h",
    "dispatch/dispatch.h",
    "libkern/OSThermalNotification.h",
    "MacTypes.h",
)
WITHOUT_HEADER = ("notify_register_check", "notify_get_state", "notify_cancel")
"""<notify.h> is not in the wheel: these are linked only."""
TYPES = (
    *(
        "int",
        "u_int",
        "int32_t",
        "uint32_t",
        "uint64_t",
        "size_t",
        "intptr_t",
        "uintptr_t",
        "double",
        "pid_t",
    ),
    *("kern_return_t", "mach_port_t", "host_t", "host_flavor_t", "mach_msg_type_number_t"),
    *("Boolean", "UInt8", "UInt32", "OSStatus"),
)
SYSTEM_CONSTANTS = {
    "RUSAGE_INFO_V4": structures.RUSAGE_INFO_V4,
    "PROC_PPID_ONLY": structures.PROC_PPID_ONLY,
    "PROC_PIDTBSDINFO": structures.PROC_PIDTBSDINFO,
    "PROC_PIDT_SHORTBSDINFO": structures.PROC_PIDT_SHORTBSDINFO,
    "HOST_CPU_LOAD_INFO": structures.HOST_CPU_LOAD_INFO,
    "HOST_VM_INFO64": structures.HOST_VM_INFO64,
    "CTL_NET": structures.CTL_NET,
    "PF_ROUTE": structures.PF_ROUTE,
    "NET_RT_IFLIST2": structures.NET_RT_IFLIST2,
    "RTM_IFINFO2": structures.RTM_IFINFO2,
    "IFT_ETHER": structures.IFT_ETHER,
    "IFT_CELLULAR": structures.IFT_CELLULAR,
    "USER_PROCESS": structures.USER_PROCESS,
    "CPU_STATE_USER": 0,
    "CPU_STATE_SYSTEM": 1,
    "CPU_STATE_IDLE": 2,
    "CPU_STATE_NICE": 3,
    "kOSThermalPressureLevelNominal": power.PRESSURES.index("nominal"),
    "kOSThermalPressureLevelModerate": power.PRESSURES.index("moderate"),
    "kOSThermalPressureLevelHeavy": power.PRESSURES.index("heavy"),
    "kOSThermalPressureLevelTrapping": power.PRESSURES.index("trapping"),
    "kOSThermalPressureLevelSleeping": power.PRESSURES.index("sleeping"),
    "DISPATCH_MEMORYPRESSURE_WARN": processes.PRESSURE_WARNING,
}
FRAMEWORK_CONSTANTS = {
    "kCFStringEncodingUTF8": values.UTF8,
    "kCFNumberSInt64Type": values.SINT64,
    "kCFNumberFloat64Type": values.FLOAT64,
    "kCGEventSourceStateHIDSystemState": seats.HID_SYSTEM_STATE,
    "kCGAnyInputEventType": seats.ANY_INPUT,
    "kCGWindowListOptionOnScreenOnly": screen.ON_SCREEN_ONLY,
    "kCGWindowListExcludeDesktopElements": screen.WITHOUT_DESKTOP,
    "kAudioObjectSystemObject": audio.SYSTEM_OBJECT,
    "kAudioObjectPropertyScopeGlobal": audio.GLOBAL_SCOPE,
    "kAudioObjectPropertyScopeInput": audio.INPUT_SCOPE,
    "kAudioObjectPropertyScopeOutput": audio.OUTPUT_SCOPE,
    "kAudioHardwarePropertyDevices": audio.DEVICES,
    "kAudioHardwarePropertyProcessObjectList": audio.PROCESSES,
    "kAudioDevicePropertyDeviceIsRunningSomewhere": audio.RUNNING_SOMEWHERE,
    "kAudioDevicePropertyStreams": audio.STREAMS,
    "kAudioObjectPropertyName": audio.NAME,
    "kAudioProcessPropertyPID": audio.PROCESS_PID,
    "kAudioProcessPropertyBundleID": audio.PROCESS_BUNDLE,
    "kAudioProcessPropertyIsRunningInput": audio.PROCESS_RECORDS,
    "kAudioProcessPropertyIsRunningOutput": audio.PROCESS_PLAYS,
    "kCMIOObjectSystemObject": audio.SYSTEM_OBJECT,
    "kCMIOHardwarePropertyDevices": audio.DEVICES,
    "kCMIODevicePropertyDeviceIsRunningSomewhere": audio.RUNNING_SOMEWHERE,
    "kCMIOObjectPropertyName": audio.NAME,
    "kCMIOObjectPropertyScopeGlobal": audio.GLOBAL_SCOPE,
}
PYOBJC = {
    "CoreFoundation": ("Cocoa", frameworks.CORE_FOUNDATION),
    "CoreGraphics": ("Quartz", frameworks.CORE_GRAPHICS),
    "CoreAudio": ("CoreAudio", frameworks.CORE_AUDIO),
    "CoreMediaIO": ("CoreMediaIO", frameworks.CORE_MEDIA_IO),
}
INTEGERS = (
    *(ctypes.c_uint8, ctypes.c_uint16, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_ulong),
    *(ctypes.c_int16, ctypes.c_int32, ctypes.c_int64, ctypes.c_long),
)
READ_ONLY = (frameworks.IO_KIT, frameworks.NETWORK)
FRAMEWORK_STRUCTURES = {
    "AudioObjectPropertyAddress=III": ("III", structures.PropertyAddress),
    "CMIOObjectPropertyAddress=III": ("III", structures.PropertyAddress),
    "CGRect={CGPoint=dd}{CGSize=dd}": ("dddd", frameworks.Rect),
}
BLOCK = """
#include <stddef.h>
#include <stdio.h>
void *_NSConcreteGlobalBlock[32];
struct Block { void *isa; int flags; int reserved; void (*invoke)(void *, void *); struct { unsigned long reserved, size; } *at; };
static int heard;
static void (^block)(void *) = ^(void *path) { heard += path == &heard; };
int main(void) {
    struct Block *told = (struct Block *)block;
    told->invoke(told, &heard);
    printf("%zu %zu %zu %zu %zu %lu %d %d\\n", offsetof(struct Block, flags), offsetof(struct Block, reserved),
           offsetof(struct Block, invoke), offsetof(struct Block, at), sizeof(struct Block), told->at->size,
           told->isa == (void *)_NSConcreteGlobalBlock && (told->flags & 1 << 28) != 0, heard);
    return 0;
}
"""
"""A block that clang makes, taken apart by the structure that ours is made of; clang's blocks are alike on every system."""


def source() -> Iterator[str]:
    """C that compiles only where all declarations agree."""
    for header in HEADERS:
        yield f"#include <{header}>"
    yield "#include <stddef.h>"
    for name, value in SYSTEM_CONSTANTS.items():
        yield f'_Static_assert({name} == {value}, "{name}");'
    for name in TYPES:
        declared = frameworks.TYPES[name]
        assert declared is not None
        yield f'_Static_assert(sizeof({name}) == {ctypes.sizeof(declared)}, "size of {name}");'
        signed = declared(-1).value < 0
        yield f'_Static_assert((({name})-1 < 0) == {int(signed)}, "sign of {name}");'
    for name, _, structure in structures.CHECKED:
        yield from fields(name, structure)
    for prototype in frameworks.prototypes(frameworks.SYSTEM):
        arguments = ", ".join(prototype.arguments) or "void"
        if prototype.name in WITHOUT_HEADER:
            yield f"extern {prototype.result} {prototype.name}({arguments});"
        yield f"{prototype.result} (*const use_{prototype.name})({arguments}) = {prototype.name};"
    yield "extern void *_NSConcreteGlobalBlock[32];"
    yield "void *const use_block = _NSConcreteGlobalBlock;"
    yield "int main(void) { return 0; }"


def fields(name: str, structure: type[ctypes.Structure]) -> Iterator[str]:
    whole = f"sizeof({name})"
    if name == "struct vm_statistics64":
        # Later systems add fields; ours ends with the first revision.
        whole = f"offsetof({name}, swapped_count)"
    yield f'_Static_assert({whole} == {ctypes.sizeof(structure)}, "size of {name}");'
    for field, kind in ((item[0], item[1]) for item in structure._fields_):
        place = getattr(structure, field)
        member = f"(({name} *)0)->{field}"
        yield f'_Static_assert(offsetof({name}, {field}) == {place.offset}, "place of {name}.{field}");'
        yield f'_Static_assert(sizeof({member}) == {ctypes.sizeof(kind)}, "size of {name}.{field}");'
        if kind in INTEGERS:
            signed = int(kind(-1).value < 0)
            yield f'_Static_assert(((__typeof__({member}))-1 < 0) == {signed}, "sign of {name}.{field}");'


def check_headers(zig: Path, folder: Path) -> list[str]:
    file = folder / "check.c"
    file.write_text("\n".join(source()) + "\n")
    problems: list[str] = []
    for target in TARGETS:
        done = subprocess.run(
            [
                *(str(zig), "cc", "-target", target, "-std=gnu11", "-Werror", "-Wall", "-fno-sanitize=all"),
                *("-Wno-unused-const-variable", "-Wno-deprecated-declarations", "-fblocks"),
                *("-o", str(folder / f"check-{target}"), str(file)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        count = len(frameworks.prototypes(frameworks.SYSTEM))
        print(
            f"{target}: {count} functions, {len(structures.CHECKED)} structures, {len(TYPES)} types, "
            f"{len(SYSTEM_CONSTANTS)} constants: {'agree, and link' if done.returncode == 0 else 'DISAGREE'}"
        )
        if done.returncode:
            problems.append(done.stderr)
    return problems


def check_block(zig: Path, folder: Path) -> list[str]:
    file, program = folder / "block.c", folder / "block"
    file.write_text(BLOCK)
    subprocess.run([zig, "cc", "-fblocks", "-Werror", "-o", program, file], check=True, capture_output=True)
    told = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
    block = network.Block
    size = ctypes.sizeof(block)
    places = [getattr(block, name).offset for name in ("flags", "reserved", "invoke", "descriptor")]
    wanted = [str(number) for number in (*places, size, size, 1, 1)]
    print(f"block: {'as clang makes it' if told == wanted else 'DISAGREES'}")
    return [] if told == wanted else [f"block: {told} is not {wanted}"]


def tokens(encoding: str) -> list[str]:
    """Objective-C's type encoding, reduced to one letter for each type; all pointers are ``^``."""
    found: list[str] = []
    at = 0
    while at < len(encoding):
        at, token = one_type(encoding, at)
        found.append(token)
    return found


def one_type(encoding: str, at: int) -> tuple[int, str]:
    while encoding[at] in "rnNoORV":
        at += 1
    letter = encoding[at]
    if letter == "^":
        return one_type(encoding, at + 1)[0], "^"
    if letter == "{":
        depth, end = 1, at + 1
        while depth:
            depth += {"{": 1, "}": -1}.get(encoding[end], 0)
            end += 1
        return end, encoding[at + 1 : encoding.index("=", at)]
    if letter in "@*":
        return at + 1, "^"
    return at + 1, letter


def allowed(kind: type | None) -> str:
    """Letters that a ctypes type may be encoded as."""
    letters = {
        None: "v",
        ctypes.c_void_p: "^",
        ctypes.c_char_p: "^",
        ctypes.c_bool: "BZ",
        ctypes.c_uint8: "CZ",
        ctypes.c_int: "i",
        ctypes.c_uint: "I",
        ctypes.c_long: "ql",
        ctypes.c_ulong: "QL",
        ctypes.c_double: "d",
    }
    return "CGRect" if kind is frameworks.Rect else letters[kind]


def check_encodings(folder: Path) -> list[str]:
    problems: list[str] = []
    text = ""
    for framework, (distribution, declarations) in PYOBJC.items():
        metadata = "\n".join(wheel_texts(folder, distribution, framework))
        text += metadata
        agreed, absent = 0, []
        for prototype in frameworks.prototypes(declarations):
            match = re.search(rf'"{prototype.name}": \(\s*b"([^"]*)"', metadata)
            if match is None:
                absent.append(prototype.name)
                continue
            wanted = [allowed(frameworks.c_type(kind)) for kind in (prototype.result, *prototype.arguments)]
            told = tokens(match[1])
            if len(wanted) != len(told) or any(
                letter not in ((name,) if name == "CGRect" else tuple(name))
                for letter, name in zip(told, wanted, strict=True)
            ):
                problems.append(f"{prototype.name}: {match[1]} is not {wanted}")
            else:
                agreed += 1
        print(f"{framework}: {agreed} functions agree with PyObjC; not in it: {', '.join(absent) or 'none'}")
    agreed, absent = 0, []
    for name, value in FRAMEWORK_CONSTANTS.items():
        match = re.search(rf"\${name}@(-?\d+)\$", text) or re.search(rf'"{name}": .*?(\d+)', text)
        if match is None:
            absent.append(name)
        elif int(match[1]) & 0xFFFFFFFF != value & 0xFFFFFFFF:
            problems.append(f"{name} is {match[1]}, not {value}")
        else:
            agreed += 1
    for encoding, (letters, structure) in FRAMEWORK_STRUCTURES.items():
        ours = "".join("I" if kind is ctypes.c_uint32 else "d" for _, kind in structure._fields_)
        if "{" + encoding not in text or ours != letters:
            problems.append(f"{encoding} is not {ours}")
    print(f"structures: {', '.join(item.partition('=')[0] for item in FRAMEWORK_STRUCTURES)}")
    print(f"constants: {agreed} agree with PyObjC; not in it: {', '.join(absent) or 'none'}")
    return problems


def wheel_texts(folder: Path, distribution: str, framework: str) -> Iterable[str]:
    for wheel in folder.glob(f"pyobjc_framework_{distribution.lower()}-*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith(f"{framework}/_metadata.py"):
                    yield archive.read(name).decode()


def fetch(folder: Path, requirement: str, *options: str) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "-d",
        str(folder),
        *options,
        requirement,
    ]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--zig", type=Path, help="a zig that is there already; else the wheel is fetched")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        zig = options.zig
        if zig is None:
            fetch(folder, "ziglang")
            with zipfile.ZipFile(next(folder.glob("ziglang-*.whl"))) as archive:
                archive.extractall(folder)
            zig = folder / "ziglang" / "zig"
            zig.chmod(0o755)
        version = subprocess.run([zig, "version"], capture_output=True, text=True, check=True).stdout.strip()
        print(f"zig {version}")
        problems = [*check_headers(zig.resolve(), folder), *check_block(zig.resolve(), folder)]
        for distribution in {distribution for distribution, _ in PYOBJC.values()}:
            mac = ("--only-binary=:all:", "--python-version=3.12", "--platform=macosx_11_0_universal2")
            fetch(folder, f"pyobjc-framework-{distribution}", *mac, "--platform=macosx_10_13_universal2")
        problems += check_encodings(folder)
    unchecked = [item.name for text in READ_ONLY for item in frameworks.prototypes(text)]
    print(
        f"read in published headers, not compiled: {len(unchecked)} functions of IOKit and Network.framework"
    )
    print("\n".join(problems) or "no disagreement")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
