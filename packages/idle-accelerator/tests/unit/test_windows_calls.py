"""What the agent hands to Windows: an environment as it must lie in memory. The layouts are held against headers by a bench."""

import ctypes

import pytest

from idle_accelerator.agent.host import windows_calls as calls


def test_an_environment_is_sorted_ended_and_keeps_its_values() -> None:
    block = calls.environment_block({"Path": "C:\\x", "A": "", "b": "ü=1"})
    assert "".join(block) == "A=\0b=ü=1\0Path=C:\\x\0\0"


def test_an_empty_environment_has_two_ends() -> None:
    assert "".join(calls.environment_block({})) == "\0\0"


@pytest.mark.parametrize("env", [{"A=B": "1"}, {"": "1"}, {"A": "1\0B=2"}, {"A\0": "1"}])
def test_a_variable_that_would_become_another_is_refused(env: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="variable"):
        calls.environment_block(env)


@pytest.mark.skipif(ctypes.sizeof(ctypes.c_void_p) != 8, reason="the sizes of 64-bit Windows")
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("SECURITY_CAPABILITIES", 24),
        ("STARTUPINFOW", 104),
        ("STARTUPINFOEXW", 112),
        ("EXPLICIT_ACCESS_W", 48),
    ],
)
def test_structures_have_the_sizes_of_windows(name: str, size: int) -> None:
    assert ctypes.sizeof(calls.STRUCTURES[name]) == size
