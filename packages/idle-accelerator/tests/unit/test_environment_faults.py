"""Whose fault it is that there is no environment, and what is told of it."""

import pytest

from idle_accelerator.agent.environments.faults import EnvironmentRefused, EnvironmentTrouble, fault_of

PLACE = "/data/environments/making/0123"


def told(
    said: str, *, exit_code: int | None = 1, signal: int | None = None
) -> EnvironmentRefused | EnvironmentTrouble:
    index = {"UV_INDEX_MINE_PASSWORD": "hunter22"}
    return fault_of(said, exit_code=exit_code, signal=signal, index=index, folder=PLACE)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("error: Because six was not found in the package registry", "task.environment_refused"),
        (
            "  \u00d7 No solution found when resolving dependencies:\n  \u2570\u2500\u25b6 Because a==1 needs b",
            "task.environment_refused",
        ),
        ("error: Failed to fetch: `x`\n  Caused by: Hash mismatch for `six`", "task.environment_refused"),
        ("error: something that nobody has seen yet", "task.environment_refused"),
        ("", "task.environment_refused"),
        ("error: Request failed after 3 retries", "agent.environment_failed"),
        ("error: Failed to fetch: `https://host/six`\n  Caused by: dns error", "agent.environment_failed"),
        (
            "error: HTTP status server error (503 Service Unavailable) for url (https://host)",
            "agent.environment_failed",
        ),
        ("error: HTTP status client error (401 Unauthorized)", "agent.environment_failed"),
        ("error: failed to write: Permission denied (os error 13)", "agent.environment_failed"),
        ("error: failed to write: No space left on device (os error 28)", "agent.disk_full"),
        ("error: failed to write: Disk quota exceeded (os error 122)", "agent.disk_full"),
    ],
)
def test_whose_fault_it_is_follows_from_what_uv_says(said: str, code: str) -> None:
    assert told(said).why.code == code


def test_a_uv_that_was_killed_is_the_machines_trouble() -> None:
    fault = told("error: Hash mismatch", exit_code=None, signal=9)
    assert fault.why.code == "agent.environment_failed"
    assert "signal 9" in fault.message


def test_it_is_told_in_one_line_without_passwords_places_and_warnings() -> None:
    said = (
        f"warning: of no matter\nUsing CPython\nerror: Failed to fetch: `https://me:secret@host/x?token=t0ken`\n"
        f"  Caused by: {PLACE}/environment is gone; hunter22\x1b[0m\n"
    )
    text = told(said).message
    assert text == ("Failed to fetch: `https://***@host/x?***` Caused by: /environment is gone; *** [0m")


def test_it_is_told_in_so_many_words_as_a_reason_may_have() -> None:
    assert len(told("error: " + "x" * 100_000).message) <= 500
