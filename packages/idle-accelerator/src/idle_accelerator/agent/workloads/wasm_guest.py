"""The process of a WebAssembly task: it loads the module, gives it the workspace and nothing else, and ends as it ends.

``python -I wasm_guest.py``: what to run comes by standard input, as a length of four bytes and JSON (see ``wasm``), so that nothing of the
job's own reaches the environment or the command line of this program, by which it could be changed (LD_PRELOAD).

The module sees WASI preview 1: arguments, environment, clocks, randomness, its two outputs, and one folder. No sockets, no
processes, no other files. wasmtime resolves each path below the opened folder, link by link, so that none leads out.
"""

import contextlib
import json
import math
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final, NoReturn

from wasmtime import Config, Engine, ExitTrap, Func, Linker, Module, Store, Trap, WasiConfig, WasmtimeError

MAGIC: Final = b"\0asm"
CORE: Final = b"\1\0\0\0"
UNUSABLE_STATUS: Final = 126
"""The module cannot be run. A module's own status is at most 125: wasmtime takes no other."""
TRAP_STATUS: Final = 200
"""And from here on, by wasmtime's number of the trap. 129 to 192 would be taken for signals, as in shells."""
UNKNOWN_TRAP_STATUS: Final = 199
MODULE_LIMIT_BYTES: Final = 256 * 1024 * 1024
TICK_S: Final = 0.25
_TABLE_ELEMENTS: Final = 4_000_000
_OPEN_FILES: Final = 1024
_START: Final = "_start"


def bound(whole_bytes: int) -> None:
    """Limits of this process that hold where no control group does."""
    if sys.platform != "win32":
        import resource  # noqa: PLC0415  # not on Windows

        wanted = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, _OPEN_FILES)]
        if sys.platform == "linux":
            # Counts writable private memory alone, so not the address space that wasmtime keeps free around a module's.
            wanted.append((resource.RLIMIT_DATA, whole_bytes))
        for limit, value in wanted:
            hard = resource.getrlimit(limit)[1]
            lowest = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(limit, (lowest, lowest))


def make_engine(*, interruptible: bool) -> Engine:
    config = Config()
    config.epoch_interruption = interruptible
    # What no compiler for WASI needs by default, and whose memory the store's limit does not count.
    config.wasm_threads = False
    config.wasm_multi_memory = False
    config.wasm_memory64 = False
    config.wasm_gc = False
    return Engine(config)


def tick(engine: Engine) -> NoReturn:
    """A thread: the engine's clock. It stands still while the process does, so that frozen time does not count."""
    while True:
        time.sleep(TICK_S)
        engine.increment_epoch()


def make_store(engine: Engine, setup: dict[str, Any], wasi: WasiConfig) -> Store:
    store = Store(engine)
    store.set_limits(
        memory_size=setup["memory_bytes"],
        table_elements=_TABLE_ELEMENTS,
        instances=1,
        tables=10,
        memories=1,
    )
    if setup["timeout_s"] is not None:
        store.set_epoch_deadline(math.ceil(setup["timeout_s"] / TICK_S) + 1)
        threading.Thread(target=tick, args=(engine,), daemon=True).start()
    store.set_wasi(wasi)
    return store


def view(setup: dict[str, Any]) -> WasiConfig:
    """All that the module sees. The folder has two names: compilers look for the one or the other."""
    wasi = WasiConfig()
    wasi.argv = [setup["module"], *setup["arguments"]]
    wasi.env = list(setup["env"].items())
    wasi.inherit_stdout()
    wasi.inherit_stderr()
    for name in (".", "/"):
        wasi.preopen_dir(".", name)
    return wasi


def read_module(path: Path) -> bytes:
    """Raises ValueError for what is no module, OSError where it cannot be read."""
    with path.open("rb") as file:
        code = file.read(MODULE_LIMIT_BYTES + 1)
    if len(code) > MODULE_LIMIT_BYTES:
        raise ValueError(f"it is larger than {MODULE_LIMIT_BYTES} bytes")
    if code[:4] != MAGIC:
        raise ValueError("it is no WebAssembly: it does not begin as such a file does")
    if code[4:8] != CORE:
        raise ValueError("it is a component, not a core module: build it for wasm32-wasip1")
    return code


def start_function(engine: Engine, store: Store, code: bytes) -> Func:
    """Raises ValueError and WasmtimeError for a module that cannot be run, Trap where its own start traps."""
    linker = Linker(engine)
    linker.define_wasi()
    instance = linker.instantiate(store, Module(engine, code))
    start = instance.exports(store).get(_START)
    if not isinstance(start, Func):
        raise ValueError(f"it has no function {_START}: build it as a program, not as a library")  # noqa: TRY004  # of the file
    return start


def leave(status: int, text: str = "") -> NoReturn:
    if text:
        with contextlib.suppress(OSError):
            os.write(2, f"\n{text}\n".encode(errors="replace"))
    os._exit(status)


def main() -> NoReturn:
    length = int.from_bytes(sys.stdin.buffer.read(4), "little")
    setup = json.loads(sys.stdin.buffer.read(length))
    # A module hears no signals: it looks for the file that IDLE_VACATE_FILE names, and has the whole grace to do so.
    for name in ("SIGTERM", "SIGBREAK"):
        if (number := getattr(signal, name, None)) is not None:
            signal.signal(number, signal.SIG_IGN)
    bound(setup["whole_bytes"])
    try:
        engine = make_engine(interruptible=setup["timeout_s"] is not None)
        code = read_module(Path(setup["module"]))
        start = start_function(engine, store := make_store(engine, setup, view(setup)), code)
    except (ValueError, OSError, WasmtimeError) as error:
        leave(UNUSABLE_STATUS, f"{setup['module']} cannot be run: {error}")
    except Trap as trap:
        leave_trapped(trap)
    try:
        start(store)
    except ExitTrap as ended:
        leave(ended.code)
    except Trap as trap:
        leave_trapped(trap)
    except WasmtimeError as error:
        leave(UNKNOWN_TRAP_STATUS, str(error))
    leave(0)


def leave_trapped(trap: Trap) -> NoReturn:
    code = trap.trap_code
    leave(UNKNOWN_TRAP_STATUS if code is None else TRAP_STATUS + code.value, trap.message)


if __name__ == "__main__":
    main()
