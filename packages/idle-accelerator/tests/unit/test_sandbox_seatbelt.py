"""The profile for macOS's sandbox, read as its own language reads it: what it allows, and that no path can say more."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from idle_accelerator.agent.sandbox import SpawnFailed
from idle_accelerator.agent.sandbox.seatbelt_profile import profile, quoted

Form = str | list["Form"]
HOME = Path("/Users/anna")
DATA = HOME / "Library/Application Support/idle-accelerator"
WORKSPACE = DATA / "work/j1.0.1"
PYTHON = Path("/Library/Frameworks/Python.framework/Versions/3.13")
_WORD = re.compile(r'\s*(?:(\()|(\))|"((?:[^"\\]|\\.)*)"|([^\s()"]+))', re.DOTALL)


def read(text: str) -> list[Form]:
    """Its expressions. Strings keep a mark, so that they are told from words."""
    stack: list[list[Form]] = [[]]
    place = 0
    while text[place:].strip():
        found = _WORD.match(text, place)
        assert found is not None, text[place : place + 40]
        place = found.end()
        opened, closed, string, word = found.groups()
        if opened:
            stack.append([])
        elif closed:
            form = stack.pop()
            stack[-1].append(form)
        else:
            stack[-1].append(word if string is None else "$" + re.sub(r"\\(.)", r"\1", string))
    assert len(stack) == 1, "parentheses match"
    return stack[0]


def made(**changes: object) -> list[Form]:
    return read(profile(**{"workspace": WORKSPACE, "shown": (PYTHON,), "hidden": DATA, **changes}))  # pyright: ignore[reportArgumentType]


def rules(forms: list[Form]) -> Iterator[tuple[str, list[str], list[tuple[str, str]]]]:
    """(allow or deny, operations, (kind, value) of what it is about) of each."""
    for form in forms:
        assert isinstance(form, list)
        verdict, *rest = form
        assert isinstance(verdict, str)
        about = [(str(item[0]), str(item[1])) for item in rest if isinstance(item, list)]
        yield verdict, [item for item in rest if isinstance(item, str)], about


def allows(forms: list[Form], operation: str, path: str) -> bool:
    """As the kernel decides on a path: the last rule that matches counts."""
    verdict = False
    for kind, operations, about in rules(forms):
        if kind not in ("allow", "deny"):
            continue
        named = any(
            item == operation or (item.endswith("*") and operation.startswith(item[:-1]))
            for item in operations
        )
        matches = any(
            (how == "literal" and value == "$" + path)
            or (how == "subpath" and Path(path).is_relative_to(value[1:]))
            for how, value in about
        )
        if "default" in operations or (named and matches):
            verdict = kind == "allow"
    return verdict


def test_what_is_lent_out_of_the_agents_folder_may_be_read_and_run_but_not_changed() -> None:
    lent = DATA / "environments" / "made" / "x"
    forms = made(lent=(lent,))
    for operation in ("file-read-data", "process-exec", "file-map-executable"):
        assert allows(forms, operation, f"{lent}/bin/python")
        assert not allows(made(), operation, f"{lent}/bin/python")
        assert not allows(forms, operation, f"{DATA}/identity.json")
    assert not allows(forms, "file-write-data", f"{lent}/bin/python")


def test_all_is_denied_before_anything_is_allowed() -> None:
    assert made()[:2] == [["version", "1"], ["deny", "default"]]


def test_nothing_is_allowed_without_saying_on_what_but_to_fork_and_semaphores() -> None:
    loose = [form for form in rules(made()) if form[0] == "allow" and not form[2]]
    assert loose == [("allow", ["process-fork"], []), ("allow", ["ipc-posix-sem"], [])]


@pytest.mark.parametrize(
    "word", ["network", "iokit", "appleevent", "job-creation", "lsopen", "mach-register", "nvram", "debug"]
)
def test_what_no_task_needs_is_not_in_it(word: str) -> None:
    for verdict, operations, _ in rules(made()):
        assert verdict == "deny" or not any(word in operation for operation in operations)


def test_no_service_but_that_for_names_of_users_can_be_asked() -> None:
    (asked,) = [about for _, operations, about in rules(made()) if "mach-lookup" in operations]
    assert asked == [("global-name", "$com.apple.system.opendirectoryd.libinfo")]


def test_signals_and_looks_at_processes_stay_within_the_sandbox() -> None:
    (about,) = [about for _, operations, about in rules(made()) if "signal" in operations]
    assert about == [("target", "same-sandbox")]
    names = [about for _, operations, about in rules(made()) if "sysctl-read" in operations]
    assert not [value for pairs in names for _, value in pairs if "proc." in value or "procargs" in value]


@pytest.mark.parametrize(
    "operation", ["file-read-data", "file-write-data", "process-exec", "file-map-executable"]
)
def test_the_workspace_is_the_guests_own(operation: str) -> None:
    assert allows(made(), operation, str(WORKSPACE))
    assert allows(made(), operation, f"{WORKSPACE}/.idle/tmp/x")


@pytest.mark.parametrize(
    "path",
    [
        f"{HOME}/.ssh/id_ed25519",
        f"{HOME}/Documents",
        str(HOME),
        f"{DATA}/identity.json",
        f"{DATA}/work/j2.0.1/input",
        f"{WORKSPACE}2/input",
        "/private/etc/passwd",
        "/private/etc/master.passwd",
        "/private/tmp/x",
        "/private/var/folders/x",
        "/Volumes/backup",
        "/dev/disk0",
        "/dev/ttys000",
        "/Applications/Mail.app/x",
        "/Library/Keychains/System.keychain",
    ],
)
def test_what_is_the_owners_is_neither_read_nor_written(path: str) -> None:
    for operation in ("file-read-data", "file-write-data", "file-write-create", "process-exec"):
        assert not allows(made(), operation, path)


@pytest.mark.parametrize(
    "path",
    ["/bin/sh", "/usr/bin/env", "/usr/lib/dyld", "/System/Library/Frameworks/x", f"{PYTHON}/bin/python3"],
)
def test_programs_and_libraries_of_the_system_are_read_and_run_and_not_written(path: str) -> None:
    assert allows(made(), "file-read-data", path)
    assert allows(made(), "process-exec", path)
    assert allows(made(), "file-map-executable", path)
    assert not allows(made(), "file-write-data", path)


@pytest.mark.parametrize("path", ["/usr/bin/sudo", "/usr/bin/crontab", "/usr/bin/at", "/bin/ps"])
def test_programs_that_act_as_root_are_not_run(path: str) -> None:
    assert not allows(made(), "process-exec", path)


def test_the_folders_above_can_be_passed_and_not_listed() -> None:
    for folder in (HOME, DATA, DATA / "work", Path("/private/var")):
        assert allows(made(), "file-read-metadata", str(folder))
        assert not allows(made(), "file-read-data", str(folder))


def test_a_data_directory_inside_of_what_is_shown_is_hidden_and_the_workspace_in_it_is_not() -> None:
    forms = made(shown=(HOME / "Library",), hidden=DATA)
    assert allows(forms, "file-read-data", f"{HOME}/Library/x")
    assert not allows(forms, "file-read-data", f"{DATA}/identity.json")
    assert not allows(forms, "file-read-metadata", f"{DATA}/identity.json")
    assert allows(forms, "file-read-data", f"{WORKSPACE}/input")
    assert allows(forms, "file-read-metadata", str(DATA))


def test_no_file_gets_the_rights_of_its_owner() -> None:
    assert ["deny", "file-write-setugid"] in made()


@pytest.mark.parametrize(
    "name", ['a") (allow default) ("', "back\\slash", '\\"', "(paren)", "; comment", "ümlaut"]
)
def test_a_hostile_path_stays_one_string(name: str) -> None:
    workspace = Path("/private/w") / name
    forms = made(workspace=workspace)
    assert ["allow", "default"] not in forms
    assert [form[:2] for form in forms] == [form[:2] for form in made()] or name == "ümlaut"
    assert allows(forms, "file-write-data", f"{workspace}/x")
    assert not allows(forms, "file-read-data", str(HOME))


@pytest.mark.parametrize("name", ["new\nline", "nul\0", "tab\t", "escape\x1b", "\udcff"])
def test_a_path_that_cannot_be_said_is_refused(name: str) -> None:
    with pytest.raises(SpawnFailed, match="cannot be named"):
        quoted(f"/w/{name}")
