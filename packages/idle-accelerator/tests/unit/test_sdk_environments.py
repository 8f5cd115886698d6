"""From what a submitter wants to what travels; and where uv is told to look for packages."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wheel_index import uv_or_skip

from idle_accelerator.cli.environments import wanted_environment
from idle_accelerator.errors import IdleError, InvalidInput, TooLarge
from idle_accelerator.sdk import environments
from idle_accelerator.sdk.environments import environment_for, read_requirements, script_needs
from idle_accelerator.sdk.indexes import index_environment, redact
from idle_accelerator.wire.environments import Environment

A = "a" * 64
PINNED = f"six==1.0 --hash=sha256:{A}"


def wanted(**options: Any) -> Environment | None:
    plain: dict[str, Any] = {
        "requirements": None,
        "lock": None,
        "python": None,
        "function_python": None,
        "own_pool": False,
    }
    return environment_for(**{**plain, **options})


@pytest.fixture
def no_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "find_uv", lambda: None)


@pytest.fixture
def lock(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_nothing_wanted_is_no_environment() -> None:
    assert wanted() is None
    assert wanted(requirements=[]) is None


def test_what_is_pinned_already_travels_as_it_is(no_uv: None) -> None:
    found = wanted(requirements=[PINNED], python="3.12")
    assert found == Environment(requirements=f"{PINNED}\n", python="3.12")


def test_without_uv_names_go_to_ones_own_pool_alone(no_uv: None) -> None:
    own = wanted(requirements=["six>=1"], own_pool=True)
    assert own is not None
    assert own.kind == "unlocked"
    with pytest.raises(InvalidInput, match="no uv here") as caught:
        wanted(requirements=["six>=1"])
    assert "pip install uv" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"requirements": "six"}, "requirements"),
        ({"requirements": ["six", "-r other"]}, "requirements[1]"),
        ({"requirements": ["six", "./here"]}, "requirements[1]"),
        ({"requirements": ["six"], "lock": "x"}, "lock"),
        ({"requirements": ["six"], "python": "3"}, "python"),
        ({"requirements": ["six"], "python": "3.12", "function_python": "3.11"}, "python"),
        ({"python": "3.12"}, "python"),
        ({"lock": "/nonexistent/lock.txt"}, "lock"),
    ],
)
def test_mistakes_name_their_argument_and_what_to_do(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        wanted(**options)
    assert caught.value.field == field
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("lock.txt", "six==1.0", "no exact version with hashes"),
        ("lock.txt", f"{PINNED}\nidna>=3 --hash=sha256:{A}", "idna"),
        ("lock.txt", "-r x", "line 1"),
        ("uv.lock", "version = 1", "more than packages"),
        ("pylock.toml", "x = [", "no valid TOML"),
        ("pylock.toml", "x = 1", "PEP 751"),
        (
            "pylock.toml",
            "lock-version = '1.0'\n[[packages]]\nname = 'x'\nversion = '1'\n[packages.vcs]\ntype = 'git'",
            "elsewhere",
        ),
        (
            "pylock.toml",
            "lock-version = '1.0'\n[[packages]]\nname = 'x'\n[packages.directory]\npath = '.'",
            "elsewhere",
        ),
        (
            "pylock.toml",
            "lock-version = '1.0'\n[[packages]]\nname = 'x'\nversion = '1'\n[packages.sdist]\nname = 'x.tar.gz'",
            "no wheel",
        ),
        (
            "pylock.toml",
            "lock-version = '1.0'\n[[packages]]\nname = 'x'\nversion = '1'\n[[packages.wheels]]\nname = 'x.whl'",
            "no wheel",
        ),
        (
            "pylock.toml",
            "lock-version = '1.0'\n[[packages]]\nname = 'x\\ny'\nversion = '1'\n[[packages.wheels]]\nhashes = {sha256 = 'q'}",
            "no hash",
        ),
        ("pylock.toml", "lock-version = '1.0'\npackages = [3]", "PEP 751"),
        (
            "pylock.toml",
            "lock-version = '1.0'\n[[packages]]\nname = 'x'\nversion = '1'\nwheels = [4]",
            "no wheel",
        ),
    ],
)
def test_locks_that_will_not_do_are_refused_with_the_reason(
    lock: Callable[[str, str], Path], name: str, text: str, said: str
) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        wanted(lock=lock(name, text))
    assert caught.value.field == "lock"


def test_a_lock_of_pep_751_says_the_same_as_one_of_pip(lock: Callable[[str, str], Path]) -> None:
    written = lock(
        "pylock.toml",
        f"""
lock-version = "1.0"
created-by = "tests"
[[packages]]
name = "six"
version = "1.0"
marker = "python_version >= '3.11'"
index = "https://example.org/simple"
sdist = {{ name = "six-1.0.tar.gz", hashes = {{ sha256 = "{"c" * 64}" }} }}
wheels = [
  {{ name = "six-1.0-py3-none-any.whl", url = "https://example.org/six.whl", hashes = {{ sha256 = "{"b" * 64}" }} }},
  {{ name = "six-1.0-cp311-none-any.whl", hashes = {{ sha256 = "{A}" }} }},
]
[[packages]]
name = "idna"
version = "3.10"
wheels = [{{ hashes = {{ sha256 = "{A}" }} }}]
""",
    )
    found = wanted(lock=written)
    assert found is not None
    assert found.requirements == (
        f"idna==3.10 --hash=sha256:{A}\n"
        f"six==1.0 ; python_version >= '3.11' --hash=sha256:{A} --hash=sha256:{'b' * 64}\n"
    )


def test_a_lock_that_is_too_large_is_refused_with_its_size(lock: Callable[[str, str], Path]) -> None:
    many = "\n".join(f"p{number}==1 --hash=sha256:{number:064x} --hash=sha256:{A}" for number in range(1900))
    with pytest.raises(TooLarge, match="are taken"):
        wanted(lock=lock("lock.txt", many))


def test_a_requirements_file_is_refused_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text("six\n-e .\n")
    with pytest.raises(InvalidInput, match=r"requirements\.txt, line 2"):
        read_requirements(path, field="--requirements")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="UTF-8"):
        read_requirements(path, field="--requirements")


def script(folder: Path, *block: str, name: str = "job.py") -> Path:
    path = folder / name
    lines = [
        "#!/usr/bin/env python3",
        "# /// script",
        *(f"# {line}" if line else "#" for line in block),
        "# ///",
        "import six",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("wanted_python", "python"),
    [
        (None, None),
        (">=3.11", None),
        (">=3.8", None),
        (">=3", None),
        (">=3.12", "3.13"),
        (">=3.14", "3.14"),
        ("<3.13", "3.11"),
        (">=3.12,<3.14", "3.13"),
        ("==3.12.*", "3.12"),
        ("~=3.12", "3.13"),
        (">=3.11.4", None),
        ("!=3.13", "3.11"),
    ],
)
def test_a_script_says_what_it_needs(tmp_path: Path, wanted_python: str | None, python: str | None) -> None:
    extra = () if wanted_python is None else (f'requires-python = "{wanted_python}"',)
    found = script_needs(script(tmp_path, *extra, "", 'dependencies = ["six", "idna>=3"]'), own_python="3.13")
    assert found is not None
    assert (found.requirements, found.python) == (("six", "idna>=3"), python)


@pytest.mark.parametrize(
    ("block", "said"),
    [
        (("dependencies = [",), "no TOML"),
        (("dependencies = 'six'",), "list of texts"),
        (("dependencies = [3]",), "list of texts"),
        (("requires-python = 3",), "no text"),
        (("requires-python = '<3.9'",), "leaves no Python"),
        (("requires-python = 'three'",), "leaves no Python"),
        (("dependencies = ['six']", "[tool.uv.sources]", "six = { path = '.' }"), "sources"),
        (("dependencies = ['six']", "[tool.uv]", "index-url = 'https://example.org'"), "index-url"),
    ],
)
def test_a_script_that_asks_for_what_nodes_cannot_do_is_refused(
    tmp_path: Path, block: tuple[str, ...], said: str
) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        script_needs(script(tmp_path, *block), own_python="3.11")
    assert caught.value.field is not None
    assert caught.value.field.endswith("job.py")


def test_two_blocks_are_refused_and_none_is_none(tmp_path: Path) -> None:
    path = script(tmp_path, "dependencies = ['six']")
    path.write_text(path.read_text() * 2)
    with pytest.raises(InvalidInput, match="more than one"):
        script_needs(path, own_python="3.11")
    path.write_text("import six\n# /// other\n# x = 1\n# ///\n")
    assert script_needs(path, own_python="3.11") is None
    assert script_needs(script(tmp_path, "dependencies = []"), own_python="3.11") is None
    path.write_bytes(b"\xff")
    assert script_needs(path, own_python="3.11") is None


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["job.py", "--fast"], ["python", "job.py", "--fast"]),
        (["python3", "job.py"], ["python3", "job.py"]),
        (["python", "other.py", "job.py"], ["python", "other.py", "job.py"]),
    ],
)
def test_a_script_with_needs_is_run_by_the_python_that_has_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str], expected: list[str]
) -> None:
    path = script(tmp_path, "requires-python = '==3.12.*'", "dependencies = ['six']")
    found = wanted_environment(command, {"job.py": str(path)}, requirements=None, lock=None, python=None)
    assert found.command == expected
    assert found.options == {"requirements": ["six"], "python": "3.12"}
    assert "Runs it by Python 3.12 with six, as job.py says it needs" in capsys.readouterr().err


def test_flags_go_before_what_a_script_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = script(tmp_path, "dependencies = ['six']")
    listed = tmp_path / "requirements.txt"
    listed.write_text("idna\n")
    found = wanted_environment(
        ["job.py"], {"job.py": str(path)}, requirements=listed, lock=None, python="3.11"
    )
    assert found.options == {"requirements": ["idna"], "python": "3.11"}
    assert capsys.readouterr().err == ""
    with pytest.raises(InvalidInput, match="--requirements"):
        wanted_environment(["x"], {}, requirements=listed, lock=listed, python=None)


def test_a_script_without_needs_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "job.py"
    path.write_text("print()\n")
    found = wanted_environment(["job.py"], {"job.py": str(path)}, requirements=None, lock=None, python=None)
    assert (found.command, found.options) == (["job.py"], {})


# Where from.


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    (tmp_path / ".config/uv").mkdir(parents=True)
    (tmp_path / ".config/pip").mkdir(parents=True)
    return tmp_path


def where(home: Path, **inherited: str) -> dict[str, str]:
    found = index_environment({"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"), **inherited})
    return {name: value for name, value in found.items() if name != "HOME"}


posix_only = pytest.mark.skipif(sys.platform == "win32", reason="speaks of ~/.config")


@posix_only
def test_of_uvs_settings_only_those_are_read_that_say_where_from(home: Path) -> None:
    (home / ".config/uv/uv.toml").write_text("""
cache-dir = "/elsewhere"
no-binary-package = ["six"]
python-downloads = "automatic"
native-tls = true
[[index]]
name = "mine"
url = "https://mirror/simple"
default = true
[[index]]
url = "https://second/simple"
[[index]]
name = "torch"
url = "https://torch/simple"
explicit = true
[pip]
find-links = ["https://links", "/nonexistent"]
""")
    assert where(home, SECRET="x", IDLE_KEY="y") == {
        "UV_DEFAULT_INDEX": "mine=https://mirror/simple",
        "UV_INDEX": "https://second/simple",
        "UV_FIND_LINKS": "https://links",
        "UV_NATIVE_TLS": "true",
    }


@posix_only
def test_variables_go_before_files_and_uv_before_pip(home: Path) -> None:
    (home / ".config/uv/uv.toml").write_text(
        'index-url = "https://file/simple"\nextra-index-url = ["https://more"]\n'
    )
    (home / ".config/pip/pip.conf").write_text("[global]\nindex-url = https://pip/simple\n")
    assert where(home, UV_DEFAULT_INDEX="https://variable/simple", UV_INDEX_MINE_PASSWORD="p") == {
        "UV_DEFAULT_INDEX": "https://variable/simple",
        "UV_INDEX": "https://more",
        "UV_INDEX_MINE_PASSWORD": "p",
    }


@posix_only
def test_where_uv_has_no_settings_those_of_pip_count(home: Path) -> None:
    certificates = home / "ca.pem"
    certificates.write_text("")
    (home / ".config/pip/pip.conf").write_text(
        f"[global]\nindex-url = https://pip/simple\nextra-index-url =\n  https://a\n  https://b\n"
        f"cert = {certificates}\nfind-links = /nonexistent {home}\n[install]\ntrusted-host = a b\n"
    )
    expected = {
        "UV_DEFAULT_INDEX": "https://pip/simple",
        "UV_INDEX": "https://a https://b",
        "UV_FIND_LINKS": str(home),
        "UV_INSECURE_HOST": "a b",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "SSL_CERT_FILE": str(certificates),
    }
    found = where(home)
    assert {name: found[name] for name in expected} == expected
    assert where(home, PIP_INDEX_URL="https://nearer")["UV_DEFAULT_INDEX"] == "https://nearer"


@posix_only
def test_settings_that_cannot_be_read_are_passed_over(home: Path) -> None:
    (home / ".config/uv/uv.toml").write_text("[[[")
    (home / ".config/pip/pip.conf").write_text("no section")
    assert "UV_DEFAULT_INDEX" not in where(home)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("https://me:secret@host/simple", "https://***@host/simple"),
        ("`http://token@host:8/x` failed", "`http://***@host:8/x` failed"),
        ("see https://host/x?token=secret&a=b.", "see https://host/x?***"),
        ("six==1.0", "six==1.0"),
        ("the password is hunter22", "the password is ***"),
    ],
)
def test_passwords_in_addresses_are_not_shown(said: str, shown: str) -> None:
    assert redact(said, {"UV_INDEX_X_PASSWORD": "hunter22", "PATH": "host"}) == shown


def test_what_uv_says_is_told_without_the_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://me:hunter2@127.0.0.1:9/simple/")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    uv_or_skip()
    with pytest.raises(IdleError) as caught:
        wanted(requirements=["six"])
    assert "127.0.0.1:9" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_uv_that_does_not_answer_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_words: object, **_options: object) -> None:
        raise subprocess.TimeoutExpired("uv", 1)

    monkeypatch.setattr(environments, "find_uv", lambda: "uv")
    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(InvalidInput, match="could not be asked"):
        wanted(requirements=["six"])
