"""Graphics cards that the owner lends, which of them are taken, and what of the machine a task needs to use one.

NVIDIA: /dev/nvidiaN of the card, and the devices of the driver that all cards share (the driver's own documentation, and what
nvidia-container-toolkit gives to containers); the libraries stand in /usr and in the loader's cache, /proc/driver/nvidia is in every /proc.
AMD: /dev/kfd and the card's /dev/dri/renderD*, by the kernel's own list of what computes (/sys/class/kfd/kfd/topology).

Verified as signature-only: no card was there to be tried. What is given to a guest was tried with devices that stand for them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal

from idle_accelerator.errors import IdleError, InvalidInput

FLAG: Final = "--gpus"
_NVIDIA: Final = "proc/driver/nvidia/gpus"
_NVIDIA_SHARED: Final = (
    "dev/nvidiactl",
    "dev/nvidia-uvm",
    "dev/nvidia-uvm-tools",
    "dev/nvidia-modeset",
)
_KFD: Final = "sys/class/kfd/kfd/topology/nodes"
_AMD_SHARED: Final = ("dev/kfd",)
_VARIABLES: Final = {
    "nvidia": ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"),
    "amd": ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"),
}
"""By which programs are told which cards are theirs, by maker: the first of each is the one that its runtime obeys."""
Maker = Literal["nvidia", "amd"]


class CardsTaken(IdleError):
    """Fewer cards are free than a task asks for: it is given back, and costs nothing."""

    code: ClassVar[str] = "cards_taken"


@dataclass(frozen=True, kw_only=True)
class Card:
    """One graphics card."""

    maker: Maker
    index: int
    """Among the cards of its maker, as their runtime counts them: by place on the bus."""
    name: str
    nodes: tuple[Path, ...]
    """Its own devices."""
    shared: tuple[Path, ...]
    """Those of the driver, which every card needs."""


def cards(root: Path = Path("/")) -> tuple[Card, ...]:
    """The cards of this machine, from the drivers' own files. Newer drivers wake a sleeping card for that: once, at the start."""
    return (*_nvidia(root), *_amd(root))


def lent(wanted: int | str | None, there: Sequence[Card], *, tier: str) -> tuple[Card, ...]:
    """Those that the owner lends: so many, ``all``, ``none``, or their numbers in ``there`` such as ``0,2``.

    None: all where guests are plain processes and see them anyway, else none. Raises InvalidInput.
    """
    if wanted is None:
        return tuple(there) if tier == "process" else ()
    if wanted in ("none", 0):
        return ()
    if tier not in ("process", "bubblewrap"):
        raise InvalidInput(
            f"guests of the tier {tier} see no graphics card.",
            field=FLAG,
            hint=f"Leave it out, or say {FLAG} none.",
        )
    if wanted == "all":
        return tuple(there)
    if isinstance(wanted, int):
        return tuple(there[:wanted])
    numbers = [text.strip() for text in wanted.split(",")]
    if not all(text.isascii() and text.isdecimal() for text in numbers):
        raise InvalidInput(
            f"{wanted!r} names no graphics cards.",
            field=FLAG,
            hint="Write all, none, or numbers from 0 on, such as 0,2.",
        )
    chosen = sorted({int(text) for text in numbers})
    if chosen[-1] >= len(there):
        listed = ", ".join(f"{place}: {card.name}" for place, card in enumerate(there)) or "none"
        raise InvalidInput(
            f"this machine has no graphics card {chosen[-1]}.", field=FLAG, hint=f"There are: {listed}."
        )
    return tuple(there[number] for number in chosen)


class Devices:
    """Which of the lent cards are taken. All calls are made from one thread."""

    def __init__(self, lent_cards: Sequence[Card], *, apart: bool) -> None:
        """``apart``: guests see those devices only that they are given; else they see all, and are told which are theirs."""
        self._free = list(lent_cards)
        self._makers: Final[tuple[Maker, ...]] = tuple(dict.fromkeys(card.maker for card in lent_cards))
        self._apart = apart

    def take(self, count: int) -> "Taken | None":
        """None where the machine lends no card, or none is asked for and guests see none. Raises CardsTaken. See ``Taken.give_back``."""
        if not count:
            return (
                None if self._apart or not self._makers else Taken(self, (), makers=self._makers, apart=False)
            )
        # Cards of one maker: no program uses two makers' at once.
        for maker in self._makers:
            own = [card for card in self._free if card.maker == maker][:count]
            if len(own) == count:
                for card in own:
                    self._free.remove(card)
                return Taken(self, tuple(own), makers=self._makers, apart=self._apart)
        raise CardsTaken(f"{count} graphics card(s) of one kind are wanted, fewer are free.")

    def take_back(self, given: Sequence[Card]) -> None:
        """They are free again."""
        self._free.extend(given)
        self._free.sort(key=lambda card: (card.maker, card.index))


class Taken:
    """The cards of one guest."""

    def __init__(
        self, devices: Devices, given: tuple[Card, ...], *, makers: tuple[Maker, ...], apart: bool
    ) -> None:
        self._devices = devices
        self._cards = given
        self._makers = makers
        self._apart = apart

    @property
    def nodes(self) -> tuple[Path, ...]:
        """The devices that it needs, and no others."""
        listed = [path for card in self._cards for path in (*card.shared, *card.nodes)]
        return tuple(dict.fromkeys(listed))

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """``env``, and which cards are the guest's. One that asks for no card is told that it has none, unless its job says otherwise."""
        if not self._cards:
            return {**dict.fromkeys((_VARIABLES[maker][0] for maker in self._makers), ""), **env}
        maker = self._cards[0].maker
        # Where the others are not there, the runtime counts those that are.
        numbers = range(len(self._cards)) if self._apart else [card.index for card in self._cards]
        told = dict.fromkeys(_VARIABLES[maker], ",".join(map(str, numbers)))
        return {**env, **told, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}

    def give_back(self) -> None:
        """Idempotent."""
        given, self._cards = self._cards, ()
        self._devices.take_back(given)


def _nvidia(root: Path) -> Iterator[Card]:
    shared = tuple(path for name in _NVIDIA_SHARED if (path := root / name).exists())
    # By place on the bus: so CUDA counts them too, when it is told to.
    for index, path in enumerate(sorted((root / _NVIDIA).glob("*/information"))):
        told = _fields(path, ":")
        node = root / f"dev/nvidia{told.get('Device Minor', str(index))}"
        yield Card(
            maker="nvidia",
            index=index,
            name=told.get("Model") or "NVIDIA GPU",
            nodes=(node,) if node.exists() else (),
            shared=shared,
        )


def _amd(root: Path) -> Iterator[Card]:
    shared = tuple(path for name in _AMD_SHARED if (path := root / name).exists())
    found = 0
    for folder in sorted(
        (root / _KFD).glob("*"), key=lambda path: int(path.name) if path.name.isdecimal() else 0
    ):
        told = _fields(folder / "properties", " ")
        minor = told.get("drm_render_minor", "0")
        if minor == "0":  # a processor: it computes as well, but is no card
            continue
        node = root / f"dev/dri/renderD{minor}"
        yield Card(
            maker="amd",
            index=found,
            name=next(iter(_lines(folder / "name")), "") or "AMD GPU",
            nodes=(node,) if node.exists() else (),
            shared=shared,
        )
        found += 1


def _fields(path: Path, sign: str) -> dict[str, str]:
    pairs = (line.partition(sign) for line in _lines(path))
    return {name.strip(): value.strip() for name, _, value in pairs}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
