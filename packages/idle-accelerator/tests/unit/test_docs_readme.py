"""What the pages at the front say is so: links lead somewhere, commands parse, both languages show the same."""

import ast
import importlib
import importlib.util
import os
import re
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest
import typer

import idle_accelerator
from idle_accelerator.cli.program import app

ROOT = Path(__file__).parents[4]
ENGLISH = ROOT / "README.md"
CHINESE = ROOT / "README.zh-CN.md"
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
CODE_SPAN = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^()\s]+)\)")
HTML_SOURCE = re.compile(r"<(?:img|source|a)\b[^>]*?\b(?:src|srcset|href)=\"(?P<target>[^\"]+)\"")


def pages() -> list[Path]:
    """Every page of the tree, without what tools leave in folders of their own."""
    found: list[Path] = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "node_modules"]
        found += [Path(folder, name) for name in files if name.endswith(".md")]
    return sorted(found)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def fences(path: Path, *languages: str) -> list[str]:
    """The fenced blocks in their order; those of ``languages`` only, where some are named."""
    return [
        found["body"]
        for found in FENCE.finditer(path.read_text(encoding="utf-8"))
        if not languages or found["language"] in languages
    ]


def prose(path: Path) -> str:
    return CODE_SPAN.sub("", FENCE.sub("", path.read_text(encoding="utf-8")))


def links(path: Path) -> list[str]:
    """Targets within the tree, of links and images, in Markdown and in HTML."""
    text = prose(path)
    targets = [found["target"] for pattern in (LINK, HTML_SOURCE) for found in pattern.finditer(text)]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(path: Path) -> set[str]:
    """Names of the headings, as forges make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def fault_of(page: Path, target: str) -> str | None:
    """Why the link leads nowhere; None when it leads somewhere."""
    place, _, anchor = unquote(target).partition("#")
    path = (page.parent / place).resolve() if place else page
    if not path.is_relative_to(ROOT):
        return f"{target}: leaves the tree"
    if not path.exists():
        return f"{target}: there is no such file"
    if anchor and path.suffix == ".md" and anchor not in anchors(path):
        return f"{target}: there is no such heading"
    return None


def command_lines(*paths: Path) -> Iterator[tuple[str, str]]:
    """(page, line) of each command of ours in fenced blocks. What follows `&&`, `|` or `;` is none of it."""
    for path in paths:
        for block in fences(path):
            for line in block.replace("\\\n", " ").splitlines():
                command = line.strip().removeprefix("$ ")
                if command.startswith(("idlectl ", "python3 run.py ")):
                    yield name_of(path), command


FRONT = [ENGLISH, CHINESE, ROOT / "CONTRIBUTING.md", ROOT / "packages/idle-accelerator/README.md"]
COMMANDS = sorted(set(command_lines(*FRONT)))


@pytest.fixture
def run_py(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program `run.py`, loaded and not started."""
    monkeypatch.syspath_prepend(str(ROOT))
    spec = importlib.util.spec_from_file_location("run_py", ROOT / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse_idlectl(words: Sequence[str]) -> None:
    """Parses a command line as `idlectl` does, values included, and runs nothing. Raises typer.TyperException."""
    group = typer.main.get_command(app)
    with group.make_context("idlectl", [words[0]], resilient_parsing=True) as context:
        command = group.get_command(context, words[0])  # pyright: ignore[reportAttributeAccessIssue]
        assert command is not None, f"idlectl has no command {words[0]!r}"
        command.make_context(words[0], list(words[1:]), parent=context)


def check_command(line: str, run_py: ModuleType) -> None:
    """Raises AssertionError or typer.TyperException where the line would be refused."""
    words = shlex.split(line, comments=True)
    if words[0] == "idlectl":
        parse_idlectl(words[1:])
        return
    name, arguments = words[2], words[3:]
    assert name in run_py.COMMANDS, f"run.py has no command {name!r}"
    if name == "idlectl":
        parse_idlectl(arguments)
    elif name in ("up", "agent"):
        parse_idlectl([name, *arguments])
    elif name == "bench" and arguments:
        assert arguments[0] in importlib.import_module("bootstrap.benches").known()
        source = (ROOT / "bench" / f"{arguments[0]}.py").read_text(encoding="utf-8")
        assert [flag for flag in arguments[1:] if flag.startswith("-") and f'"{flag}"' not in source] == []
    else:
        described = re.findall(r"(?<![\w-])--?[a-z][a-z-]*", run_py.__doc__ or "")
        assert [flag for flag in arguments if flag.startswith("-") and flag not in described] == []


def test_the_pages_of_the_tree_are_found() -> None:
    found = {name_of(path) for path in pages()}
    assert {"README.md", "README.zh-CN.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"} <= found
    assert "packages/idle-sense/README.md" in found
    assert any(name.startswith("docs/adr/") for name in found)


@pytest.mark.parametrize("path", pages(), ids=name_of)
def test_every_link_and_image_of_a_page_leads_somewhere(path: Path) -> None:
    assert [fault for target in links(path) if (fault := fault_of(path, target))] == []


def test_a_link_that_leads_nowhere_is_noticed(tmp_path: Path) -> None:
    page = ROOT / "README.md"
    assert fault_of(page, "docs/no-such-page.md") == "docs/no-such-page.md: there is no such file"
    assert (
        fault_of(page, "README.md#no-such-heading") == "README.md#no-such-heading: there is no such heading"
    )
    assert fault_of(page, "../elsewhere.md") == "../elsewhere.md: leaves the tree"
    assert fault_of(page, "README.md#how-it-works") is None
    sample = tmp_path / "sample.md"
    sample.write_text(
        '[a](b.md) ![c](d.svg) [![e](f.svg)](g.md) <img src="h.png"> `[i](j.md)` [k](https://l)\n'
    )
    assert set(links(sample)) >= {"b.md", "d.svg", "g.md", "h.png"}
    assert not {"j.md", "https://l"} & set(links(sample))


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_every_command_shown_is_one_that_the_programs_take(page: str, line: str, run_py: ModuleType) -> None:
    del page  # it stands in the test's name
    check_command(line, run_py)


@pytest.mark.parametrize(
    "line",
    [
        "idlectl sumbit -- true",
        "idlectl jobs --colour",
        "idlectl lend --for soon --loud",
        "idlectl submit --array many -- true",
        "idlectl cancel",
        "python3 run.py upp",
        "python3 run.py up --prot 8000",
        "python3 run.py idlectl logs",
        "python3 run.py test --quick",
        "python3 run.py bench no_such_bench",
        "python3 run.py bench throughput --no-such-flag",
    ],
)
def test_a_command_that_would_be_refused_is_noticed(line: str, run_py: ModuleType) -> None:
    with pytest.raises((AssertionError, typer.TyperException)):
        check_command(line, run_py)


def test_the_readme_shows_how_to_begin_and_how_to_join() -> None:
    shown = [line for page, line in command_lines(ENGLISH) if page == "README.md"]
    assert shown[0] == "python3 run.py up"
    assert any(line.startswith("python3 run.py agent --scheduler ") for line in shown)
    used = {shlex.split(line)[1] for line in shown if line.startswith("idlectl ")}
    assert used >= {
        "submit",
        "jobs",
        "job",
        "logs",
        "result",
        "cancel",
        "nodes",
        "doctor",
        "lend",
        "pause",
        "resume",
    }


def test_both_readmes_show_the_same_blocks() -> None:
    assert fences(ENGLISH) != []
    assert fences(CHINESE) == fences(ENGLISH)


def test_both_readmes_lead_to_the_same_places_in_the_same_order() -> None:
    other = {"README.md", "README.zh-CN.md"}
    assert [target for target in links(CHINESE) if target not in other] == [
        target for target in links(ENGLISH) if target not in other
    ]
    levels = [
        re.findall(r"^#+", FENCE.sub("", path.read_text(encoding="utf-8")), flags=re.MULTILINE)
        for path in (ENGLISH, CHINESE)
    ]
    assert levels[0] == levels[1]


@pytest.mark.parametrize("path", [ENGLISH, CHINESE], ids=name_of)
def test_the_picture_says_in_words_what_it_shows(path: Path) -> None:
    images = [found for found in LINK.finditer(prose(path)) if found["image"]]
    assert images
    assert all(len(found["text"]) > 20 for found in images)


def test_what_the_python_examples_import_is_there() -> None:
    blocks = [block for path in (ENGLISH, *FRONT[3:]) for block in fences(path, "python")]
    names = [
        alias.name
        for block in blocks
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.ImportFrom) and node.module == "idle_accelerator"
        for alias in node.names
    ]
    assert names
    assert [name for name in names if not hasattr(idle_accelerator, name)] == []


def test_the_peers_that_the_readmes_name_are_those_of_the_bench() -> None:
    shared = {"__init__", "services", "idle_accelerator"}
    peers = {path.stem for path in (ROOT / "bench" / "peers").glob("*.py")} - shared
    for path in (ENGLISH, CHINESE):
        text = path.read_text(encoding="utf-8").lower()
        assert [peer for peer in peers if peer not in text] == []


def test_contributing_shows_the_layers_that_are_enforced() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = next(c for c in settings["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    enforced = [
        layer.replace("idle_accelerator.", "") for layer in contract["layers"] if not layer.startswith("(")
    ]
    shown = [re.split(r"\s+>\s+", block.strip()) for block in fences(ROOT / "CONTRIBUTING.md", "text")]
    assert enforced in shown


def test_the_lock_files_that_pages_name_exist() -> None:
    named = {
        name
        for path in pages()
        for name in re.findall(r"`((?:bench/)?requirements[\w.-]*)`", path.read_text(encoding="utf-8"))
    }
    assert len(named) >= 3
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
