"""The scripted matrix: what happens at a machine × what its desktop tells. How often is it idle when it should be busy?

Each scenario is played through a Monitor with scripted probes of each desktop's shape. docs/reference/idle-matrix.md holds what
the run gives; ``python test_idle_matrix.py`` writes it anew.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from idle_sense import Calls, GpuUse, Media, Monitor, Policy, Screen, Session, State
from idle_sense.testing import ScriptedClock, ScriptedProbes

PAGE = Path(__file__).parents[4] / "docs" / "reference" / "idle-matrix.md"
MINUTE = 60
NEAR_S, NEAR_STEP_S, FAR_STEP_S = 30, 1, 5
"""After each turn a look a second for half a minute, as a watch does at rest; then one each five seconds."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What one kind of desktop tells."""

    name: str
    seat: bool | None = True
    """None: there is one, and it cannot be read."""
    untold: tuple[str, ...] = ()
    locks: bool = True
    """It tells whether a session is locked."""
    sees_inhibitors: bool = True
    frozen_by_inhibitors: bool = False
    """Its idle time stands while a program keeps the screen on."""
    gamepads: bool = True
    terminals: bool = True
    clock_runs_in_sleep: bool = False


SHAPES = (
    Shape(name="X11"),
    Shape(name="GNOME on Wayland", untold=("screen",)),
    Shape(name="KDE on Wayland", untold=("screen",)),
    Shape(name="wlroots, ext-idle-notify 2", untold=("screen",), sees_inhibitors=False),
    Shape(
        name="wlroots, ext-idle-notify 1",
        untold=("screen",),
        sees_inhibitors=False,
        frozen_by_inhibitors=True,
        gamepads=False,
    ),
    Shape(name="Wayland that tells no idle time", seat=None, untold=("screen",)),
    Shape(name="X11 without logind", locks=False),
    Shape(
        name="no desktop",
        seat=False,
        locks=False,
        untold=("screen", "media", "calls", "gpus"),
        gamepads=False,
    ),
    Shape(name="macOS", clock_runs_in_sleep=True),
    Shape(name="Windows", terminals=False, clock_runs_in_sleep=True),
    Shape(
        name="Windows, as a service", seat=None, untold=("screen",), terminals=False, clock_runs_in_sleep=True
    ),
)


@dataclass(kw_only=True)
class Machine:
    """One machine of a shape, and the record of what was said while it was in use, and after."""

    shape: Shape
    clock: ScriptedClock = field(default_factory=ScriptedClock)
    probes: ScriptedProbes = field(default_factory=ScriptedProbes)
    looks: int = 0
    """While it was in use."""
    wrong: int = 0
    """Of these: idle."""
    codes: set[str] = field(default_factory=set)
    idle_after_s: float | None = None
    """How long after the last use it was idle again."""

    def __post_init__(self) -> None:
        self.desk = Session(
            name="2 of anna on seat0",
            user="anna",
            remote=False,
            active=True,
            locked=False if self.shape.locks else None,
        )
        self.probes.sessions = (self.desk,) if self.shape.seat is not False else ()
        self.probes.gpus = (GpuUse(name="0", others_ratio=0.0),)
        if self.shape.seat is not True:
            self.probes.input_idle_s = None
        if self.shape.seat is None:
            self.probes.other_seats = {"unreadable": None}
        for fact in self.shape.untold:
            setattr(self.probes, fact, None)
        self.monitor = Monitor(Policy.desktop(), clock=self.clock, probes=self.probes.probes)
        self.rest(15 * MINUTE)

    def _steps(self, seconds: float) -> Iterator[float]:
        passed_s = 0.0
        while passed_s < seconds:
            step_s = min(NEAR_STEP_S if passed_s < NEAR_S else FAR_STEP_S, seconds - passed_s)
            passed_s += step_s
            yield step_s

    def _look(self, step_s: float) -> State:
        frozen = self.shape.frozen_by_inhibitors and self.kept_on
        before_s = self.probes.input_idle_s
        self.probes.pass_time(self.clock, step_s)
        if frozen and before_s is not None:
            self.probes.input_idle_s = before_s
        verdict = self.monitor.check()
        self.last_codes = {reason.code for reason in verdict.reasons if reason.severity.value != "info"}
        return verdict.state

    kept_on: bool = False

    def in_use(self, seconds: float, act: Callable[[], None] = lambda: None, every_s: float = 1.0) -> None:
        """Somebody is there: it should be busy at every look. ``act`` is what they do so often."""
        since_s = every_s
        for step_s in self._steps(seconds):
            since_s += step_s
            if since_s >= every_s:
                act()
                since_s = 0.0
            state = self._look(step_s)
            self.looks += 1
            self.wrong += state is State.IDLE
            self.codes |= self.last_codes

    def rest(self, seconds: float) -> None:
        """Nobody is there, for all that counts here."""
        passed_s = 0.0
        self.idle_after_s = None
        for step_s in self._steps(seconds):
            passed_s += step_s
            if self._look(step_s) is State.IDLE and self.idle_after_s is None:
                self.idle_after_s = passed_s

    def touch(self) -> None:
        if self.shape.seat is True:
            self.probes.input_idle_s = 0.0

    def say(self, **facts: object) -> None:
        """Facts that this shape does not tell stay untold."""
        for fact, value in facts.items():
            if fact not in self.shape.untold:
                setattr(self.probes, fact, value)


def typing(machine: Machine) -> None:
    def press() -> None:
        machine.touch()
        if machine.shape.seat is False:
            machine.probes.terminals = {"tty1": 0.0}

    machine.in_use(10 * MINUTE, press, every_s=20)
    machine.in_use(4 * MINUTE)  # reading what was written


def mouse(machine: Machine) -> None:
    machine.in_use(10 * MINUTE, machine.touch, every_s=45)


def film(machine: Machine) -> None:
    machine.in_use(5, machine.touch)
    inhibitors = ("player",) if machine.shape.sees_inhibitors else ()
    machine.say(media=Media(playing=("player",), inhibitors=inhibitors), screen=Screen(fullscreen=(":0",)))
    machine.kept_on = True
    machine.in_use(40 * MINUTE)
    machine.say(media=Media(inhibitors=inhibitors))  # a silent scene
    machine.in_use(8)
    machine.say(media=Media(playing=("player",), inhibitors=inhibitors))
    machine.in_use(20 * MINUTE)
    machine.say(media=Media(), screen=Screen())
    machine.kept_on = False


def call(machine: Machine) -> None:
    machine.in_use(5, machine.touch)
    machine.say(calls=Calls(microphones=("meeting",)))
    machine.in_use(40 * MINUTE)
    machine.say(calls=Calls())
    machine.in_use(4 * MINUTE)  # whoever has hung up


def game(machine: Machine) -> None:
    machine.in_use(5, machine.touch)
    machine.say(screen=Screen(fullscreen=(":0",)))
    for _ in range(10):
        machine.say(gpus=(GpuUse(name="0", others_ratio=0.8),))
        if machine.shape.gamepads:
            machine.probes.other_seats["gamepad"] = 0.0
        machine.in_use(2 * MINUTE)
        machine.say(gpus=(GpuUse(name="0", others_ratio=0.0),))  # it loads the next level
        machine.in_use(8)
    machine.say(gpus=(GpuUse(name="0", others_ratio=0.0),), screen=Screen())


def ssh(machine: Machine) -> None:
    session = Session(name="9 of anna from afar", user="anna", remote=True, active=True, locked=None)
    machine.probes.sessions = (*(machine.probes.sessions or ()), session)

    def press() -> None:
        machine.probes.terminals = {"pts/0": 0.0}

    machine.in_use(15 * MINUTE, press, every_s=60)
    machine.probes.terminals = {}
    machine.probes.sessions = machine.probes.sessions[:-1]
    machine.in_use(4 * MINUTE)  # whoever left may come back


def lock_and_unlock(machine: Machine) -> None:
    machine.in_use(5, machine.touch)
    machine.probes.sessions = (dataclasses.replace(machine.desk, locked=True),)
    machine.rest(10 * MINUTE)
    machine.probes.sessions = (machine.desk,)  # by a finger on a reader: no key was pressed
    machine.in_use(4 * MINUTE)


def suspend_and_resume(machine: Machine) -> None:
    machine.clock.sleep_machine(8 * 60 * MINUTE)
    if machine.shape.clock_runs_in_sleep:
        machine.clock._monotonic_s += 8 * 60 * MINUTE
    machine.in_use(10)
    machine.clock.set_wall(-90.0)  # the time server corrects the clock
    machine.in_use(4 * MINUTE)


def crash(machine: Machine) -> None:
    machine.probes.raising = {"input": ConnectionError("the display server ended")}
    machine.in_use(10 * MINUTE)
    machine.probes.raising = {}
    machine.touch()


def hang(machine: Machine) -> None:
    for late_s in range(3):
        machine.probes.ages_s = {"input": float(late_s)}
        machine.rest(1)  # within the freshness bound of 3 s its last answer holds
    for late_s in range(4, 600, 20):
        machine.probes.ages_s = {"input": float(late_s)}
        machine.in_use(20)
    machine.probes.ages_s = {}
    machine.touch()


@dataclass(frozen=True, kw_only=True)
class Scenario:
    name: str
    play: Callable[[Machine], None]
    told: str
    needs: Callable[[Shape], str] = lambda shape: ""
    """Why it cannot be played there; empty: it can."""


def needs_desktop(shape: Shape) -> str:
    return "" if shape.seat is not False else "no desktop"


def needs_terminals(shape: Shape) -> str:
    return "" if shape.terminals or shape.seat is None else "not seen¹"


def needs_locks(shape: Shape) -> str:
    return "" if shape.locks else needs_desktop(shape) or "not told²"


SCENARIOS = (
    Scenario(name="typing", play=typing, told="a key each 20 s for 10 min, then 4 min of reading"),
    Scenario(name="mouse", play=mouse, told="a movement each 45 s for 10 min", needs=needs_desktop),
    Scenario(
        name="film",
        play=film,
        told="an hour of sound, a wish to keep the screen on and a full screen, with a silent scene, nothing touched",
        needs=needs_desktop,
    ),
    Scenario(
        name="call",
        play=call,
        told="a microphone open for 40 min, then 4 min, nothing touched",
        needs=needs_desktop,
    ),
    Scenario(
        name="game",
        play=game,
        told="20 min of a full screen and 80 % of the graphics processor, by a gamepad, with pauses of 8 s that load a level",
        needs=needs_desktop,
    ),
    Scenario(
        name="ssh",
        play=ssh,
        told="a log-in from afar, a key each minute for 15 min, a log-out, then 4 min in which they may come back",
        needs=needs_terminals,
    ),
    Scenario(
        name="lock, unlock",
        play=lock_and_unlock,
        told="10 min of a locked screen (may be lent), then unlocked without a key",
        needs=needs_locks,
    ),
    Scenario(
        name="sleep, wake",
        play=suspend_and_resume,
        told="8 h of sleep, then the wall clock is set back by 90 s",
    ),
    Scenario(name="crash", play=crash, told="input cannot be read for 10 min while somebody may type"),
    Scenario(
        name="hang",
        play=hang,
        told="the display server answers no more for 10 min (busy from 3 s on, by the policy)",
    ),
)


@cache
def played(shape: Shape, scenario: Scenario) -> Machine | str:
    """The machine after it; or why it cannot be played."""
    why_not = scenario.needs(shape)
    if why_not:
        return why_not
    machine = Machine(shape=shape)
    scenario.play(machine)
    machine.rest(15 * MINUTE)
    return machine


@pytest.mark.parametrize(
    ("shape", "scenario"),
    [
        pytest.param(shape, scenario, id=f"{shape.name}: {scenario.name}")
        for shape in SHAPES
        for scenario in SCENARIOS
        if not scenario.needs(shape)
    ],
)
def test_a_machine_in_use_is_never_taken_for_idle_and_one_that_is_not_is_lent_again(
    shape: Shape, scenario: Scenario
) -> None:
    machine = played(shape, scenario)
    assert isinstance(machine, Machine)
    assert machine.looks > 30
    assert machine.wrong == 0
    if shape.seat is None:
        assert machine.idle_after_s is None, "what cannot be read is never lent"
    else:
        assert machine.idle_after_s is not None
        assert machine.idle_after_s <= 6 * MINUTE


def test_the_matrix_can_fail() -> None:
    """A film on a desktop that tells nothing of it is not seen: the counting would show it."""
    shape = Shape(name="mute", untold=("screen", "media", "gpus"))
    machine = played(shape, next(one for one in SCENARIOS if one.name == "film"))
    assert isinstance(machine, Machine)
    assert machine.wrong > 100


def test_every_reason_that_a_scenario_is_for_was_given() -> None:
    given_codes = {
        code
        for shape in SHAPES
        for scenario in SCENARIOS
        if isinstance(machine := played(shape, scenario), Machine)
        for code in machine.codes
    }
    assert given_codes >= {
        "input.recent",
        "terminal.recent",
        "session.began",
        "session.ended",
        "session.unlocked",
        "session.woke",
        "call.microphone",
        "screen.fullscreen",
        "media.playing",
        "media.inhibitor",
        "load.gpu",
        "probe.missing",
        "probe.stale",
    }


def page() -> str:
    def table(cell: Callable[[Machine], str]) -> Iterator[str]:
        yield "| | " + " | ".join(scenario.name for scenario in SCENARIOS) + " |"
        yield "|---|" + "---|" * len(SCENARIOS)
        for shape in SHAPES:
            cells = [
                machine if isinstance(machine := played(shape, scenario), str) else cell(machine)
                for scenario in SCENARIOS
            ]
            yield f"| {shape.name} | " + " | ".join(cells) + " |"

    def count(machine: Machine) -> str:
        again = "never" if machine.idle_after_s is None else f"{machine.idle_after_s:.0f} s"
        return f"**{machine.wrong}** of {machine.looks}; {again}"

    machines = [
        machine
        for shape in SHAPES
        for scenario in SCENARIOS
        if isinstance(machine := played(shape, scenario), Machine)
    ]
    wrong, looks = sum(machine.wrong for machine in machines), sum(machine.looks for machine in machines)
    lines = [
        "# Taken for idle while in use",
        "",
        "What idle-sense says, second by second, while something happens at a machine: each scenario is played through a",
        "`Monitor` under `Policy.desktop()`, with scripted probes that tell what each kind of desktop tells. This page is written",
        "and checked by [test_idle_matrix.py](../../packages/idle-sense/tests/unit/test_idle_matrix.py). Whether a back end tells",
        "the truth of a real desktop is what the tests in `packages/idle-sense/tests/integration` try.",
        "",
        f"**Idle when it should have been busy: {wrong} of {looks} looks.**",
        "",
        "## The scenarios",
        "",
        *(f"- **{scenario.name}**: {scenario.told}." for scenario in SCENARIOS),
        "",
        "## Looks at which it was idle though in use, and how long after the last use it was idle again",
        "",
        *table(count),
        "",
        "`never`: input cannot be read there, so the machine is not lent at all, and the reason says how to mend it.",
        "",
        "¹ An ssh session on Windows is no session of the desktop: it shows as the load of what it runs, and by nothing else.",
        "",
        "² Nobody tells there whether a screen is locked. Unlocking takes a key or a pointer, which is seen.",
        "",
        "## What spoke for busy",
        "",
        *table(lambda machine: ", ".join(f"`{code}`" for code in sorted(machine.codes))),
        "",
        "The codes are explained in [reasons.md](reasons.md).",
        "",
    ]
    return "\n".join(lines)


def test_the_page_is_what_the_run_gives() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), f"write it anew: python {Path(__file__).name}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
