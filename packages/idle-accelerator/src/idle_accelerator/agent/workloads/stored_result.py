"""A long result: a file that a function's process, which may still run, left in its workspace."""

import os
import stat
from dataclasses import dataclass
from io import FileIO

from idle_accelerator.agent.folders import Folder, is_only_name


class NoResult(Exception):
    """What stands there is not what the process said. The text says how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResult:
    """Where it stands, below an open folder. Whoever reads it opens it once, and looks at what was opened."""

    workspace: Folder
    folder: str
    name: str
    size_bytes: int
    """As the process said."""

    def open(self) -> FileIO:
        """Raises NoResult."""
        try:
            with self.workspace.folder(self.folder) as folder:
                file = folder.file(self.name)
                is_it = False
                try:
                    status = os.fstat(file.fileno())
                    is_it = (
                        stat.S_ISREG(status.st_mode)
                        and status.st_size == self.size_bytes
                        and is_only_name(folder, self.name, status)
                    )
                finally:
                    if not is_it:
                        file.close()
                if is_it:
                    return file
        except FileNotFoundError as error:
            raise NoResult("it spoke of a result that it did not leave") from error
        except OSError as error:
            raise NoResult(f"it left a result that is not what it said: {error.strerror}") from error
        raise NoResult("it left a result that is not what it said")

    def unlink(self) -> None:
        """Raises OSError."""
        self.workspace.unlink(f"{self.folder}/{self.name}")
