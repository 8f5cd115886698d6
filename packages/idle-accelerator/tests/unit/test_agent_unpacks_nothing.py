"""The agent never opens an archive: what a task packed, hostile names and bombs included, is unpacked where its submitter wants it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from idle_accelerator import agent

UNPACKERS = {"tarfile", "zipfile", "zipimport", "shutil.unpack_archive", "gzip", "bz2", "lzma", "zlib"}
SOURCE = Path(agent.__file__).parent


def used(code: str) -> Iterator[str]:
    """Names of modules, and of what is taken from them, with a dot."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            # importlib.import_module("tarfile"), a command line that begins with it
            yield str(node.args[0].value)


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_file_of_the_agent_unpacks(path: Path) -> None:
    assert UNPACKERS & set(used(path.read_text(encoding="utf-8"))) == set()


@pytest.mark.parametrize(
    "code",
    [
        "import tarfile",
        "from zipfile import ZipFile",
        "def f():\n    import shutil\n    shutil.unpack_archive(x)",
        "from shutil import unpack_archive",
        "importlib.import_module('tarfile')",
    ],
)
def test_the_look_finds_each_way(code: str) -> None:
    assert UNPACKERS & set(used(code))
