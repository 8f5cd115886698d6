"""Which scheduler is meant, who said so, and that a key goes nowhere it was not written down for."""

from pathlib import Path

import pytest

from idle_accelerator import settings
from idle_accelerator.errors import InvalidInput


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("IDLE_SCHEDULER", "IDLE_KEY", "IDLE_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("IDLE_CONFIG", str(tmp_path / "config.toml"))


def write(text: str) -> None:
    settings.config_file().write_text(text, encoding="utf-8")


def test_without_a_word_it_is_this_machine() -> None:
    found = settings.connection()
    assert (found.url, found.key, found.origin) == ("http://127.0.0.1:8000", None, "default")


def test_flags_win_over_the_environment_and_it_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    write('[client]\nscheduler = "http://file:1"\nkey = "of-file"\n')
    found = settings.connection()
    assert (found.url, found.key, found.origin) == ("http://file:1", "of-file", str(settings.config_file()))
    monkeypatch.setenv("IDLE_SCHEDULER", "http://env:2/")
    monkeypatch.setenv("IDLE_KEY", "of-env")
    found = settings.connection()
    assert (found.url, found.key, found.origin) == ("http://env:2", "of-env", "IDLE_SCHEDULER")
    found = settings.connection("https://flag:3", "of-flag")
    assert (found.url, found.key, found.origin) == ("https://flag:3", "of-flag", "--scheduler")


def test_the_files_key_never_goes_to_another_scheduler() -> None:
    write('[client]\nscheduler = "http://file:1"\nkey = "of-file"\n')
    assert settings.connection("http://elsewhere:1").key is None
    assert settings.connection("http://file:1/").key == "of-file"


def test_a_key_is_not_shown_by_accident() -> None:
    assert "secret" not in repr(settings.connection("http://a:1", "secret"))


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://a",
        "http://",
        "http://a:99999",
        "http://a:0",
        "http://user:pw@a",
        "http://a/?x=1",
        "http://a b",
        "http://a\nb",
        "http://[::1",
        "8000",
    ],
)
def test_nonsense_is_refused_with_where_it_came_from(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("IDLE_SCHEDULER", url)
    with pytest.raises(InvalidInput) as refused:
        settings.connection()
    assert refused.value.field == "IDLE_SCHEDULER"
    assert refused.value.hint


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel"])
def test_a_key_that_could_break_a_header_is_refused(key: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        settings.connection("http://a", key)
    assert refused.value.field == "--key"


@pytest.mark.parametrize(
    "text",
    ["[client", "client = 1", "[client]\nurl = 'x'", "[client]\nkey = 3", '[client]\nscheduler = "nonsense"'],
)
def test_a_broken_file_is_named(text: str) -> None:
    write(text)
    with pytest.raises(InvalidInput) as refused:
        settings.connection()
    assert refused.value.field == str(settings.config_file())


def test_other_tables_of_the_file_are_left_alone() -> None:
    write('[agent]\npolicy = "lab"\n')
    assert settings.connection().origin == "default"


def test_the_data_directory_can_be_said_by_a_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert settings.data_dir().name == "idle-accelerator"
    monkeypatch.setenv("IDLE_DATA_DIR", str(tmp_path))
    assert settings.data_dir() == tmp_path
