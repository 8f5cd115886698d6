"""Who may speak to the scheduler."""

import stat
import sys
from pathlib import Path

import pytest

from idle_accelerator.errors import Forbidden, Unauthorized
from idle_accelerator.scheduler.auth import (
    Gate,
    KnownTokens,
    bearer,
    is_loopback,
    load_or_make_key,
    new_secret,
    token_hash,
)


def test_the_key_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "scheduler.key"
    made = load_or_make_key(path)
    assert load_or_make_key(path) == made
    assert made.startswith("idle_")
    assert len(made) > 40
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", ["", "\n", "   "])
def test_an_empty_key_file_never_opens_the_door(tmp_path: Path, content: str) -> None:
    path = tmp_path / "scheduler.key"
    path.write_text(content, encoding="utf-8")
    assert load_or_make_key(path).startswith("idle_")


def test_a_leftover_of_a_crash_does_not_keep_its_permissions(tmp_path: Path) -> None:
    leftover = tmp_path / "scheduler.tmp"
    leftover.write_text("old", encoding="utf-8")
    leftover.chmod(0o666)
    load_or_make_key(tmp_path / "scheduler.key")
    if sys.platform != "win32":
        assert stat.S_IMODE((tmp_path / "scheduler.key").stat().st_mode) == 0o600


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]"])
def test_loopback_is_known_by_all_of_its_names(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "::", "192.168.0.1", "example.org", "127.0.0.1.example.org", "localhost."]
)
def test_nothing_else_is_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]:8000", "pool.lan:8000"]
)
def test_requests_to_names_of_ours_pass(host: str) -> None:
    Gate(key_hash=None, allowed_hosts=("Pool.lan",)).check_origin({"host": host})


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "[",
        "0.0.0.0",
    ],
)
def test_a_name_that_was_rebound_to_us_does_not(host: str) -> None:
    with pytest.raises(Forbidden) as caught:
        Gate(key_hash=None).check_origin({"host": host})
    assert caught.value.field == "Host"


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example", "file://", ""]
)
def test_a_page_of_another_site_does_not(origin: str) -> None:
    with pytest.raises(Forbidden) as caught:
        Gate(key_hash=None).check_origin({"host": "127.0.0.1:8000", "origin": origin})
    assert caught.value.field == "Origin"


def test_with_a_key_the_key_decides_alone() -> None:
    key = new_secret()
    gate = Gate(key_hash=token_hash(key))
    gate.check_origin({"host": "pool.example.org"})
    gate.check_user({"authorization": f"Bearer {key}"})
    gate.check_user({"authorization": f"bearer  {key}"})
    for wrong in (
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": f"Basic {key}"},
        {"authorization": f"Bearer {key}x"},
    ):
        with pytest.raises(Unauthorized) as caught:
            gate.check_user(wrong)
        assert caught.value.hint


def test_a_bearer_is_read_whatever_the_case_and_space() -> None:
    assert bearer({"authorization": "BEARER  abc "}) == "abc"
    assert bearer({"authorization": "Bearer "}) is None
    assert bearer({}) is None


def test_a_tokens_node_is_believed_for_a_while_and_not_after_its_removal() -> None:
    tokens = KnownTokens()
    tokens.keep("a", "n1", now=100.0)
    tokens.keep("b", "n2", now=100.0)
    assert tokens.get("a", now=100.0 + KnownTokens.KNOWN_FOR_S - 1) == "n1"
    assert tokens.get("a", now=100.0 + KnownTokens.KNOWN_FOR_S) is None
    tokens.forget("n2")
    assert tokens.get("b", now=101.0) is None
    assert tokens.get("unknown", now=101.0) is None
