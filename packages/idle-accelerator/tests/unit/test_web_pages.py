"""Every view, run without a browser, over a real scheduler."""

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import streamlit as st
from checkpoint_builders import Saver
from pool_builders import (
    FakeAgent,
    UserClient,
    command_spec,
    digest_of,
    function_spec,
    node_facts,
    offer,
    report,
    resources,
    succeeded,
)
from streamlit.testing.v1 import AppTest

import idle_accelerator.web
from idle_accelerator.errors import TooLarge
from idle_accelerator.web import pool
from idle_accelerator.wire.codec import encode
from idle_accelerator.wire.exchange import LogChunk
from idle_accelerator.wire.jobs import Artifact
from idle_accelerator.wire.nodes import Isolation
from idle_accelerator.wire.payload import RemoteError, inline_payload
from idle_accelerator.wire.reasons import Reason, reason
from idle_accelerator.wire.states import AttemptState

_ENTRY = Path(idle_accelerator.web.__file__).with_name("app.py")
_VIEWS = ("overview", "submit", "jobs", "job", "nodes")


@pytest.fixture
def visit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., AppTest]]:
    """Opens a view as ``visit(url, "job", job=ID)``; every visit sees the scheduler's newest word."""

    def forget() -> None:
        st.cache_data.clear()
        st.cache_resource.clear()

    def start(url: str, view: str = "overview", *, lang: str = "en", key: str = "", **query: str) -> AppTest:
        monkeypatch.setenv("IDLE_SCHEDULER", url)
        monkeypatch.setenv("IDLE_KEY", key)
        monkeypatch.setenv("IDLE_CONFIG", str(tmp_path / "none.toml"))
        st.cache_data.clear()
        app = AppTest.from_file(_ENTRY, default_timeout=120)
        app.query_params["lang"] = lang
        app.run()
        if view != "overview":
            app.switch_page(f"views/{view}.py")
            app.query_params["lang"] = lang
            for name, value in query.items():
                app.query_params[name] = value
            app.run()
        assert not app.exception, app.exception
        return app

    forget()
    yield start
    forget()


@pytest.fixture
def user(scheduler_process) -> Iterator[UserClient]:
    user = UserClient(scheduler_process.url)
    yield user
    user.close()


@pytest.fixture
def agent(scheduler_process) -> Iterator[FakeAgent]:
    agent = FakeAgent(scheduler_process.url)
    yield agent
    agent.close()


def written(app: AppTest) -> str:
    """Every word on the page that is not inside a table."""
    kinds = (app.title, app.header, app.subheader, app.markdown, app.caption, app.text, app.code)
    alerts = (app.error, app.warning, app.info, app.success)
    return "\n".join(str(element.value) for group in (*kinds, *alerts) for element in group)


def unescaped(text: str) -> str:
    return text.replace("\\", "").replace("\u2060", "")


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_every_view_opens_on_an_empty_pool_in_both_languages(scheduler_process, visit, lang):
    for view in _VIEWS:
        app = visit(scheduler_process.url, view, lang=lang)
        assert not app.error, view
        assert not app.warning, view


def test_every_view_says_in_a_sentence_that_no_scheduler_answers(visit, free_port):
    for view in ("overview", "jobs", "job", "nodes"):
        app = visit(f"http://127.0.0.1:{free_port}", view, job="j")
        assert f"http://127.0.0.1:{free_port} does not answer" in unescaped(app.warning[0].value), view
        assert "python3 run.py up" in written(app), view


def test_an_address_that_is_none_is_said_with_the_variable_that_holds_it(visit):
    app = visit("nonsense")
    assert "IDLE_SCHEDULER" in unescaped(app.error[0].value)


def test_a_wrong_key_is_said_and_never_shown(start_scheduler, visit):
    scheduler = start_scheduler(host="0.0.0.0")
    app = visit(scheduler.url, "nodes", key="idle_wrong")
    assert "its key is missing or wrong" in unescaped(app.error[0].value)
    assert "idle_wrong" not in written(app)
    app = visit(scheduler.url, "nodes", key=scheduler.key)
    assert app.error  # the client of before is kept: the page must be started again, as it says
    pool.client.clear()
    app = visit(scheduler.url, "nodes", key=scheduler.key)
    assert not app.error
    assert scheduler.key not in written(app)


def test_a_job_that_is_not_there_is_an_error_of_one_sentence(scheduler_process, visit):
    app = visit(scheduler_process.url, "job", job="jaaaa")
    assert "there is no job 'jaaaa'" in unescaped(app.error[0].value)
    app = visit(scheduler_process.url, "job", job="../../nodes")
    assert "is not a job's id" in unescaped(app.error[0].value)


def test_a_waiting_job_says_why_and_its_secrets_stay_hidden(scheduler_process, visit, user):
    job_id = user.submit(
        command_spec("echo", "hello world", env={"TOKEN": "s3cret"}, retries=2, timeout_s=600.0)
    )
    page = written(visit(scheduler_process.url, "job", job=job_id))
    assert "no node has joined yet" in page
    assert "echo 'hello world'" in page
    assert "TOKEN" in page
    assert "s3cret" not in page
    assert "at most 10 min an attempt" in page
    assert "还没有节点加入" in written(visit(scheduler_process.url, "job", lang="zh", job=job_id))


def test_output_of_each_attempt_and_the_files_are_there(scheduler_process, visit, user, agent):
    content = b"content"
    digest = digest_of(content)
    assert user.http.put(f"/v1/blobs/{digest}", content=content).status_code < 300
    job_id = user.submit(command_spec("x", retries=1, outputs=("out/*",)))
    agent.exchange()
    [first] = agent.held
    agent.exchange(
        reports=[
            report(first, AttemptState.FAILED, exit_code=3, reason=reason("task.exit_code", exit_code=3))
        ],
        logs=[_log(first, b"first try\n")],
        wait_s=5,
    )
    [second] = agent.held
    agent.exchange(
        reports=[
            succeeded(
                second, artifacts=(Artifact(path="out/a [b].txt", digest=digest, size_bytes=len(content)),)
            )
        ],
        logs=[_log(second, b"\x1b[31msecond\x1b[0m try\n")],
    )
    app = visit(scheduler_process.url, "job", job=job_id)
    assert "second try" in [block.value for block in app.code][-1]
    assert "out/a [b].txt · 7 B" in [text.value for text in app.text]
    assert len(app.dataframe[-1].value) == 2
    app.selectbox[0].select(first.epoch).run()
    assert "first try" in [block.value for block in app.code][-1]
    assert pool.blob(digest) == content


def test_a_functions_value_is_shown_and_its_exception_with_the_traceback(
    scheduler_process, visit, user, agent
):
    job_id = user.submit(function_spec(2))
    agent.exchange()
    one, two = sorted(agent.held)
    agent.exchange(
        reports=[
            succeeded(one, result=encode({"pi": 3.14, "huge": 10**5000})),
            report(
                two,
                AttemptState.FAILED,
                reason=reason("task.exception", type_name="ValueError"),
                error=RemoteError(
                    type_name="ValueError", text="[bad](x)", traceback_text="Traceback: [bad](x)"
                ),
            ),
        ]
    )
    app = visit(scheduler_process.url, "job", job=job_id)
    assert "Exceeds the limit" in app.code[-1].value
    app.number_input[0].set_value(1).run()
    assert "Traceback: [bad](x)" in [block.value for block in app.code]
    assert "the function raised ValueError" in written(app)

    job_id = user.submit(function_spec(1))
    agent.exchange()
    [ref] = agent.held
    agent.exchange(reports=[succeeded(ref, result=encode({"pi": 3.14}))])
    app = visit(scheduler_process.url, "job", job=job_id)
    assert "{'pi': 3.14}" in [block.value for block in app.code]


def test_a_pickled_result_is_never_opened(scheduler_process, visit, user, agent):
    job_id = user.submit(function_spec(1))
    agent.exchange()
    [ref] = agent.held
    bomb = b"cbuiltins\nexec\n(S'raise SystemExit'\ntR."
    agent.exchange(
        reports=[
            succeeded(ref, result=b"", encoding="pickle").model_copy(update={"result": inline_payload(bomb)})
        ]
    )
    page = written(visit(scheduler_process.url, "job", job=job_id))
    assert f"idlectl result {job_id}" in page
    assert "never opens" in page


def test_a_running_task_shows_how_far_it_is_and_what_it_saved(scheduler_process, visit, user, agent):
    job_id = user.submit(command_spec("train"))
    agent.exchange()
    [ref] = agent.held
    agent.exchange(reports=[report(ref, AttemptState.RUNNING)])
    before = visit(scheduler_process.url, "job", job=job_id)
    assert "Checkpoints" not in written(before)
    saver = Saver(agent)
    saver.save(ref, 40, {"a": b"x" * 2048, "b": b"y"})
    saver.say(ref, 0.425, "epoch 3 :red[*loss*] <b>0.2</b>")
    app = visit(scheduler_process.url, "job", job=job_id)
    bar = app.get("progress")[-1].proto
    assert bar.value == 42
    assert unescaped(bar.text) == "42 % · epoch 3 :red[*loss*] <b>0.2</b>"
    table = app.dataframe[0].value
    assert table.loc[0].to_dict() | {"saved": ""} == {
        "step": "40",
        "size": "2.0 KiB",
        "files": "2",
        "saved": "",
        "node": "alpha",
        "epoch": "1",
        "resumed": "",
    }
    assert f"idlectl checkpoints {job_id} 0 --download saved" in written(app)
    assert "检查点" in written(visit(scheduler_process.url, "job", lang="zh", job=job_id))
    saver.say(ref, None, "warming up")
    assert "warming up" in unescaped(written(visit(scheduler_process.url, "job", job=job_id)))

    job_id = user.submit(command_spec("train", tasks=2))
    agent.exchange(wait_s=5)
    one = next(item for item in agent.held if item.job_id == job_id and item.task_index == 1)
    agent.exchange(reports=[report(item, AttemptState.RUNNING) for item in agent.held])
    saver.say(one, 0.999)
    tasks = visit(scheduler_process.url, "job", job=job_id).dataframe[0].value
    assert tasks["progress"].tolist()[1] == 99


def test_tasks_are_shown_page_by_page_and_by_state(scheduler_process, visit, user, agent):
    job_id = user.submit(command_spec("x", tasks=120))
    agent.exchange(lends=offer(free=resources(2)))
    agent.exchange(reports=[succeeded(ref) for ref in sorted(agent.held)[:1]], lends=offer(free=resources(0)))
    app = visit(scheduler_process.url, "job", job=job_id)
    assert list(app.dataframe[0].value["index"]) == list(range(50))
    for shown in (range(50, 100), range(100, 120)):
        next(button for button in app.button if button.label == "Next").click().run()
        assert list(app.dataframe[0].value["index"]) == list(shown)
    assert next(button for button in app.button if button.label == "Next").disabled
    next(button for button in app.button if button.label == "First").click().run()
    assert list(app.dataframe[0].value["index"]) == list(range(50))


def test_all_files_of_an_array_come_as_one_archive_and_too_many_by_the_command_line(
    scheduler_process, visit, user, agent, monkeypatch
):
    contents = {0: b"zero", 1: b"one"}
    for content in contents.values():
        assert user.http.put(f"/v1/blobs/{digest_of(content)}", content=content).status_code < 300
    job_id = user.submit(command_spec("x", tasks=2, outputs=("out/*",)))
    agent.exchange()
    agent.exchange(
        reports=[
            succeeded(
                ref,
                artifacts=(
                    Artifact(
                        path="out/a.txt",
                        digest=digest_of(contents[ref.task_index]),
                        size_bytes=len(contents[ref.task_index]),
                    ),
                ),
            )
            for ref in agent.held
        ]
    )
    visit(scheduler_process.url, "job", job=job_id)
    with zipfile.ZipFile(io.BytesIO(pool.archive(job_id))) as folder:
        assert {name: folder.read(name) for name in folder.namelist()} == {
            "0/out/a.txt": b"zero",
            "1/out/a.txt": b"one",
        }
    monkeypatch.setattr(pool, "DOWNLOAD_LIMIT_BYTES", 3)
    page = written(visit(scheduler_process.url, "job", job=job_id))
    assert (
        f"2 output files of 7 B in all, too large for this page. Fetch with: `idlectl result {job_id}`"
        in page
    )
    assert "Files over 3 B are not sent through this page" in page
    with pytest.raises(TooLarge):
        pool.archive(job_id)


def test_nodes_say_why_they_are_not_lent_and_that_a_plain_process_isolates_nothing(
    scheduler_process, visit, agent
):
    why = Reason(code="input.unheard_of", params={}, text="in use (key pressed 4 s ago); [x](javascript:y)")
    agent.exchange(lends=offer("in_use", resources(0, 0, 0), reasons=(why, reason("lend.hint"))))
    app = visit(scheduler_process.url, "nodes")
    assert "in use (key pressed 4 s ago); [x](javascript:y)" in [text.value for text in app.text]
    assert "to lend it now: idlectl lend --for 10m" in [text.value for text in app.text]
    assert "no isolation" in written(app)
    assert "没有隔离" in written(visit(scheduler_process.url, "nodes", lang="zh"))
    assert "0 of 1" in [metric.value for metric in visit(scheduler_process.url).metric]


def test_nodes_say_line_by_line_what_their_sandbox_holds(scheduler_process, visit):
    lines = dict.fromkeys(
        ("fs", "net", "pidns", "calls", "mem", "disk", "freeze", "prio", "kill", "gpu"), "it"
    )
    held = Isolation(tier="bubblewrap", **{**lines, "net": "fails: [x](javascript:y)"})
    facts = node_facts("held", sandbox_tier="bubblewrap", isolation=held)
    node = FakeAgent(scheduler_process.url, facts=facts)
    app = visit(scheduler_process.url, "nodes")
    assert "Sandbox “bubblewrap”" in written(app)
    assert "• Network: fails: [x](javascript:y)" in [text.value for text in app.text]
    chinese = visit(scheduler_process.url, "nodes", lang="zh")
    assert "• 网络: fails: [x](javascript:y)" in [text.value for text in chinese.text]
    node.close()


def test_the_form_refuses_in_the_viewers_language_and_sends_nothing(scheduler_process, visit, user):
    app = visit(scheduler_process.url, "submit", lang="zh")
    app.text_area(key="submit.command").input("echo $HOME")
    app.button[0].click().run()
    assert "$HOME 是 shell 语法" in unescaped(app.error[0].value)
    app.text_area(key="submit.command").input("echo x")
    app.text_area(key="submit.outputs").input("../secret")
    app.button[0].click().run()
    assert "outputs" in unescaped(app.error[0].value)
    assert user.http.get("/v1/jobs").json()["jobs"] == []


def _log(ref, data):
    return LogChunk(
        job_id=ref.job_id, task_index=ref.task_index, epoch=ref.epoch, stream="stdout", offset=0, data=data
    )
