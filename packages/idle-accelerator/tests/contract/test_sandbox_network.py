"""Guests that reach what job and owner agree on, and nothing else: real sandboxes, a real proxy, a real TLS server."""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
from network_sites import PIECE_BYTES, PIECES, SLOW_PATH, Site, site
from sandbox_guests import alive, bubblewrap, eventually

from idle_accelerator.agent.sandbox import Guest, GuestSpec, NoSandbox, Sandbox, SpawnFailed
from idle_accelerator.agent.sandbox.attempts import breaches
from idle_accelerator.wire.network import NetworkOffer, NetworkWish

if sys.platform != "linux":
    pytest.skip("network namespaces are Linux's", allow_module_level=True)

from idle_accelerator.agent.network import doors, open_way, trial
from idle_accelerator.agent.network.office import Office
from idle_accelerator.agent.network.trial import Attached
from idle_accelerator.agent.network.types import Way
from idle_accelerator.agent.sandbox import probe
from idle_accelerator.agent.sandbox.bubblewrap import BubblewrapSandbox

ASK = """
import json, socket, sys
def ask(request):
    with socket.create_connection(("127.0.0.1", 3128), timeout=60) as line:
        line.sendall(request.encode())
        return line.recv(4096).decode()
print(json.dumps([ask(text) for text in json.loads(sys.argv[1])]))
"""
"""Says to its proxy what it is given, and prints the answers."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site")) as made:
        (made.folder / "word.txt").write_text("hello over TLS")
        yield made


@pytest.fixture
async def sandbox() -> AsyncIterator[BubblewrapSandbox]:
    made = bubblewrap()
    assert isinstance(made, BubblewrapSandbox)
    yield made
    await made.close()


class Helpers:
    """An office, and what it told."""

    def __init__(self, folder: Path, lent: NetworkOffer, *, bytes_per_s: float | None = None) -> None:
        self.moved: list[int] = []
        self.programs: list[int] = []
        self.office = Office(
            lent,
            folder=folder,
            bytes_per_s=bytes_per_s,
            on_moved=self.moved.append,
            on_began=lambda guest: self.programs.append(guest.pid),
            on_ended=lambda guest: self.programs.remove(guest.pid),
        )

    def way(self, *hosts: str) -> Way:
        found = self.office.way_for(NetworkWish(hosts=hosts), job="j")
        assert found is not None
        return found

    def open_way(self) -> Way:
        found = self.office.way_for(NetworkWish(open=True), job="j")
        assert found is not None
        return found


@contextlib.asynccontextmanager
async def lending(folder: Path, *hosts: str, **more: float) -> AsyncIterator[Helpers]:
    made = Helpers(folder, NetworkOffer(kind="proxy", hosts=hosts), **more)
    try:
        yield made
    finally:
        await made.office.close()
        assert made.programs == [], "what works for guests has ended with them"


async def start(sandbox: Sandbox, workspace: Path, way: Way | None, *argv: str, **env: str) -> Guest:
    workspace.mkdir(exist_ok=True)
    told = {} if way is None else dict(way.env)
    base = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(workspace), "LANG": "C.UTF-8"}
    spec = GuestSpec(argv=argv, workspace=workspace, env={**base, **told, **env}, network=way)
    return await sandbox.start(spec)


async def said(sandbox: Sandbox, workspace: Path, way: Way | None, *argv: str, **env: str) -> str:
    """What it printed; it must succeed."""
    guest = await start(sandbox, workspace, way, *argv, **env)
    assert guest.stdout is not None
    assert guest.stderr is not None
    out, err = await asyncio.gather(guest.stdout.read(), guest.stderr.read())
    ended = await guest.wait()
    assert ended.exit_code == 0, (ended, out, err)
    return out.decode()


async def answers(sandbox: Sandbox, workspace: Path, way: Way, *requests: str) -> list[str]:
    """The first lines that the proxy answers."""
    text = await said(sandbox, workspace, way, sys.executable, "-I", "-c", ASK, json.dumps(requests))
    return [answer.splitlines()[0] if answer else "" for answer in json.loads(text)]


def connect(host: str) -> str:
    return f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n"


def make_index(folder: Path) -> None:
    """A package index with one small wheel in it."""
    wheel = folder / "simple" / "idletry" / "idletry-1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    files = {
        "idletry.py": b"WORD = 'installed'\n",
        "idletry-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: idletry\nVersion: 1.0\n",
        "idletry-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for name, data in files.items()
    )
    files["idletry-1.0.dist-info/RECORD"] = f"{record}idletry-1.0.dist-info/RECORD,,\n".encode()
    with zipfile.ZipFile(wheel, "w") as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    (wheel.parent / "index.html").write_text(f"<a href='{wheel.name}'>{wheel.name}</a>")


def make_repository(folder: Path) -> None:
    """One that any web server gives away."""
    work = folder / "work"
    for words in (
        ["init", "-q", str(work)],
        [
            "-C",
            str(work),
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@t",
            "commit",
            "-q",
            "--allow-empty",
            "-m",
            "m",
        ],
        ["clone", "-q", "--bare", str(work), str(folder / "repo.git")],
        ["-C", str(folder / "repo.git"), "update-server-info"],
    ):
        subprocess.run(["git", *words], check=True, capture_output=True)


CLIENTS = {
    "curl": "curl -sS --cacert certificate.pem URL/word.txt",
    "urllib": "python -c \"import ssl,urllib.request as r; c=ssl.create_default_context(cafile='certificate.pem');"
    " print(r.urlopen('URL/word.txt', context=c).read().decode())\"",
    "httpx2": "python -c \"import ssl,httpx2; c=ssl.create_default_context(cafile='certificate.pem');"
    " print(httpx2.get('URL/word.txt', verify=c).text)\"",
    "pip": "python -m pip --isolated download -q --disable-pip-version-check --no-deps --cert certificate.pem"
    " --index-url URL/simple/ idletry && ls",
    "uv": "SSL_CERT_FILE=certificate.pem uv --no-config --cache-dir cache pip install -q --index-url URL/simple/"
    " --target out idletry && ls out",
    "git": "GIT_SSL_CAINFO=certificate.pem git clone -q URL/repo.git out && git -C out log --format=%s",
}
EXPECTED = {"pip": "idletry-1.0", "uv": "idletry.py", "git": "m"}


@pytest.mark.parametrize("client", CLIENTS)
async def test_programs_reach_a_named_host_by_the_proxy(
    client: str, sandbox: BubblewrapSandbox, page: Site, tmp_path: Path
) -> None:
    if client in ("curl", "git") and shutil.which(client) is None:
        pytest.skip(f"there is no {client}")
    if client == "uv" and not Path(sys.executable).with_name("uv").exists():
        pytest.skip("there is no uv beside this Python")
    if client in ("pip", "uv") and not (page.folder / "simple").exists():
        make_index(page.folder)
    if client == "git":
        make_repository(page.folder)
    workspace = tmp_path / "w"
    workspace.mkdir()
    shutil.copy(page.certificate, workspace)
    script = CLIENTS[client].replace("URL", page.url)
    async with lending(tmp_path, page.host) as helpers:
        out = await said(sandbox, workspace, helpers.way(page.host), "/bin/sh", "-c", script)
        assert EXPECTED.get(client, "hello over TLS") in out
        await eventually(lambda: sum(helpers.moved) > 0, "what moved is told, so that it is not the owner's")


async def test_a_plain_request_is_passed_on_to_a_named_host_alone(
    sandbox: BubblewrapSandbox, page: Site, tmp_path: Path
) -> None:
    server = await asyncio.start_server(_repeat, page.address, 0)
    port = server.sockets[0].getsockname()[1]
    host = f"{page.address}:{port}"
    async with server, lending(tmp_path, host) as helpers:
        way = helpers.way(host)
        ask = f"GET http://{host}/a?b=1 HTTP/1.1\r\nHost: elsewhere\r\nProxy-Authorization: x\r\nX: y\r\n\r\n"
        text = await said(
            sandbox,
            tmp_path / "w",
            way,
            sys.executable,
            "-I",
            "-c",
            ASK,
            json.dumps([ask, ask.replace(host, "a.b")]),
        )
        heard, refused = json.loads(text)
    assert heard == f"GET /a?b=1 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nX: y\r\n\r\n"
    assert refused.startswith("HTTP/1.1 403")


async def _repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.readuntil(b"\r\n\r\n"))
    await writer.drain()
    writer.close()


async def test_a_host_that_the_job_does_not_name_is_refused_and_told_once(
    sandbox: BubblewrapSandbox, page: Site, tmp_path: Path
) -> None:
    async with lending(tmp_path, page.host, "example.org") as helpers:
        way = helpers.way(page.host)
        asked = await answers(sandbox, tmp_path / "w", way, *[connect("example.org:443")] * 3)
        assert asked == ["HTTP/1.1 403 Forbidden"] * 3
        (told,) = way.refusals()
        assert (told.code, told.params["host"]) == ("network.refused", "example.org:443")
        assert way.refusals() == ()


async def test_what_a_name_leads_to_is_looked_at_and_must_be_public_or_named_by_the_owner(
    sandbox: BubblewrapSandbox, page: Site, tmp_path: Path
) -> None:
    host = f"localhost:{page.port}"
    async with lending(tmp_path, host) as helpers:
        way = helpers.way(host)
        assert await answers(sandbox, tmp_path / "w", way, connect(host)) == ["HTTP/1.1 403 Forbidden"]
        assert [told.code for told in way.refusals()] == ["network.not_public"]
    async with lending(tmp_path, host, f"127.0.0.1:{page.port}", f"[::1]:{page.port}") as helpers:
        assert await answers(sandbox, tmp_path / "w", helpers.way(host), connect(host)) == [
            "HTTP/1.1 200 Connection established"
        ], "by the owner's own word it may be this machine"


async def test_the_machine_itself_is_refused_by_its_outer_address_too_unless_it_is_named(
    sandbox: BubblewrapSandbox, page: Site, tmp_path: Path
) -> None:
    made = Helpers(tmp_path, NetworkOffer(kind="open"))
    try:
        way = made.way(page.host)
        assert await answers(sandbox, tmp_path / "w", way, connect(page.host)) == ["HTTP/1.1 403 Forbidden"]
        assert [told.code for told in way.refusals()] == ["network.not_public"]
    finally:
        await made.office.close()


TRICKS = (
    "127.0.0.1:{port}",
    "127.1:{port}",
    "2130706433:{port}",
    "0x7f.0.0.1:{port}",
    "0177.0.0.1:{port}",
    "0.0.0.0:{port}",
    "[::1]:{port}",
    "[::ffff:127.0.0.1]:{port}",
    "[64:ff9b::7f00:1]:{port}",
    "[fe80::1%lo]:{port}",
    "169.254.169.254:80",
    "localhost:{port}",
    "localhost.:{port}",
    "{address}@127.0.0.1:{port}",
    "{address}",
    "{address}:{port}/",
    "{address}:+{port}",
    "{address}:22",
)


async def test_no_trick_of_writing_leads_past_the_list(
    sandbox: BubblewrapSandbox, page: Site, tmp_path: Path
) -> None:
    asked = [trick.format(port=page.port, address=page.address) for trick in TRICKS]
    requests = [connect(host) for host in asked]
    requests += [f"GET http://{host}/ HTTP/1.1\r\n\r\n" for host in asked if not host.endswith("/")]
    requests += [
        f"GET https://{page.host}/word.txt HTTP/1.1\r\n\r\n",
        "GET /word.txt HTTP/1.1\r\n\r\n",
        "nonsense\r\n\r\n",
        f"CONNECT {page.host} HTTP/2.0\r\n\r\n",
    ]
    before = len(page.asked)
    async with lending(tmp_path, page.host, "*") as helpers:
        way = helpers.way(page.host)
        got = await answers(sandbox, tmp_path / "w", way, *requests, connect(page.host))
    assert got[-1] == "HTTP/1.1 200 Connection established", "the control"
    assert [(ask, line) for ask, line in zip(requests, got[:-1], strict=True) if " 4" not in line[:12]] == []
    assert len(page.asked) == before


async def test_each_guest_has_a_proxy_of_its_own_and_one_without_a_wish_has_none(
    sandbox: BubblewrapSandbox, page: Site, tmp_path: Path
) -> None:
    async with lending(tmp_path, page.host, "example.org") as helpers:
        first, second = helpers.way(page.host), helpers.way("example.org")
        holder = await start(sandbox, tmp_path / "a", first, "/bin/sleep", "600")
        try:
            (refused,) = await answers(sandbox, tmp_path / "b", second, connect(page.host))
            assert refused == "HTTP/1.1 403 Forbidden"
            assert first.refusals() == ()
            assert len(second.refusals()) == 1
            guest = await start(sandbox, tmp_path / "c", None, sys.executable, "-I", "-c", ASK, '["x"]')
            assert guest.stderr is not None
            assert b"ConnectionRefusedError" in await guest.stderr.read()
            await guest.wait()
        finally:
            await holder.kill()


async def test_the_hostile_program_gets_no_further_with_a_proxy(
    sandbox: BubblewrapSandbox, page: Site, tmp_path: Path
) -> None:
    async with lending(tmp_path, page.host, "*", "*:80") as helpers:
        seen = await probe.attempt_all(
            Attached(sandbox, lambda: helpers.way(page.host)),
            tmp_path,
            memory_files_bytes=sandbox.memory_files_bytes,
            passed_over=sandbox.shown,
        )
    assert breaches(seen) == {}


async def test_while_its_guest_stands_still_nothing_moves_for_it(
    sandbox: BubblewrapSandbox, page: Site, tmp_path: Path
) -> None:
    workspace = tmp_path / "w"
    workspace.mkdir()
    shutil.copy(page.certificate, workspace)
    code = (
        "import ssl,urllib.request as r; c=ssl.create_default_context(cafile='certificate.pem');"
        f"f=r.urlopen('{page.url}{SLOW_PATH}', context=c); print(len(f.read(1)), flush=True); print(len(f.read()))"
    )
    async with lending(tmp_path, page.host) as helpers:
        page.sent_pieces = 0
        guest = await start(sandbox, workspace, helpers.way(page.host), sys.executable, "-c", code)
        assert guest.stdout is not None
        assert await guest.stdout.readline() == b"1\n"
        guest.freeze()
        (proxy,) = helpers.programs
        assert psutil.Process(proxy).status() in (psutil.STATUS_STOPPED, psutil.STATUS_DISK_SLEEP) or (
            await _spends_nothing(proxy)
        )
        moved = None
        while moved != sum(helpers.moved):  # what was on its way has been told
            moved = sum(helpers.moved)
            await asyncio.sleep(2 * doors.TELL_EVERY_S)
        assert moved < PIECES * PIECE_BYTES, "it stands in the middle"
        guest.thaw()
        assert await guest.stdout.readline() == f"{PIECES * PIECE_BYTES - 1}\n".encode()
        await guest.wait()
        await eventually(lambda: sum(helpers.moved) >= PIECES * PIECE_BYTES, "all that moved is told")


async def _spends_nothing(pid: int) -> bool:
    before = psutil.Process(pid).cpu_times()
    await asyncio.sleep(0.3)
    return psutil.Process(pid).cpu_times() == before


async def test_one_guest_that_goes_on_is_served_while_another_stands_still(
    sandbox: BubblewrapSandbox, page: Site, tmp_path: Path
) -> None:
    async with lending(tmp_path, page.host) as helpers:
        frozen = await start(sandbox, tmp_path / "a", helpers.way(page.host), "/bin/sleep", "600")
        frozen.freeze()
        try:
            asked = await answers(sandbox, tmp_path / "b", helpers.way(page.host), connect(page.host))
            assert asked == ["HTTP/1.1 200 Connection established"]
        finally:
            await frozen.kill()


async def test_a_guest_gets_no_more_a_second_than_its_owner_allows(
    sandbox: BubblewrapSandbox, page: Site, tmp_path: Path
) -> None:
    (page.folder / "big").write_bytes(os.urandom(3_000_000))
    workspace = tmp_path / "w"
    workspace.mkdir()
    shutil.copy(page.certificate, workspace)
    code = (
        "import ssl,time,urllib.request as r; c=ssl.create_default_context(cafile='certificate.pem'); t=time.monotonic();"
        f"r.urlopen('{page.url}/big', context=c).read(); print(time.monotonic() - t)"
    )
    async with lending(tmp_path, page.host, bytes_per_s=1_000_000) as helpers:
        took_s = float(await said(sandbox, workspace, helpers.way(page.host), sys.executable, "-c", code))
    assert took_s > 2.5, "three million bytes"


async def test_a_guest_has_so_many_connections_and_no_more(
    sandbox: BubblewrapSandbox, page: Site, tmp_path: Path
) -> None:
    code = (
        "import socket,sys\nlines=[socket.create_connection(('127.0.0.1',3128)) for _ in range(int(sys.argv[1]))]\n"
        "lines[-1].settimeout(60)\nprint(lines[-1].recv(12))"
    )
    async with lending(tmp_path, page.host) as helpers:
        out = await said(
            sandbox,
            tmp_path / "w",
            helpers.way(page.host),
            sys.executable,
            "-c",
            code,
            str(doors.CONNECTIONS + 1),
        )
    assert "503" in out


async def test_an_ended_guest_leaves_nothing_open(
    sandbox: BubblewrapSandbox, page: Site, tmp_path: Path
) -> None:
    async with lending(tmp_path, page.host) as helpers:
        await answers(sandbox, tmp_path / "w", helpers.way(page.host), connect(page.host))
        (proxy,) = helpers.programs
        folder = Path(f"/proc/{proxy}/fd")
        await eventually(lambda: len(list(folder.iterdir())) < 12, "its doors are closed")
        before, own = len(list(folder.iterdir())), len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(5):
            await answers(sandbox, tmp_path / "w", helpers.way(page.host), connect(page.host))
        await eventually(lambda: len(list(folder.iterdir())) <= before, "as many as before")
        assert len(list(Path("/proc/self/fd").iterdir())) <= own
        assert helpers.programs == [proxy], "it is the same program for all"


async def test_a_proxy_that_died_is_started_anew(
    sandbox: BubblewrapSandbox, page: Site, tmp_path: Path
) -> None:
    async with lending(tmp_path, page.host) as helpers:
        await answers(sandbox, tmp_path / "w", helpers.way(page.host), connect(page.host))
        (proxy,) = helpers.programs
        psutil.Process(proxy).kill()
        await eventually(lambda: not alive(proxy), "it is dead")
        await asyncio.sleep(0)
        asked: list[str] = []
        for _ in range(3):  # the first may still go to the dead one, and says so
            with contextlib.suppress(SpawnFailed):
                asked = await answers(sandbox, tmp_path / "w", helpers.way(page.host), connect(page.host))
                break
        assert asked == ["HTTP/1.1 200 Connection established"]
        helpers.programs.remove(proxy)


async def test_a_guest_killed_in_the_middle_of_its_start_leaves_no_door(
    sandbox: BubblewrapSandbox, page: Site, tmp_path: Path
) -> None:
    async with lending(tmp_path, page.host) as helpers:
        starting = asyncio.create_task(
            start(sandbox, tmp_path / "w", helpers.way(page.host), "/bin/sleep", "600")
        )
        await asyncio.sleep(0.02)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await answers(sandbox, tmp_path / "v", helpers.way(page.host), connect(page.host))
        (proxy,) = helpers.programs
        await eventually(lambda: len(list(Path(f"/proc/{proxy}/fd").iterdir())) < 12, "no door is open")


def test_the_proxy_ends_with_the_line_to_its_agent(tmp_path: Path) -> None:
    from idle_accelerator.agent.network import proxy

    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with there:
        program = subprocess.Popen(proxy.command(there.fileno()), pass_fds=(there.fileno(),), cwd=tmp_path)
    here.close()
    assert program.wait(timeout=60) == 0


# An open network.


@pytest.fixture
def with_slirp() -> None:
    if shutil.which(open_way.PROGRAM) is None:
        pytest.skip(f"there is no {open_way.PROGRAM}")
    open_way.check()


FETCH = (
    "import ssl,urllib.request as r; c=ssl._create_unverified_context()\n"
    "try: print(r.urlopen('{url}/word.txt', context=c, timeout=60).read().decode())\n"
    "except OSError as error: print('refused', error)"
)


@pytest.mark.usefixtures("with_slirp")
async def test_an_open_network_reaches_other_machines_but_not_this_one(
    sandbox: BubblewrapSandbox, page: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Helpers(tmp_path, NetworkOffer(kind="open"))
    code = FETCH.format(url=page.url)
    try:
        closed = await said(sandbox, tmp_path / "w", made.open_way(), sys.executable, "-c", code)
        assert closed.startswith("refused")
        gateway = FETCH.format(url=f"https://10.0.2.2:{page.port}")
        assert (
            await said(sandbox, tmp_path / "w", made.open_way(), sys.executable, "-c", gateway)
        ).startswith("refused")
        # This machine by its outer address stands for another one, when that is not closed.
        monkeypatch.setattr(open_way, "closed_networks", lambda: ())
        way = made.open_way()
        assert "hello over TLS" in await said(sandbox, tmp_path / "w", way, sys.executable, "-c", code)
    finally:
        await made.office.close()
    assert made.programs == []


@pytest.mark.usefixtures("with_slirp")
async def test_the_hostile_program_gets_no_further_with_an_open_network(
    sandbox: BubblewrapSandbox, tmp_path: Path
) -> None:
    made = Helpers(tmp_path, NetworkOffer(kind="open"))
    try:
        seen = await probe.attempt_all(
            Attached(sandbox, made.open_way),
            tmp_path,
            memory_files_bytes=sandbox.memory_files_bytes,
            passed_over=sandbox.shown,
        )
    finally:
        await made.office.close()
    assert breaches(seen) == {}


@pytest.mark.usefixtures("with_slirp")
async def test_an_open_guest_that_stands_still_has_its_packets_stand_still(
    sandbox: BubblewrapSandbox, tmp_path: Path
) -> None:
    made = Helpers(tmp_path, NetworkOffer(kind="open"))
    try:
        guest = await start(sandbox, tmp_path / "w", made.open_way(), "/bin/sleep", "600")
        guest.freeze()
        for pid in made.programs:
            assert await _spends_nothing(pid)
        guest.thaw()
        await guest.kill()
        await eventually(lambda: len(made.programs) == 1, "slirp4netns ends with its guest")
    finally:
        await made.office.close()
    assert made.programs == []


@pytest.mark.parametrize("kind", ["proxy", "open"])
def test_the_agents_own_trial_holds_and_leaves_nothing(kind: str, page: Site, tmp_path: Path) -> None:
    if kind == "open" and shutil.which(open_way.PROGRAM) is None:
        pytest.skip(f"there is no {open_way.PROGRAM}")
    folder = tmp_path / "data"
    folder.mkdir()
    trial.check(bubblewrap(), NetworkOffer(kind=kind, hosts=(page.host,)), folder)  # pyright: ignore[reportArgumentType]
    assert list(folder.iterdir()) == []


def test_a_proxy_that_leads_to_this_machine_is_found_out_at_the_start(
    page: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial's own proxy is let go there, as if it did not look at what a name leads to."""
    strict = trial.open_office

    def careless(lent: NetworkOffer, folder: Path) -> Office:
        port = lent.hosts[0].partition(":")[2]
        return strict(
            lent.model_copy(update={"hosts": (*lent.hosts, f"127.0.0.1:{port}", f"[::1]:{port}")}), folder
        )

    monkeypatch.setattr(trial, "open_office", careless)
    with pytest.raises(NoSandbox, match="leads to this machine's loopback") as caught:
        trial.check(bubblewrap(), NetworkOffer(kind="proxy", hosts=(page.host,)), tmp_path)
    assert caught.value.failing == "net"


# Devices.


async def test_a_guest_sees_the_devices_that_it_is_given_and_no_others(
    sandbox: BubblewrapSandbox, tmp_path: Path
) -> None:
    there = [
        path for path in map(Path, ("/dev/net/tun", "/dev/fuse", "/dev/kmsg", "/dev/kvm")) if path.exists()
    ]
    if len(there) < 2:
        pytest.skip("this machine has no two devices to stand for a graphics card's")
    given, kept = there[0], there[1]
    (tmp_path / "w").mkdir()
    script = f"test -c {given} && echo given; test -e {kept} || echo kept; touch /dev/x || echo sealed"
    guest = await sandbox.start(
        GuestSpec(
            argv=("/bin/sh", "-c", script),
            workspace=tmp_path / "w",
            env={"PATH": "/usr/bin:/bin"},
            devices=(given,),
        )
    )
    assert guest.stdout is not None
    assert (await guest.stdout.read()).split() == [b"given", b"kept", b"sealed"]
    await guest.wait()
    assert (
        await said(sandbox, tmp_path / "w", None, "/bin/sh", "-c", f"test -e {given} || echo none")
    ).strip() == "none"
