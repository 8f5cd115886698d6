"""Hostile WebAssembly, as text: modules that try to leave the workspace, to take memory and to run for ever.

They call WASI directly, so that no library between refuses for it. ``hostile`` prints a line ``name=number`` for each
attempt: WASI's error number, 0 where it worked; for ``memory`` how many pages of 64 KiB it got, for the descriptors how many
it found beside the two of its folder. Before these it prints the environment that it sees.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

PAGE_BYTES: Final = 65_536
Line = Literal["fs", "net", "pidns", "mem"]
_STEP_PAGES: Final = 256
_FOLLOW: Final = 1
_CREATE: Final = 1
_MAY_READ: Final = 2
_MAY_WRITE: Final = 64
_FOLDER: Final = 3
_ROOT: Final = 4
_TEXTS_AT: Final = 1024
"""Below lies scratch space."""
_IMPORTS: Final = (
    ("fd_write", 4),
    ("fd_fdstat_get", 2),
    ("sock_accept", 3),
    ("environ_sizes_get", 2),
    ("environ_get", 2),
    ("path_symlink", 5),
    ("path_create_directory", 3),
    ("path_rename", 6),
    ("path_link", 7),
)


@dataclass(frozen=True, kw_only=True)
class WasmAttempt:
    """One thing that the module tries."""

    name: str
    line: Line
    """Of ``wire.nodes.Isolation``."""
    means: str


ATTEMPTS: Final = (
    WasmAttempt(name="read_above", line="fs", means="Open a file of the folder above by `..`."),
    WasmAttempt(name="read_absolute", line="fs", means="Open it by its path on this machine."),
    WasmAttempt(
        name="read_through_link", line="fs", means="Open it through a link that lies in the workspace."
    ),
    WasmAttempt(name="read_through_own_link", line="fs", means="The same through a link that it makes."),
    WasmAttempt(name="write_above", line="fs", means="Make a file in the folder above."),
    WasmAttempt(name="make_folder_above", line="fs", means="Make a folder there."),
    WasmAttempt(name="rename_out", line="fs", means="Move a file of its own there."),
    WasmAttempt(name="hard_link", line="fs", means="Give a file from there a second name in the workspace."),
    WasmAttempt(name="rename_in", line="fs", means="Move a file from there into the workspace."),
    WasmAttempt(name="other_descriptors", line="pidns", means="Find open files of the process around it."),
    WasmAttempt(name="environment", line="pidns", means="Find a secret in that process's environment."),
    WasmAttempt(
        name="sockets", line="net", means="Accept a connection on any descriptor: WASI has no other way out."
    ),
    WasmAttempt(name="memory", line="mem", means="Take more memory than it is to have."),
)
SECRET: Final = "secret"  # noqa: S105  # the name of a file
LINK: Final = "way-out"
ESCAPED: Final = "escaped"
OWN: Final = "own"

ENDLESS: Final = '(module (memory (export "memory") 1) (func (export "_start") (loop $again (br $again))))'
"""Never ends, and calls nothing."""
FORK: Final = """(module (import "wasi_snapshot_preview1" "proc_fork" (func $fork (result i32)))
  (memory (export "memory") 1) (func (export "_start") (drop (call $fork))))"""
"""Asks for what WASI does not have."""
FLOOD: Final = """(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 65000))
    (loop $again (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16))) (br $again))))"""
"""Writes for ever."""


class _Texts:
    """The module's texts, and where each lies."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._end = _TEXTS_AT

    def at(self, text: str) -> str:
        """Address and length, as arguments of a call."""
        if text not in self._places:
            self._places[text] = self._end
            self._end += len(text.encode())
        return f"(i32.const {self._places[text]}) (i32.const {len(text.encode())})"

    def segments(self) -> Iterator[str]:
        for text, place in self._places.items():
            quoted = "".join(f"\\{byte:02x}" for byte in text.encode())
            yield f'(data (i32.const {place}) "{quoted}")'


def hostile(absolute: str, *, prefix: str = "") -> str:
    """``absolute`` is the path of the file SECRET above the workspace; ``prefix`` where the workspace lies in the folder
    that the module is given: nowhere but in the control, where it is given too much."""
    texts = _Texts()
    above, own = f"{prefix}../", f"{prefix}{OWN}"
    calls = {
        "other_descriptors": "(call $count_descriptors)",  # first, as it opens files of its own later
        "read_above": _open(texts.at(above + SECRET)),
        "read_absolute": _open(texts.at(absolute.lstrip("/")), folder=_ROOT),
        "read_through_link": _open(texts.at(prefix + LINK)),
        "read_through_own_link": (
            f"(drop (call $path_symlink {texts.at('../' + SECRET)} (i32.const {_FOLDER}) {texts.at(own)}))"
            + _open(texts.at(own))
        ),
        "write_above": _open(texts.at(above + ESCAPED), create=True),
        "make_folder_above": (
            f"(call $path_create_directory (i32.const {_FOLDER}) {texts.at(above + ESCAPED + '.d')})"
        ),
        "rename_out": (
            f"(drop {_open(texts.at(prefix + 'mine'), create=True)})"
            f"(call $path_rename (i32.const {_FOLDER}) {texts.at(prefix + 'mine')}"
            f" (i32.const {_FOLDER}) {texts.at(above + ESCAPED + '.moved')})"
        ),
        "hard_link": (
            f"(call $path_link (i32.const {_FOLDER}) (i32.const 0) {texts.at(above + SECRET)}"
            f" (i32.const {_FOLDER}) {texts.at(prefix + 'hard')})"
        ),
        "rename_in": (
            f"(call $path_rename (i32.const {_FOLDER}) {texts.at(above + SECRET)}"
            f" (i32.const {_FOLDER}) {texts.at(prefix + 'stolen')})"
        ),
        "sockets": "(call $accept_any)",
        "memory": "(call $grow)",
    }
    said = "\n".join(f"(call $say {texts.at(name + '=')} {call})" for name, call in calls.items())
    imports = "\n".join(
        f'(import "wasi_snapshot_preview1" "{name}" (func ${name} (param {"i32 " * count}) (result i32)))'
        for name, count in _IMPORTS
    )
    return f"""(module
{imports}
(import "wasi_snapshot_preview1" "path_open"
  (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
(memory (export "memory") 4)
{_FUNCTIONS}
(func (export "_start") (call $show_environment)
{said})
{" ".join(texts.segments())})"""


def _open(path: str, *, folder: int = _FOLDER, create: bool = False) -> str:
    flags, rights = (_CREATE, _MAY_WRITE) if create else (0, _MAY_READ)
    return (
        f"(call $path_open (i32.const {folder}) (i32.const {_FOLLOW}) {path} (i32.const {flags})"
        f" (i64.const {rights}) (i64.const 0) (i32.const 0) (i32.const 32))"
    )


_FUNCTIONS: Final = f"""
(func $write (param $at i32) (param $length i32)
  (i32.store (i32.const 0) (local.get $at)) (i32.store (i32.const 4) (local.get $length))
  (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16))))
(func $say (param $name i32) (param $length i32) (param $number i32) (local $at i32)
  (call $write (local.get $name) (local.get $length))
  (local.set $at (i32.const 99)) (i32.store8 (i32.const 99) (i32.const 10))
  (loop $digits
    (local.set $at (i32.sub (local.get $at) (i32.const 1)))
    (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10))))
    (local.set $number (i32.div_u (local.get $number) (i32.const 10)))
    (br_if $digits (local.get $number)))
  (call $write (local.get $at) (i32.sub (i32.const 100) (local.get $at))))
(func $show_environment
  (drop (call $environ_sizes_get (i32.const 200) (i32.const 204)))
  (if (i32.gt_u (i32.load (i32.const 204)) (i32.const 65000)) (then (return)))
  (drop (call $environ_get (i32.const 65536) (i32.const 131072)))
  (call $write (i32.const 131072) (i32.load (i32.const 204)))
  (i32.store8 (i32.const 99) (i32.const 10)) (call $write (i32.const 99) (i32.const 1)))
(func $count_descriptors (result i32) (local $fd i32) (local $found i32)
  (local.set $fd (i32.const 5))
  (loop $each
    (if (i32.eqz (call $fd_fdstat_get (local.get $fd) (i32.const 304)))
      (then (local.set $found (i32.add (local.get $found) (i32.const 1)))))
    (local.set $fd (i32.add (local.get $fd) (i32.const 1)))
    (br_if $each (i32.lt_u (local.get $fd) (i32.const 1024))))
  (local.get $found))
(func $accept_any (result i32) (local $fd i32) (local $code i32)
  (loop $each
    (local.set $code (call $sock_accept (local.get $fd) (i32.const 4) (i32.const 304)))
    (if (i32.eqz (local.get $code)) (then (return (i32.const 0))))
    (local.set $fd (i32.add (local.get $fd) (i32.const 1)))
    (br_if $each (i32.lt_u (local.get $fd) (i32.const 64))))
  (local.get $code))
(func $grow (result i32)
  (loop $more
    (br_if $more (i32.ne (memory.grow (i32.const {_STEP_PAGES})) (i32.const -1))))
  (memory.size))
"""
