"""The real logind, where one is installed and this user may start it in a namespace of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("logind is Linux's", allow_module_level=True)

STORY = Path(__file__).parents[1] / "real_logind.py"


@pytest.mark.parametrize("program", ["/lib/systemd/systemd-logind", "/lib/elogind/elogind"])
def test_logins_locks_and_inhibitors_of_a_real_logind_are_seen(tmp_path: Path, program: str) -> None:
    if os.geteuid() != 0 or not Path(program).exists() or shutil.which("dbus-daemon") is None:
        pytest.skip(f"it needs root, dbus-daemon and {program}")
    probe = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/run"], capture_output=True, check=False
    )
    if probe.returncode != 0:
        pytest.skip("mount namespaces are not allowed here")
    told = subprocess.run(
        ["unshare", "--mount", sys.executable, str(STORY), str(tmp_path), program],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert told.stdout, told.stderr[-3000:]
    story = json.loads(told.stdout)
    nobody, unlocked, locked, again, two, remote = story["seen"]
    (desktop,) = unlocked
    assert nobody == {}
    assert (unlocked, locked, again) == ({desktop: False}, {desktop: True}, {desktop: False})
    (far,) = remote
    assert far.endswith("of root from far.example")
    assert two == {desktop: False, far: None}
    assert story["inhibitors"] == ["My Player é"]
