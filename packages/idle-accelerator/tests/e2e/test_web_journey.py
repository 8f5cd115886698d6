"""The page in a real browser, over a real scheduler; a scripted agent does the work."""

import contextlib
import http.client
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from checkpoint_builders import Saver
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from pool_builders import (
    GIB,
    FakeAgent,
    UserClient,
    command_spec,
    digest_of,
    node_facts,
    offer,
    report,
    resources,
    succeeded,
)

from idle_accelerator.web import command
from idle_accelerator.wire.exchange import AttemptReport, LogChunk
from idle_accelerator.wire.ids import AttemptRef
from idle_accelerator.wire.jobs import Artifact
from idle_accelerator.wire.reasons import reason
from idle_accelerator.wire.states import AttemptState

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_PATIENCE_MS = 60_000
expect.set_options(timeout=_PATIENCE_MS)
_START_S = 90.0
_HOSTILE = "[x](javascript:alert(1)) $x^2$ :red[r] <img src=x onerror=alert(1)> www.example.com 🚀"

pytestmark = pytest.mark.skipif(
    _CHROMIUM is None, reason="no chromium is installed; on Debian: apt-get install -y chromium"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, tmp_path: Path, free_port: int) -> Iterator[Callable[..., Page]]:
    """Starts the page's process for a scheduler, and opens it in the browser. It fails the test when scripts fail in it."""
    processes: list[subprocess.Popen[bytes]] = []
    broken: list[str] = []

    def start(url: str, key: str | None = None, path: str = "/?lang=en") -> Page:
        log_path = tmp_path / "page.log"
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("IDLE_", "STREAMLIT_"))
        }
        own = {"IDLE_CONFIG": str(tmp_path / "none.toml"), "HOME": str(tmp_path)}
        with log_path.open("wb") as log:
            processes.append(
                subprocess.Popen(
                    command(port=free_port),
                    env={**clean, **own, "IDLE_SCHEDULER": url, "IDLE_KEY": key or ""},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            )
        _wait_for(lambda: _answers(free_port), _START_S, lambda: log_path.read_text(errors="replace"))
        page = browser.new_page(locale="en-GB", accept_downloads=True)
        page.set_default_timeout(_PATIENCE_MS)
        page.on("dialog", lambda dialog: broken.append(f"a dialog opened: {dialog.message}"))
        page.on("pageerror", lambda error: broken.append(str(error)))
        page.goto(f"http://127.0.0.1:{free_port}{path}")
        return page

    yield start
    for context in browser.contexts:
        context.close()
    for process in processes:
        process.terminate()
        process.wait(timeout=20)
    assert broken == []


def _answers(port: int) -> bool:
    with contextlib.suppress(httpx2.TransportError):
        return httpx2.get(f"http://127.0.0.1:{port}/_stcore/health", timeout=5).status_code == 200
    return False


def _upgrade_status(port: int, host: str, origin: str) -> int:
    """What the page's web socket answers to a browser that says this Host and Origin."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {
        "Host": host,
        "Origin": origin,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol": "streamlit",
    }
    connection.request("GET", "/_stcore/stream", headers=headers)
    status = connection.getresponse().status
    connection.close()
    return status


def _seen(heading: Locator) -> str:
    """Its text as a person sees it: word joiners are invisible."""
    return heading.inner_text().replace("\u2060", "").strip()


def _wait_for(ready: Callable[[], bool], limit_s: float, story: Callable[[], str]) -> None:
    deadline = time.monotonic() + limit_s
    while not ready():
        assert time.monotonic() < deadline, story()
        time.sleep(0.1)


class Worker(threading.Thread):
    """Lends a machine, and finishes each task with the output and the file that the test wants."""

    def __init__(self, url: str, *, name: str, stdout: bytes, content: bytes) -> None:
        super().__init__(name="worker", daemon=True)
        self._agent = FakeAgent(
            url, name=name, facts=node_facts(name, resources=resources(8, 32 * GIB, 100 * GIB))
        )
        self._stdout = stdout
        self._artifact = Artifact(path="out/answer.bin", digest=digest_of(content), size_bytes=len(content))
        user = UserClient(url)
        assert user.http.put(f"/v1/blobs/{self._artifact.digest}", content=content).status_code < 300
        user.close()
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            held = sorted(self._agent.held)
            self._agent.exchange(
                reports=[self._end(ref) for ref in held],
                logs=[self._log(ref) for ref in held],
                wait_s=0.3,
                lends=offer(free=resources(8, 32 * GIB, 100 * GIB), reasons=(reason("node.available"),)),
            )
        self._agent.close()

    def _end(self, ref: AttemptRef) -> AttemptReport:
        return succeeded(ref, artifacts=(self._artifact,), reason=reason("task.done"))

    def _log(self, ref: AttemptRef) -> LogChunk:
        return LogChunk(
            job_id=ref.job_id,
            task_index=ref.task_index,
            epoch=ref.epoch,
            stream="stdout",
            offset=0,
            data=self._stdout,
        )

    def close(self) -> None:
        self._over.set()
        self.join(timeout=30)


@pytest.fixture
def start_worker() -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def start(
        url: str, *, name: str = "alpha", stdout: bytes = b"42\n", content: bytes = b"answer"
    ) -> Worker:
        worker = Worker(url, name=name, stdout=stdout, content=content)
        workers.append(worker)
        worker.start()
        return worker

    yield start
    for worker in workers:
        worker.close()


def test_from_an_empty_pool_to_a_result_in_both_languages(
    scheduler_process, open_page, start_worker, tmp_path
):
    content = bytes(range(256)) * 40
    page = open_page(scheduler_process.url)
    expect(page.get_by_text("No machine has joined yet.")).to_be_visible()
    expect(page.get_by_text(f"idlectl agent --scheduler {scheduler_process.url}")).to_be_visible()

    page.get_by_role("link", name="Submit", exact=True).click()
    page.get_by_role("textbox", name="Command").fill("python3 -c 'print(6*7)' | tee out")
    page.get_by_role("button", name="Submit job").click()
    expect(page.get_by_text("is shell syntax")).to_be_visible()

    page.get_by_role("textbox", name="Command").fill("python3 -c 'print(6*7)'")
    page.get_by_role("textbox", name="Name (optional)").fill("the answer")
    page.get_by_role("spinbutton", name="Tasks", exact=True).fill("3")
    page.get_by_role("textbox", name="Output files").fill("out/*.bin")
    page.locator("input[type=file]").set_input_files(
        [{"name": "data.csv", "mimeType": "text/csv", "buffer": b"a,b\n"}]
    )
    expect(page.get_by_text("data.csv")).to_be_visible()
    page.get_by_role("button", name="Submit job").click()
    expect(page.get_by_role("heading", name="the answer")).to_be_visible()
    expect(page.get_by_text("no node has joined yet")).to_be_visible()
    job_id = re.search(r"job=(j[a-z2-7]{16})", page.url)
    assert job_id is not None

    user = UserClient(scheduler_process.url)
    spec = user.job(job_id[1]).spec
    assert spec.workload.argv == ("python3", "-c", "print(6*7)")
    assert (spec.name, spec.tasks, spec.outputs) == ("the answer", 3, ("out/*.bin",))
    assert [(item.path, item.digest) for item in spec.inputs] == [("data.csv", digest_of(b"a,b\n"))]
    user.close()

    start_worker(scheduler_process.url, stdout=b"the output is 42\n", content=content)
    expect(page.get_by_text("3 of 3 finished")).to_be_visible()
    expect(page.get_by_text("the output is 42")).to_be_visible()
    with page.expect_download() as got:
        page.get_by_role("button", name="Download", exact=True).click()
    assert got.value.suggested_filename == "answer.bin"
    got.value.save_as(tmp_path / "got.bin")
    assert (tmp_path / "got.bin").read_bytes() == content
    with page.expect_download() as got:
        page.get_by_role("button", name="Download stdout").click()
    got.value.save_as(tmp_path / "stdout.txt")
    assert (tmp_path / "stdout.txt").read_bytes() == b"the output is 42\n"

    page.get_by_role("radio", name="中文").click()
    expect(page.get_by_text("已完成 3 / 3")).to_be_visible()
    expect(page.get_by_role("link", name="节点", exact=True)).to_be_visible()
    assert "lang=zh" in page.url
    page.reload()
    expect(page.get_by_text("已完成 3 / 3")).to_be_visible()

    page.get_by_role("link", name="全部作业").click()
    expect(page.get_by_role("heading", name="作业")).to_be_visible()
    table = page.get_by_test_id("stDataFrame")
    expect(table.locator("[role=gridcell]", has_text="the answer")).to_be_attached()
    table.locator("canvas").first.click(position={"x": 120, "y": 52}, force=True)
    expect(page.get_by_role("heading", name="the answer")).to_be_visible()
    assert f"job={job_id[1]}" in page.url
    page.get_by_role("link", name="节点", exact=True).click()
    expect(page.get_by_role("heading", name="alpha")).to_be_visible()
    expect(page.get_by_text("空闲，已出借")).to_be_visible()


def test_names_and_output_of_strangers_are_text_and_nothing_else(scheduler_process, open_page, start_worker):
    user = UserClient(scheduler_process.url)
    job_id = user.submit(command_spec("true", name=_HOSTILE))
    start_worker(scheduler_process.url, name=_HOSTILE[:60], stdout=f"{'x' * 200_000}\n{_HOSTILE}\n".encode())
    page = open_page(scheduler_process.url, path=f"/job?job={job_id}&lang=en")
    heading = page.get_by_role("heading", name="alert(1)")
    expect(heading).to_be_visible()
    assert _seen(heading) == _HOSTILE
    expect(page.get_by_text("onerror=alert(1)> www.example.com 🚀").first).to_be_visible()
    assert (
        page.locator(
            "[data-testid=stMain] a[href*=javascript], [data-testid=stMain] a[href*=example]"
        ).count()
        == 0
    )
    assert page.locator("[data-testid=stMain] .katex, [data-testid=stMain] img").count() == 0

    page.get_by_role("link", name="Nodes", exact=True).click()
    expect(page.get_by_role("heading", name="Nodes")).to_be_visible()
    expect(page.get_by_text("no isolation")).to_be_visible()
    shown = page.get_by_role("heading", name="alert(1)")
    _wait_for(lambda: _seen(shown) == _HOSTILE[:60].strip(), _START_S, lambda: _seen(shown))
    assert page.locator("[data-testid=stMain] a[href*=javascript], [data-testid=stMain] .katex").count() == 0
    page.get_by_role("link", name="Overview", exact=True).click()
    expect(page.get_by_text("idle and lent")).to_be_visible()
    assert page.locator("[data-testid=stMain] a[href*=javascript], [data-testid=stMain] .katex").count() == 0
    user.close()


def test_a_scheduler_that_goes_is_said_in_a_sentence_and_the_page_goes_on_when_it_is_back(
    scheduler_process, open_page
):
    page = open_page(scheduler_process.url)
    expect(page.get_by_text("No machine has joined yet.")).to_be_visible()
    scheduler_process.kill9()
    expect(page.get_by_text("does not answer")).to_be_visible()
    expect(page.get_by_text("python3 run.py up")).to_be_visible()
    assert "Traceback" not in page.inner_text("body")
    scheduler_process.start()
    expect(page.get_by_text("No machine has joined yet.")).to_be_visible()
    expect(page.get_by_text("does not answer")).to_have_count(0)


def test_a_missing_key_is_said_with_where_it_stands_and_never_shown(start_scheduler, open_page):
    scheduler = start_scheduler(host="0.0.0.0")
    page = open_page(scheduler.url, key="idle_wrong")
    expect(page.get_by_text("its key is missing or wrong")).to_be_visible()
    expect(page.get_by_text("scheduler.key")).to_be_visible()
    assert "idle_wrong" not in page.content()
    assert scheduler.key not in page.content()


def test_a_site_whose_name_was_turned_to_loopback_cannot_speak_to_the_page(
    scheduler_process, open_page, free_port
):
    open_page(scheduler_process.url)
    for host, origin, status in (
        (f"127.0.0.1:{free_port}", f"http://127.0.0.1:{free_port}", 101),
        (f"localhost:{free_port}", f"http://localhost:{free_port}", 101),
        (f"evil.example:{free_port}", f"http://evil.example:{free_port}", 403),
        (f"127.0.0.1:{free_port}", "http://evil.example", 403),
    ):
        assert _upgrade_status(free_port, host, origin) == status, (host, origin)


def test_a_double_click_submits_one_job(scheduler_process, open_page):
    page = open_page(scheduler_process.url, path="/submit?lang=en")
    page.get_by_role("textbox", name="Command").fill("sleep 1000")
    page.get_by_role("button", name="Submit job").dblclick()
    expect(page.get_by_role("heading", name="sleep 1000")).to_be_visible()
    user = UserClient(scheduler_process.url)
    assert len(user.http.get("/v1/jobs").json()["jobs"]) == 1
    user.close()


def test_a_job_is_cancelled_after_one_question(scheduler_process, open_page):
    user = UserClient(scheduler_process.url)
    job_id = user.submit(command_spec("sleep", "1000"))
    page = open_page(scheduler_process.url, path=f"/job?job={job_id}&lang=en")
    page.get_by_role("button", name="Cancel job").click()
    assert user.job(job_id).view.state == "QUEUED"
    page.get_by_role("button", name="Yes, cancel it").click()
    expect(page.get_by_text("1 of 1 finished · 1 cancelled")).to_be_visible()
    assert user.job(job_id).view.state == "CANCELLED"
    expect(page.get_by_role("button", name="Cancel job")).to_have_count(0)
    user.close()


def test_a_node_is_drained_and_taken_back_by_its_switch(scheduler_process, open_page, start_worker):
    start_worker(scheduler_process.url)
    page = open_page(scheduler_process.url, path="/nodes?lang=en")
    expect(page.get_by_text("idle and lent")).to_be_visible()
    page.get_by_text("Take nothing new (drain)").click()
    expect(page.get_by_text("takes nothing new", exact=True)).to_be_visible()
    page.get_by_text("Take nothing new (drain)").click()
    expect(page.get_by_text("idle and lent")).to_be_visible()


def test_a_task_that_saves_is_watched_while_it_runs(scheduler_process, open_page):
    user = UserClient(scheduler_process.url)
    agent = FakeAgent(scheduler_process.url)
    job_id = user.submit(command_spec("python3", "train.py", name="training"))
    agent.exchange(wait_s=5)
    (ref,) = agent.held
    agent.exchange(reports=[report(ref, AttemptState.RUNNING)])
    saver = Saver(agent)
    saver.save(ref, 40, {"model.bin": b"w" * 300_000, "state.json": b"{}"})
    saver.save(ref, 80, {"model.bin": b"v" * 300_000, "state.json": b"{}"})
    saver.say(ref, 0.425, _HOSTILE)
    page = open_page(scheduler_process.url, path=f"/job?job={job_id}&lang=en")
    bar = page.get_by_test_id("stProgress").last
    expect(bar.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "42")
    assert _seen(bar) == f"42 % · {_HOSTILE}"
    expect(page.get_by_text("Checkpoints", exact=True)).to_be_visible()
    table = page.get_by_test_id("stDataFrame").first
    expect(table.locator("[role=gridcell]", has_text="293 KiB").first).to_be_attached()
    expect(page.get_by_text(f"idlectl checkpoints {job_id} 0 --download saved")).to_be_visible()
    assert page.locator("[data-testid=stMain] a[href*=javascript], [data-testid=stMain] .katex").count() == 0
    saver.say(ref, 0.5, "epoch 4")
    expect(bar.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "50")
    page.get_by_role("radio", name="中文").click()
    expect(page.get_by_text("检查点", exact=True)).to_be_visible()
    agent.close()
    user.close()
