"""Where output files go. Their names come from nodes, so they are hostile: none leads out of the folder asked for."""

import re
import unicodedata
from pathlib import Path

from idle_accelerator.errors import InvalidInput
from idle_accelerator.wire.texts import check_workspace_path

_WINDOWS_SIGNS = re.compile(r'[<>:"|?*\x00-\x1f]')
WINDOWS_DEVICES = re.compile(
    r"^(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?$", re.IGNORECASE
)


class Placer:
    """Gives each artifact its place under ``root``. No two get the same, not even where case does not count."""

    def __init__(self, root: Path, *, windows: bool, ignores_case: bool) -> None:
        self._root = root.absolute()
        self._windows = windows
        self._ignores_case = ignores_case
        self._taken: set[str] = set()

    def place(self, folder: str | None, path: str) -> Path:
        """Raises InvalidInput for a name that would leave the folder, is a device, or is taken already."""
        try:
            check_workspace_path(path)
        except ValueError as error:
            raise _refused(path, str(error)) from None
        parts = path.split("/")
        if self._windows:
            for part in parts:
                if _WINDOWS_SIGNS.search(part) or WINDOWS_DEVICES.match(part) or part.endswith((" ", ".")):
                    raise _refused(path, f"Windows cannot hold a file named {part!r}")
        target = self._root.joinpath(*([folder] if folder else []), *parts)
        # A link that stands in the folder already may lead elsewhere.
        if not target.parent.resolve().is_relative_to(self._root.resolve()):
            raise _refused(path, "a link in the folder leads out of it")
        known = str(target)
        if self._ignores_case:
            # macOS takes both ways to write an é for the same name as well.
            known = unicodedata.normalize("NFC", known.casefold())
        if known in self._taken:
            raise _refused(path, "another output has the same name here")
        self._taken.add(known)
        return target


def _refused(path: str, why: str) -> InvalidInput:
    return InvalidInput(
        f"output {path!r} was not written: {why}.",
        field="to",
        hint="Read it by digest: client.download(digest, file).",
    )
