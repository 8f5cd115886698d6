"""``idlectl up``: a whole pool on this machine, in front, until Ctrl-C."""

import contextlib
import json
import os
import shlex
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from idle_accelerator import __version__
from idle_accelerator.cli import daemons, invocation
from idle_accelerator.cli.agent import PolicyFlag, check_policy
from idle_accelerator.cli.children import Child, Children
from idle_accelerator.cli.stopping import Stopped, StopWish
from idle_accelerator.cli.terminal import say, show
from idle_accelerator.errors import Conflict, InvalidInput, Unavailable

if TYPE_CHECKING:
    from idle_accelerator.cli.self_check import SelfCheck
    from idle_accelerator.settings import Connection

_RECORD = "up.json"
_LOCK = "up.lock"
_READY_S = 60.0
_ASK_S = 2.0
_POLL_S = 0.05
_PATIENCE_S = {"scheduler": 8.0, "agent": 12.0, "web page": 3.0}
_INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Where everything shall be."""

    data_dir: Path
    host: str
    port: int
    web_port: int | None
    policy: str | None
    """None: as the owner's file says."""
    sandbox: str | None
    """As above."""

    @property
    def url(self) -> str:
        return f"http://{daemons.reachable_host(self.host)}:{self.port}"

    @property
    def page(self) -> str | None:
        return None if self.web_port is None else f"http://127.0.0.1:{self.web_port}"

    @property
    def agent_dir(self) -> Path:
        return self.data_dir / "agent"

    @property
    def scheduler_dir(self) -> Path:
        return self.data_dir / "scheduler"

    @property
    def logs(self) -> Path:
        return self.data_dir / "logs"


def up(
    check: Annotated[
        bool, typer.Option("--check", help="Stop after the self-check; 0 if it went well, else 1.")
    ] = False,
    no_web: Annotated[bool, typer.Option("--no-web", help="Without the web page.")] = False,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="The scheduler's port.")] = 8000,
    web_port: Annotated[
        int, typer.Option("--web-port", min=1, max=65535, help="The web page's port.")
    ] = 8501,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="DIR", help="Where everything is kept.", show_default=False),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            "--host", help="Where the scheduler listens; 0.0.0.0 lets other machines join, with a key."
        ),
    ] = "127.0.0.1",
    policy: PolicyFlag = None,
    sandbox: Annotated[
        str | None,
        typer.Option(
            "--sandbox",
            metavar="NAME",
            help="Of this machine's own agent, as in idlectl agent. With --host others' work runs here too, so it is in a sandbox.",
            show_default="auto",
        ),
    ] = None,
) -> int:
    """Start scheduler, agent and web page on this machine, and send a task through all of it."""
    from idle_accelerator import settings  # noqa: PLC0415  # imported when needed

    if policy is not None:
        check_policy(policy)
    if port == web_port and not no_web:
        raise InvalidInput(
            f"scheduler and web page cannot share port {port}.", field="--web-port", hint=f"Use {port + 1}."
        )
    daemons.check_extra("fastapi", extra="scheduler")
    if not no_web:
        daemons.check_extra("streamlit", extra="web")
    directory = daemons.make_data_dir(data_dir or settings.data_dir())
    plan = Plan(
        data_dir=directory,
        host=host,
        port=port,
        web_port=None if no_web else web_port,
        policy=policy,
        sandbox=sandbox,
    )
    with StopWish() as wish, _the_only_one(plan):
        try:
            return _run(plan, wish, stay=not check)
        except Stopped:
            return _INTERRUPTED


@contextlib.contextmanager
def _the_only_one(plan: Plan) -> Generator[None]:
    """Raises Conflict while another `up` runs over the same data directory."""
    from idle_accelerator import locks  # noqa: PLC0415  # imported when needed

    record = plan.data_dir / _RECORD
    held = locks.take(plan.data_dir / _LOCK)
    if held is None:
        running = _read_record(record)
        raise Conflict(
            f"`idlectl up` already runs over {plan.data_dir} ({_in_words(running)}).",
            field="--data-dir",
            hint="Use that one, or stop it with Ctrl-C where it was started, or name another directory and other ports.",
        )
    with held:
        _clear_away(_read_record(record))
        try:
            yield
        finally:
            record.unlink(missing_ok=True)


def _in_words(record: dict[str, Any]) -> str:
    page = f", page {record['page']}" if record.get("page") else ""
    return f"process {record.get('pid', '?')}, scheduler {record.get('scheduler', '?')}{page}"


def _read_record(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", values) if isinstance(values, dict) else {}


def _write_record(plan: Plan, children: Children) -> None:
    """For a second `up`, which names this one, and for the next, which clears away what a killed one has left."""
    import psutil  # noqa: PLC0415  # imported when needed

    values = {
        "pid": os.getpid(),
        "scheduler": plan.url,
        "page": plan.page,
        "children": [[child.pid, psutil.Process(child.pid).create_time()] for child in children.members],
    }
    (plan.data_dir / _RECORD).write_text(json.dumps(values), encoding="utf-8")


def _clear_away(record: dict[str, Any]) -> None:
    """Ends the children of an `up` that was killed, if they have outlived it."""
    import psutil  # noqa: PLC0415  # imported when needed

    left: list[psutil.Process] = []
    for pid, created in record.get("children", ()):
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if process.create_time() == created:
                process.terminate()
                left.append(process)
    if left:
        say("Waiting for what an earlier `idlectl up`, which was killed, has left running ...")
        _, stubborn = psutil.wait_procs(left, timeout=max(_PATIENCE_S.values()))
        for process in stubborn:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(stubborn, timeout=_ASK_S)


def _run(plan: Plan, wish: StopWish, *, stay: bool) -> int:
    began = time.monotonic()
    command = f"idlectl up --port {plan.port + 1}"
    daemons.check_port(plan.host, plan.port, flag="--port", hint=f"Choose another: {command}")
    if plan.web_port is not None:
        hint = f"Choose another: idlectl up --web-port {plan.web_port + 1}"
        daemons.check_port("127.0.0.1", plan.web_port, flag="--web-port", hint=hint)
    plan.logs.mkdir(exist_ok=True)
    children = Children(logs=plan.logs)
    ready = False
    try:
        place = _start(plan, children, wish)
        checked = _self_check(plan, place, children, wish)
        ready = True
        _describe(plan, place, checked, time.monotonic() - began)
        if stay:
            _stay(place, children, wish)
    except Stopped:
        return 0 if ready else _INTERRUPTED
    finally:
        _stop(children, wish)
    return 0


def _start(plan: Plan, children: Children, wish: StopWish) -> "Connection":
    """Everything that `plan` names, each waited for until it is healthy."""
    from idle_accelerator.scheduler.auth import is_loopback  # noqa: PLC0415  # imported when needed
    from idle_accelerator.settings import Connection  # noqa: PLC0415  # as above

    show(f"idle-accelerator {__version__}, data in {plan.data_dir}")
    scheduler = children.start(
        "scheduler",
        ["scheduler", "--host", plan.host, "--port", str(plan.port), "--data-dir", str(plan.scheduler_dir)],
        patience_s=_PATIENCE_S["scheduler"],
    )
    _write_record(plan, children)
    took_s = _until(lambda: _answers(f"{plan.url}/readyz"), scheduler, children, wish)
    show(f"  scheduler  ready after {took_s:.1f} s")
    key: str | None = None
    if not is_loopback(plan.host):
        key = (plan.scheduler_dir / "scheduler.key").read_text(encoding="utf-8").strip()
    place = Connection(url=plan.url, key=key, origin="idlectl up")
    secret = {"IDLE_KEY": key}  # not as a flag: other users of this machine can read those
    began_s = time.time()
    agent = children.start(
        "agent",
        [
            *("agent", "--scheduler", plan.url, "--data-dir", str(plan.agent_dir)),
            *(() if plan.policy is None else ("--policy", plan.policy)),
            *(() if plan.sandbox is None else ("--sandbox", plan.sandbox)),
        ],
        patience_s=_PATIENCE_S["agent"],
        env=secret,
    )
    web: Child | None = None
    if plan.web_port is not None:
        web = children.start(
            "web page",
            ["web", "--port", str(plan.web_port), "--scheduler", plan.url],
            patience_s=_PATIENCE_S["web page"],
            env=secret,
        )
    _write_record(plan, children)
    took_s = _until(lambda: _connected(plan.agent_dir, agent.pid, began_s), agent, children, wish)
    show(f"  agent      connected after {took_s:.1f} s")
    if web is not None:
        took_s = _until(lambda: _answers(f"{plan.page}/_stcore/health"), web, children, wish)
        show(f"  web page   ready after {took_s:.1f} s")
    return place


def _until(healthy: Callable[[], bool], child: Child, children: Children, wish: StopWish) -> float:
    """Waits for a child's health; how long that took. Raises ChildEnded, Unavailable, Stopped."""
    began = time.monotonic()
    while not healthy():
        if time.monotonic() - began > _READY_S:
            raise Unavailable(
                f"the {child.name} is not ready after {_READY_S:.0f} s. The end of its log:\n{child.tail()}",
                hint=f"Its whole log is {child.log}",
            )
        wish.pause(_POLL_S, children.check)
    return time.monotonic() - began


def _answers(url: str) -> bool:
    """Whether a GET is answered with 200; never by way of a proxy."""
    import urllib.request  # noqa: PLC0415  # imported when needed

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_ASK_S) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


def _connected(agent_dir: Path, pid: int, since_s: float) -> bool:
    from idle_accelerator.agent.control import read_status  # noqa: PLC0415  # imported when needed

    status = read_status(agent_dir)
    return status is not None and status.connected and (status.pid == pid or status.updated_at_s >= since_s)


def _self_check(plan: Plan, place: "Connection", children: Children, wish: StopWish) -> "SelfCheck":
    from idle_accelerator.cli.self_check import self_check  # noqa: PLC0415  # imported when needed

    show(
        "  self-check  one task, by your word: this machine is lent to that job alone; the work of others waits"
    )
    return wish.run(lambda: self_check(place, plan.agent_dir), children.check)


def _describe(plan: Plan, place: "Connection", checked: "SelfCheck", took_s: float) -> None:
    """The result, and what to do next; every command works as it stands."""
    idlectl = invocation.idlectl()
    flags = "" if plan.url == "http://127.0.0.1:8000" else f" --scheduler {plan.url}"
    flags += f" --key {place.key}" if place.key else ""
    show(
        f"  self-check  6*7 = {checked.answer}, run on {checked.node_name}, back after {checked.took_s:.2f} s"
    )
    show(f"Ready after {took_s:.1f} s.\n")
    rows = [("page", plan.page)] if plan.page else []
    rows += [
        ("API docs", f"{plan.url}/docs"),
        ("logs", str(plan.logs)),
        ("submit", f"{idlectl} submit{flags} --wait -- python3 -c 'print(6*7)'"),
        ("lend now", f"{idlectl} lend --for 10m   (while you use this machine, it is not lent otherwise)"),
        ("join", _join(plan, place)),
    ]
    for name, text in rows:
        show(f"  {name:<9}  {text}")
    show("")


def _join(plan: Plan, place: "Connection") -> str:
    """How another machine joins; where only this one can, how that is changed."""
    others = f"http://{daemons.address_for_others(plan.host)}:{plan.port}"
    if place.key is not None:
        return (
            f"on another machine, in its clone: python3 run.py agent --scheduler {others} --key {place.key}"
        )
    own = plan.data_dir
    again = f"{invocation.run_py_command()} up --host 0.0.0.0" + (
        f" --port {plan.port}" if plan.port != 8000 else ""
    )
    again += f" --data-dir {shlex.quote(str(own))}" if _named(own) else ""
    others = f"http://{daemons.address_for_others('0.0.0.0')}:{plan.port}"  # noqa: S104  # asked about, not bound
    return (
        f"only this machine can reach the pool. To open it, stop this and start: {again}\n"
        f"{'':13}then on another machine, in its clone: python3 run.py agent --scheduler {others} --key KEY\n"
        f"{'':13}(the new start prints that with the key)"
    )


def _named(data_dir: Path) -> bool:
    from idle_accelerator import settings  # noqa: PLC0415  # imported when needed

    return data_dir != settings.data_dir().resolve()


def _stay(place: "Connection", children: Children, wish: StopWish) -> None:
    from idle_accelerator.cli.front import stay_in_front  # noqa: PLC0415  # imported when needed

    stay_in_front(place, wish, children.check)


def _stop(children: Children, wish: StopWish) -> None:
    """Web page, agent, scheduler, in this order; whatever happens to the terminal meanwhile."""
    if not children.members:
        return
    with contextlib.suppress(OSError):
        say("Stopping ..." if not wish.times else "\nStopping ... (once more: at once)")
    began = time.monotonic()
    killed = children.stop(lambda: wish.hurried)
    with contextlib.suppress(OSError):
        if killed:
            say(f"Killed, as it did not stop in time: {', '.join(killed)}.")
        say(f"Stopped after {time.monotonic() - began:.1f} s.")
