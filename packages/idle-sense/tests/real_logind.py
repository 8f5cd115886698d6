"""A real systemd-logind or elogind, watched through a story of logins and locks. Run in a mount namespace of its own:

    unshare --mount python real_logind.py FOLDER PROGRAM

It starts a system bus and the program in an empty /run, plays the system manager that systemd-logind asks for scopes, and
prints as JSON what was seen.
"""

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from fake_bus import Service, until
from jeepney import DBusAddress, Message, new_method_call
from jeepney.io.blocking import DBusConnection, open_dbus_connection

from idle_sense.platform.inhibitors import idle_inhibitors
from idle_sense.platform.logins import Logins

ADDRESS = "unix:path=/run/dbus/system_bus_socket"
LOGIN = "org.freedesktop.login1"
MANAGER = DBusAddress("/org/freedesktop/login1", bus_name=LOGIN, interface=f"{LOGIN}.Manager")
HELD: list[object] = []
"""Pipes that keep sessions alive."""
LEADERS: list[subprocess.Popen] = []
"""Processes that sessions were begun for."""
POLICY = (
    f'<busconfig><type>system</type><listen>{ADDRESS}</listen><auth>EXTERNAL</auth><policy context="default">'
    '<allow user="*"/><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>'
    "</policy></busconfig>"
)


class FakeManager(Service):
    """Every job is done a moment after it was asked for."""

    def __init__(self) -> None:
        self.jobs = 0
        done = dict.fromkeys(("StartUnit", "StartTransientUnit", "StopUnit"), self._job)
        super().__init__(
            ADDRESS,
            "org.freedesktop.systemd1",
            {**done, "Subscribe": lambda _m: ("", ()), "Get": lambda _m: ("v", (("s", "active"),))},
        )

    def _job(self, message: Message) -> tuple[str, tuple[object, ...]]:
        self.jobs += 1
        path = f"/org/freedesktop/systemd1/job/{self.jobs}"
        told = (self.jobs, path, message.body[0], "done")
        where = ("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
        threading.Timer(0.05, lambda: self.emit(*where, "JobRemoved", "uoss", told)).start()
        return "o", (path,)


@contextlib.contextmanager
def running(folder: Path, program: str) -> Iterator[None]:
    for name in ("dbus", "udev", "systemd/sessions", "systemd/system"):
        Path("/run", name).mkdir(parents=True, exist_ok=True)
    config = folder / "bus.conf"
    config.write_text(POLICY)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    bus = subprocess.Popen(["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile"], **quiet)
    until(lambda: Path("/run/dbus/system_bus_socket").exists())
    manager = FakeManager()
    daemon = subprocess.Popen([program], **quiet)
    try:
        yield
    finally:
        for process in (*LEADERS, daemon, bus):
            process.kill()
            process.wait(timeout=30)
        manager.close()


def ask(connection: DBusConnection, where: DBusAddress, member: str, signature: str, *body: object) -> tuple:
    answer = connection.send_and_get_reply(new_method_call(where, member, signature, body), timeout=60)
    assert answer.header.message_type.name == "method_return", answer.body
    return answer.body


def log_in(connection: DBusConnection, *, kind: str, seat: str, terminal: str, host: str) -> DBusAddress:
    leader = subprocess.Popen(["sleep", "600"])
    LEADERS.append(leader)
    told = ask(
        connection, MANAGER, "CreateSession", "uusssssussbssa(sv)",
        0, leader.pid, "login", kind, "user", "", seat, 0, terminal, "", bool(host), "", host, [],
    )  # fmt: skip
    HELD.append(told)
    return DBusAddress(told[1], bus_name=LOGIN, interface=f"{LOGIN}.Session")


def tell(folder: Path, program: str) -> dict[str, object]:
    with running(folder, program):
        connection: list[DBusConnection] = []

        def greeted() -> bool:
            # Until the program has taken its name, nobody is there to ask.
            opened = open_dbus_connection(ADDRESS, enable_fds=True)
            try:
                ask(opened, MANAGER, "ListSessions", "")
            except AssertionError:
                opened.close()
                return False
            connection.append(opened)
            return True

        until(greeted)
        logins = Logins(environ={})

        def locks() -> dict[str, bool | None]:
            return {one.name: one.locked for one in logins.read(time.monotonic()).value or ()}

        seen: list[dict[str, bool | None]] = [locks()]
        desktop = log_in(connection[0], kind="wayland", seat="", terminal="", host="")
        until(lambda: False in locks().values())
        seen.append(locks())
        for locked in (True, False):
            ask(connection[0], desktop, "SetLockedHint", "b", locked)
            until(lambda locked=locked: locked in locks().values())
            seen.append(locks())
        log_in(connection[0], kind="tty", seat="", terminal="pts/77", host="far.example")
        until(lambda: len(locks()) == 2)
        seen.append(locks())
        ask(connection[0], desktop, "Terminate", "")
        until(lambda: len(locks()) == 1)
        seen.append(locks())
        held = ask(connection[0], MANAGER, "Inhibit", "ssss", "sleep:idle", "My Player é", "a film", "block")
        until(lambda: bool(idle_inhibitors()))
        inhibitors = [one.who for one in idle_inhibitors()]
        held[0].close()
        until(lambda: not idle_inhibitors())
        logins.close()
        return {"seen": seen, "inhibitors": inhibitors}


if __name__ == "__main__":
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
    print(json.dumps(tell(Path(sys.argv[1]), sys.argv[2])), flush=True)
