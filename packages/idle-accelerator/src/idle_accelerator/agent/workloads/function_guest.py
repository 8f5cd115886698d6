"""The program inside a function's process: opens one job's function and calls it as often as the agent asks.

Run by ``python -I FILE``, or forked from a process that has loaded it: the top level only imports and defines, and all else
happens in ``main``.

What a function can rely on. Each call begins in the workspace, with ``IDLE_*`` set, an empty standard input, working standard
output and error, no timer, no tracer and the usual recursion limit, whatever the call before it did to them. What the function
keeps in memory stays for the next call, as do other environment variables, imported modules, threads, child processes and
signal handlers: they end with the process, and ``atexit`` does not run then. Output of what outlives its call counts to the
next. A coroutine function is run by ``asyncio.run``. SIGTERM says that the machine is wanted back: unless the function
handles it, ``IDLE_VACATE_FILE`` appears, the call goes on as long as it may, and none is begun after it.
"""

import faulthandler
import os
import signal
import sys
from _thread import allocate_lock, get_ident, start_new_thread
from contextlib import suppress
from errno import EBADF
from functools import cache
from json import loads as load_json
from mmap import mmap
from pickle import dumps
from pickle import loads as unpickle
from time import perf_counter, sleep
from types import CoroutineType, FrameType, ModuleType
from typing import Any, Final, NoReturn

import cloudpickle

from idle_accelerator.agent.workloads.frames import (
    CALL,
    CALL_BODY,
    DATA,
    ENDED_BODY,
    HEAD,
    LEAVING,
    PICKLE,
    RAISED,
    REFUSED,
    REPLIES_BYTES,
    RESULT_LIMIT_BYTES,
    RETURNED,
    STDERR,
    STDOUT,
    STORED,
)
from idle_accelerator.agent.workloads.inside.answers import Unopened, no_plain_data, raised, refusal
from idle_accelerator.agent.workloads.inside.bell import Bell
from idle_accelerator.agent.workloads.inside.descriptors import away
from idle_accelerator.agent.workloads.inside.failure import describe
from idle_accelerator.agent.workloads.inside.folder import Folder
from idle_accelerator.agent.workloads.inside.replies import BROKEN, Replies
from idle_accelerator.agent.workloads.inside.requests import Requests
from idle_accelerator.agent.workloads.inside.streams import Console, Stream
from idle_accelerator.agent.workloads.places import OURS, REPLIES, RESULTS, VACATE, result_name
from idle_accelerator.errors import InvalidInput
from idle_accelerator.wire import codec

_IS_THE_GUEST_PROGRAM: Final = True
"""Tells frames of this file in a traceback, whatever name it was loaded under."""
_GATHER_S: Final = 0.002
"""A reply waits at most so long for others to go with it."""
_LOOK_EVERY_S: Final = 0.5
"""Between two looks at what a running call has written."""
_UNCLEAN: Final = 73
"""Exit status when the folder of a call could not be cleaned for the next (EX_CANTCREAT of sysexits.h)."""
_join = os.path.join


class FunctionProcess:
    """One job's function, from its first call to its last."""

    def __init__(
        self,
        setup: dict[str, Any],
        code: bytes,
        requests: Requests,
        replies: Replies,
        streams: tuple[Stream, Stream],
    ) -> None:
        self._requests = requests
        self._replies = replies
        self._code = code
        self._function: Any = None
        self._pickles = setup["results"] == "pickle"
        self._workspace = os.getcwd()  # noqa: PTH109  # pathlib is slow to load
        self._streams = streams
        self._console = Console()
        self._folder = Folder(self._workspace) if setup["clean_cwd"] else None
        self._contract = {name: value for name, value in os.environ.items() if name.startswith("IDLE_")}
        self._bell = Bell(requests.descriptor)
        self._pid = os.getpid()
        self._recursion_limit = sys.getrecursionlimit()
        self._alarm = allocate_lock()
        self._alarm.acquire()
        self._rung = False
        self._busy = True
        """Not waiting for the agent: calls run, or are about to."""
        self._call: tuple[int, int] | None = None
        """The one that runs: index and epoch."""
        self._masks: dict[int, set[int]] = {}
        """Signals that a thread had blocked before it began to fork."""
        self._noticed = False
        """Told to vacate."""
        self._waits = False
        """For the agent, with nothing else to do."""

    def live(self) -> NoReturn:
        """Answer calls until the agent closes the pipe, or the process is told to vacate."""
        self._listen_to_signals()
        faulthandler.enable(self._streams[1].descriptor)
        if sys.platform != "win32":
            os.register_at_fork(
                before=self._before_fork,
                after_in_parent=self._after_fork,
                after_in_child=self._forget_in_fork,
            )
        start_new_thread(self._watch, ())
        self._ring()
        while True:
            request = self._requests.take()
            if request is None:
                self._wait()
                continue
            if self._noticed:
                self._leave()
            kind, body = request
            if kind != CALL:
                raise ValueError(f"the agent sent a frame of kind {kind}")
            index, epoch = CALL_BODY.unpack_from(body)
            # In a list, so that no variable here keeps long arguments in memory while the call runs.
            arguments = [body[CALL_BODY.size :]]
            del request, body
            self._answer(index, epoch, arguments)
            if perf_counter() - self._replies.flushed_s > _GATHER_S:
                self._replies.flush()
            else:
                self._ring()

    def rehearse(self) -> None:
        """One call, as far as it leaves no trace in this process. Closes what ``__init__`` opened."""
        self._answer(0, 0, [memoryview(dumps(((0,), {})))])
        for each in (*self._streams, self._console, self._bell):
            each.close()

    def _wait(self) -> None:
        self._replies.flush()
        self._busy = False
        self._bell.hang()
        # From here on the handler of SIGTERM ends the process by itself.
        self._waits = True
        if self._noticed:
            self._leave()
        self._bell.wait()
        more = self._requests.wait()
        self._waits = False
        if not more:
            os._exit(0)
        self._busy = True
        self._ring()

    def _answer(self, index: int, epoch: int, arguments: list[memoryview]) -> None:
        self._prepare(index, epoch)
        self._call = (index, epoch)
        began_s = perf_counter()
        failure: BaseException | None = None
        try:
            kind, parts = self._outcome(index, epoch, arguments)
        except BaseException as error:  # noqa: BLE001  # all that the user's code raises is an answer
            failure = error
            kind, parts = RAISED, ()
        call_ended_s = perf_counter()
        self._regain()
        if os.getpid() != self._pid:
            _end_fork(failure)
        self._call = None
        if failure is not None:
            parts = raised(failure)
            # The traceback holds all that was on the stack.
            failure.__traceback__ = None
            failure = None
        self._console.flush()
        body = (ENDED_BODY.pack(index, epoch, call_ended_s - began_s), *parts)
        reply = b"".join((HEAD.pack(sum(map(len, body)), kind), *body))
        with self._replies.lock:
            for stream in self._streams:
                for frame in stream.collect(index, epoch):
                    self._replies.add(frame)
                for frame in stream.end_call():
                    self._replies.add(frame)
            self._replies.add(reply)
        self._tidy()

    def _outcome(self, index: int, epoch: int, arguments: list[memoryview]) -> tuple[int, tuple[bytes, ...]]:
        """Kind and body of the reply. Raises whatever the function does."""
        function = self._open()
        try:
            args, kwargs = unpickle(arguments.pop())  # noqa: S301  # this process is where it may be opened
        except Exception as error:
            raise Unopened("arguments", error) from error
        value = function(*args, **kwargs)
        del args, kwargs
        if type(value) is CoroutineType:
            value = _run_coroutine(value)  # pyright: ignore[reportUnknownArgumentType]
        if self._pickles:
            try:
                encoding, result = PICKLE, cloudpickle.dumps(value)
            except Exception as error:  # noqa: BLE001  # it runs the user's code
                return REFUSED, (refusal("the result cannot be pickled", error),)
        else:
            try:
                encoding, result = DATA, codec.encode(value)
            except InvalidInput as error:
                return REFUSED, (no_plain_data(error),)
            except Exception as error:  # noqa: BLE001  # as above
                return REFUSED, (refusal("the result could not be read", error),)
        if len(result) <= RESULT_LIMIT_BYTES:
            return RETURNED, (bytes((encoding,)), result)
        try:
            self._store(result_name(index, epoch), result)
        except OSError as error:
            return REFUSED, (
                refusal(f"the result ({len(result)} bytes) could not be written on the node", error),
            )
        return STORED, (bytes((encoding,)), len(result).to_bytes(8, "little"))

    def _open(self) -> Any:
        if self._function is None:
            try:
                self._function = unpickle(self._code)  # noqa: S301  # as above
            except Exception as error:
                raise Unopened("function", error) from error
            self._code = b""
        return self._function

    def _store(self, name: str, result: bytes) -> None:
        folder = _join(self._workspace, OURS, RESULTS)
        os.makedirs(folder, mode=0o700, exist_ok=True)  # noqa: PTH103  # pathlib is slow to load
        partial = _join(folder, f"{name}.tmp")
        try:
            with open(partial, "wb") as file:  # noqa: PTH123  # as above
                file.write(result)
            os.replace(partial, _join(folder, name))  # noqa: PTH105  # as above
        except OSError:
            with suppress(OSError):
                os.unlink(partial)  # noqa: PTH108  # as above
            raise

    def _prepare(self, index: int, epoch: int) -> None:
        """What each call finds anew."""
        self._contract["IDLE_TASK_INDEX"] = str(index)
        self._contract["IDLE_ATTEMPT"] = str(epoch)
        environ = os.environ
        for name, value in self._contract.items():
            if environ.get(name) != value:
                environ[name] = value
        os.chdir(self._workspace)
        for stream in self._streams:
            stream.attach()
        self._console.attach()

    def _regain(self) -> None:
        """Undo what would reach into this program."""
        sys.settrace(None)
        sys.setprofile(None)
        sys.setrecursionlimit(self._recursion_limit)
        if sys.platform != "win32":
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _tidy(self) -> None:
        if self._folder is not None:
            try:
                self._folder.clean()
            except (OSError, RecursionError):
                # The next call gets a process with a new folder.
                self._leave(_UNCLEAN)

    def _listen_to_signals(self) -> None:
        signal.signal(signal.SIGTERM, self._on_notice)
        signal.signal(signal.SIGINT, self._on_interrupt)
        if sys.platform == "win32":
            signal.signal(signal.SIGBREAK, self._on_notice)
        else:
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def _on_notice(self, _number: int, _frame: FrameType | None) -> None:
        self._noticed = True
        # OSError: it stands there already, or the user's code removed the folder and cannot be told in this way.
        with suppress(OSError):
            os.close(
                os.open(_join(self._workspace, OURS, VACATE), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            )
        if self._waits:
            self._leave()

    def _on_interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self._call is not None:
            raise KeyboardInterrupt

    def _leave(self, status: int = 0) -> NoReturn:
        self._replies.add(HEAD.pack(0, LEAVING))
        self._replies.flush()
        os._exit(status)

    if sys.platform != "win32":

        def _before_fork(self) -> None:
            # A signal that came to the child before it forgot our handlers would be lost.
            self._masks[get_ident()] = signal.pthread_sigmask(
                signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT}
            )

        def _after_fork(self) -> None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.pop(get_ident(), ()))

        def _forget_in_fork(self) -> None:
            """In a process that the user's function forked: nothing of ours goes on there."""
            self._requests.close_in_fork()
            self._replies.close_in_fork()
            signal.set_wakeup_fd(-1)
            if signal.getsignal(signal.SIGTERM) == self._on_notice:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
            if signal.getsignal(signal.SIGINT) == self._on_interrupt:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            self._after_fork()

    def _ring(self) -> None:
        """Have the watch look soon."""
        if not self._rung:
            self._rung = True
            self._alarm.release()

    def _watch(self) -> None:
        """A thread: sends what a long call would hold back, its own output and the replies of calls before it."""
        while True:
            if self._alarm.acquire(timeout=_LOOK_EVERY_S if self._busy else -1):
                self._rung = False
                sleep(_GATHER_S)
                self._replies.flush()
            else:
                with self._replies.lock:
                    if self._call is not None:
                        index, epoch = self._call
                        for stream in self._streams:
                            for frame in stream.collect(index, epoch):
                                self._replies.add(frame)
                    self._replies.flush()


def _run_coroutine(coroutine: "CoroutineType[Any, Any, Any]") -> Any:
    import asyncio  # noqa: PLC0415  # 15 ms that most functions do not need

    return asyncio.run(coroutine)


def _end_fork(error: BaseException | None) -> NoReturn:
    """The user's function forked, and its child came back from it as well: it ends here, as a program would."""
    status = 0
    if isinstance(error, SystemExit):
        status = describe(error).exit_code or 0
    elif error is not None:
        sys.stderr.write(describe(error).traceback_text)
        status = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status & 0xFF)


def rehearse() -> None:
    """A first call on nothing, for a process that waits to be a guest and has called nothing yet.

    A forked process copies a page of memory when it first writes there, and running code writes to what it touches: the
    reference counts. That was the greater part of a first call's time, and is spent while nobody waits.
    """
    streams = sys.stdin, sys.stdout, sys.stderr
    try:
        setup = {"results": "data", "clean_cwd": False}
        null = os.open(os.devnull, os.O_RDWR)
        replies = Replies(null, mmap(-1, REPLIES_BYTES))
        outputs = Stream(STDOUT, os.devnull), Stream(STDERR, os.devnull)
        FunctionProcess(setup, _practice(), Requests(null), replies, outputs).rehearse()
        os.close(null)
    finally:
        sys.stdin, sys.stdout, sys.stderr = streams


@cache
def _practice() -> bytes:
    """A function, as users' are sent."""

    def same(value: int) -> int:
        return value

    return cloudpickle.dumps(same)


def main() -> NoReturn:
    """The whole life of the process. The first frame tells what for."""
    requests = Requests(away(os.dup(0)))
    pipe = away(os.dup(1))
    folder = _join(os.getcwd(), OURS)  # noqa: PTH109  # pathlib is slow to load
    file = os.open(_join(folder, REPLIES), os.O_RDWR | os.O_CREAT, 0o600)
    # Written, not only stretched: a full disk is to fail here, not to kill the process when it writes to memory.
    os.write(file, bytes(REPLIES_BYTES))
    replies = Replies(pipe, mmap(file, REPLIES_BYTES))
    os.close(file)
    request = requests.take()
    while request is None:
        if not requests.wait():
            os._exit(0)
        request = requests.take()
    body = bytes(request[1])
    length = int.from_bytes(body[:4], "little")
    setup = load_json(body[4 : 4 + length])
    # What the user's code finds there is not this program.
    sys.modules["__main__"] = ModuleType("__main__")
    sys.argv = [""]
    try:
        streams = Stream(STDOUT, _join(folder, "stdout")), Stream(STDERR, _join(folder, "stderr"))
        FunctionProcess(setup, body[4 + length :], requests, replies, streams).live()
    except BaseException as error:  # noqa: BLE001  # a handler or thread of the user's code may reach even here
        if isinstance(error, OSError) and error.errno == EBADF:
            sys.stderr.write("The function closed files of this process that it had not opened.\n")
        else:
            sys.excepthook(type(error), error, error.__traceback__)
        sys.stderr.flush()
        # Not by way of the interpreter's end, which would wait for threads of the user's code.
        os._exit(BROKEN)


if __name__ == "__main__":
    main()
