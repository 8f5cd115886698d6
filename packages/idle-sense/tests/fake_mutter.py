"""Mutter's IdleMonitor on a message bus, with nobody's hands but the test's."""

import threading
import time

from fake_bus import Service

NAME = "org.gnome.Mutter.IdleMonitor"
PATH = "/org/gnome/Mutter/IdleMonitor/Core"


class Mutter:
    def __init__(self, address: str) -> None:
        self.hanging = False
        self._address = address
        self._used_at_s = time.monotonic()
        self._watches: list[tuple[int, str]] = []
        self._count = 0
        self._lock = threading.Lock()
        self.service: Service | None = None
        self.start()

    def start(self) -> None:
        self._watches.clear()
        self._used_at_s = time.monotonic()
        self.service = Service(
            self._address, NAME, {"GetIdletime": self._idle_time, "AddUserActiveWatch": self._add_watch}
        )

    def stop(self) -> None:
        if self.service is not None:
            self.service.close()
            self.service = None

    def use(self) -> None:
        with self._lock:
            self._used_at_s = time.monotonic()
            watches, self._watches = self._watches, []
        for number, client in watches:
            assert self.service is not None
            self.service.emit(PATH, NAME, "WatchFired", "u", (number,), to=client)

    def _idle_time(self, _message: object) -> tuple[str, tuple[int]] | None:
        return None if self.hanging else ("t", (round((time.monotonic() - self._used_at_s) * 1000),))

    def _add_watch(self, message: object) -> tuple[str, tuple[int]] | None:
        from jeepney import HeaderFields

        if self.hanging:
            return None
        with self._lock:
            self._count += 1
            self._watches.append((self._count, message.header.fields[HeaderFields.sender]))  # type: ignore[attr-defined]
            return "u", (self._count,)
