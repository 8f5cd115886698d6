"""WebAssembly modules on their way into a job: found, looked at, and put among the input files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from idle_accelerator.errors import InvalidInput

MAGIC: Final = b"\0asm"
CORE: Final = b"\1\0\0\0"
_BUILD: Final = (
    "Build it for WASI preview 1, such as: rustc --target wasm32-wasip1, or zig cc --target=wasm32-wasi."
)
FIELD: Final = "wasm"


def is_module(path: Path) -> bool:
    """Whether it is a file that begins as WebAssembly does."""
    try:
        with path.open("rb") as file:
            return file.read(4) == MAGIC
    except (OSError, ValueError):
        return False


def check_module(path: str | Path) -> Path:
    """The module's own path. Raises InvalidInput for what no node could run."""
    module = Path(path)
    try:
        with module.open("rb") as file:
            head = file.read(8)
    except (OSError, ValueError) as error:
        detail = getattr(error, "strerror", None) or str(error)
        raise InvalidInput(
            f"{module}: {detail}.", field=FIELD, hint="Give the path of a .wasm file."
        ) from error
    if head[:4] != MAGIC:
        raise InvalidInput(f"{module} is no WebAssembly module.", field=FIELD, hint=_BUILD)
    if head[4:] != CORE:
        raise InvalidInput(
            f"{module} is a component (WASI preview 2), which nodes do not run yet.", field=FIELD, hint=_BUILD
        )
    return module


def name_among(inputs: Sequence[tuple[str, Path]], module: Path) -> str | None:
    """The name under which the module is sent already, if it is."""
    wanted = module.absolute()
    return next((name for name, local in inputs if local.absolute() == wanted), None)
