"""Jobs that name hosts, on an agent whose owner allows some: the whole path, with the real programs."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from agent_process import AgentProcess, until
from conftest import SchedulerProcess
from network_sites import Site, site
from sandbox_guests import bubblewrap

from idle_accelerator import Client
from idle_accelerator.errors import RemoteException

WAIT_S = 120.0
SANDBOXED = (
    "--policy",
    "server",
    "--lend-for",
    "1h",
    "--cpus",
    "2",
    "--grace",
    "0",
    "--sandbox",
    "bubblewrap",
)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    with site(folder) as made:
        (made.folder / "word.txt").write_text("hello over TLS")
        yield made


@pytest.fixture
def client(
    page: Site, scheduler_process: SchedulerProcess, start_agent: Callable[..., AgentProcess]
) -> Iterator[Client]:
    bubblewrap()
    start_agent(scheduler_process.url, *SANDBOXED, "--network", "proxy", "--allow-host", page.host)
    with Client(scheduler_process.url) as opened:
        yield opened


def fetch(url: str, certificate: str) -> str:
    import ssl
    import urllib.request

    context = ssl.create_default_context(cadata=certificate)
    with urllib.request.urlopen(url, context=context, timeout=60) as answer:
        return answer.read().decode()


def test_functions_and_commands_reach_what_job_and_owner_name_and_a_failure_says_what_was_refused(
    client: Client, page: Site
) -> None:
    certificate = page.certificate.read_text()
    url = f"{page.url}/word.txt"
    (node,) = client.nodes()
    assert (node.facts.network.kind, node.facts.network.hosts) == ("proxy", (page.host,))
    assert node.facts.isolation is not None
    assert page.host in node.facts.isolation.net

    got = client.submit_function(fetch, url, certificate, options={"network": [page.host]}).result(
        timeout=WAIT_S
    )
    assert got == "hello over TLS"

    elsewhere = "https://example.org/word.txt"
    refused = client.submit_function(fetch, elsewhere, certificate, options={"network": [page.host]})
    with pytest.raises(RemoteException, match="403"):
        refused.result(timeout=WAIT_S)
    (told,) = refused.tasks().tasks
    assert told.reason is not None
    assert [cause.code for cause in told.reason.because] == ["network.refused"]
    assert "example.org:443 was refused" in told.reason.sentence

    without = client.submit_function(fetch, url, certificate)
    with pytest.raises(RemoteException, match="URLError"):
        without.result(timeout=WAIT_S)


def test_a_job_that_names_more_than_is_allowed_waits_and_is_told_for_what(client: Client, page: Site) -> None:
    named = client.submit(["true"], network=[page.host, "example.org"])
    opened = client.submit(["true"], network="open")

    def sentences(job_id: str) -> str:
        return " ".join(item.sentence for item in client.job(job_id).detail().view.waiting)

    until(
        lambda: "needs example.org, which its owner does not allow" in sentences(named.id), what="it is told"
    )
    until(lambda: "needs an open network" in sentences(opened.id), what="it is told")
    named.cancel()
    opened.cancel()
