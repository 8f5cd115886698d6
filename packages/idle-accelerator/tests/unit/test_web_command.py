"""How the page is started."""

import subprocess
import sys

import pytest

from idle_accelerator.errors import InvalidInput
from idle_accelerator.web import command


def test_the_page_starts_with_this_interpreter_and_sends_nothing_home():
    argv = command(port=8501)
    assert argv[:4] == [sys.executable, "-m", "streamlit", "run"]
    assert {
        "--server.port=8501",
        "--server.address=127.0.0.1",
        "--server.headless=true",
        "--browser.gatherUsageStats=false",
        "--server.showEmailPrompt=false",
        "--client.showErrorDetails=none",
    } <= set(argv)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.1.2", "example.org", ""])
def test_beyond_loopback_it_is_refused_with_a_way_that_works(address):
    with pytest.raises(InvalidInput, match="ssh -L 8501") as refused:
        command(port=8501, address=address)
    assert refused.value.field == "address"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "localhost", "127.0.0.2"])
def test_every_loopback_address_serves(address):
    assert f"--server.address={address}" in command(port=1, address=address)


def test_asking_for_the_command_loads_nothing_heavy():
    code = (
        "import sys, idle_accelerator.web; "
        "print([name for name in ('streamlit', 'pydantic', 'pandas', 'httpx2', 'idle_accelerator.sdk') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
