"""What an owner lends by consent: hosts, an open network, graphics cards."""

import shutil
import sys
from pathlib import Path

import pytest

from idle_accelerator.agent import devices
from idle_accelerator.agent.consent import Consent, agree
from idle_accelerator.agent.devices import Card, CardsTaken, Devices
from idle_accelerator.agent.provisions import provide
from idle_accelerator.agent.sandbox import ways
from idle_accelerator.errors import InvalidInput
from idle_accelerator.wire.jobs import Requirements
from idle_accelerator.wire.network import NetworkWish

PROCESS = ways.of_process()
SANDBOX = PROCESS.model_copy(update={"tier": "bubblewrap", "net": "none at all", "gpu": "no devices"})
OTHER = PROCESS.model_copy(update={"tier": "landlock"})


def agreed(isolation=SANDBOX, **said: object) -> Consent:
    return agree(
        **{"network": "off", "allow_hosts": (), "bytes_per_s": None, "gpus": None, **said},
        isolation=isolation,
    )  # pyright: ignore[reportArgumentType]


def test_nothing_is_lent_unless_the_owner_says_so() -> None:
    found = agreed()
    assert (found.network.kind, found.cards, found.isolation, found.sentences()) == ("off", (), SANDBOX, ())


def test_hosts_are_lent_by_a_proxy_and_the_line_names_them() -> None:
    found = agreed(network="proxy", allow_hosts=("PyPI.org", "*"), bytes_per_s=2e6)
    assert found.network.hosts == ("pypi.org", "*")
    assert "by a proxy to pypi.org, any public host" in found.isolation.net
    assert found.sentences() == (
        "network of guests: by a proxy to pypi.org, any public host, at most 1.9 MiB/s each",
    )


def test_where_guests_are_plain_processes_the_network_is_as_it_is() -> None:
    assert agreed(PROCESS, network="proxy", allow_hosts=("pypi.org",)).network.kind == "unguarded"
    assert agreed(PROCESS).isolation == PROCESS


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"network": "maybe"}, "--network"),
        ({"allow_hosts": ("pypi.org",)}, "--allow-host"),
        ({"network": "proxy"}, "--allow-host"),
        ({"network": "proxy", "allow_hosts": ("*.org",)}, "--allow-host"),
        ({"network": "proxy", "allow_hosts": ("a.org",) * 201}, "--allow-host"),
        ({"network": "proxy", "allow_hosts": ("a.org",), "isolation": OTHER}, "--network"),
        ({"gpus": "0", "isolation": OTHER}, "--gpus"),
        ({"gpus": "some"}, "--gpus"),
        ({"gpus": "7"}, "--gpus"),
    ],
)
def test_what_cannot_be_lent_is_refused_with_its_flag(said: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        agreed(**said)  # pyright: ignore[reportArgumentType]
    assert caught.value.field == field
    assert caught.value.hint


@pytest.mark.skipif(sys.platform != "linux", reason="an open network is for Linux")
def test_an_open_network_takes_a_program_and_its_lack_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(InvalidInput, match="takes slirp4netns") as caught:
        agreed(network="open")
    assert "apt install slirp4netns" in (caught.value.hint or "")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Its drivers' own files, and files that stand for devices: two cards of NVIDIA's, in another order than their numbers, and one of AMD's."""
    for place, (minor, model) in {"0000:01:00.0": ("1", "A"), "0000:65:00.0": ("0", "B")}.items():
        folder = tmp_path / "proc/driver/nvidia/gpus" / place
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"Model: \t\t {model}\nIRQ: 1\nDevice Minor: \t {minor}\n")
    for number, (minor, name) in {"0": ("0", "cpu"), "1": ("128", "gfx1100")}.items():
        folder = tmp_path / "sys/class/kfd/kfd/topology/nodes" / number
        folder.mkdir(parents=True)
        (folder / "properties").write_text(f"cpu_cores_count 0\ndrm_render_minor {minor}\n")
        (folder / "name").write_text(f"{name}\n")
    (tmp_path / "dev/dri").mkdir(parents=True)
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "kfd", "dri/renderD128"):
        (tmp_path / "dev" / name).touch()
    return tmp_path


def test_cards_are_found_by_what_their_drivers_say(machine: Path) -> None:
    found = devices.cards(machine)
    assert [(card.maker, card.index, card.name) for card in found] == [
        ("nvidia", 0, "A"),
        ("nvidia", 1, "B"),
        ("amd", 0, "gfx1100"),
    ]
    assert [path.name for card in found for path in card.nodes] == ["nvidia1", "nvidia0", "renderD128"]
    assert [path.name for path in found[0].shared] == ["nvidiactl", "nvidia-uvm"]
    assert devices.cards(machine / "nowhere") == ()


def test_cards_are_lent_by_number_and_only_by_consent_to_a_sandbox(machine: Path) -> None:
    there = devices.cards(machine)
    assert devices.lent(None, there, tier="process") == there
    assert devices.lent(None, there, tier="bubblewrap") == ()
    assert devices.lent("all", there, tier="bubblewrap") == there
    assert devices.lent("none", there, tier="process") == ()
    assert devices.lent("2, 0", there, tier="bubblewrap") == (there[0], there[2])


def test_each_guest_gets_free_cards_of_one_maker_and_only_their_devices(machine: Path) -> None:
    book = Devices(devices.cards(machine), apart=True)
    assert book.take(0) is None
    first = book.take(1)
    assert first is not None
    assert [path.name for path in first.nodes] == ["nvidiactl", "nvidia-uvm", "nvidia1"]
    assert first.environment({"CUDA_VISIBLE_DEVICES": "7"})["CUDA_VISIBLE_DEVICES"] == "0", (
        "the only one that is there"
    )
    with pytest.raises(CardsTaken):
        book.take(2)
    second, third = book.take(1), book.take(1)
    assert second is not None
    assert third is not None
    assert [path.name for path in third.nodes] == ["kfd", "renderD128"]
    assert third.environment({})["ROCR_VISIBLE_DEVICES"] == "0"
    first.give_back()
    first.give_back()
    second.give_back()
    both = book.take(2)
    assert both is not None
    assert both.environment({})["NVIDIA_VISIBLE_DEVICES"] == "0,1"
    with pytest.raises(CardsTaken):
        book.take(2)


def test_a_plain_process_is_told_which_cards_are_its_own(machine: Path) -> None:
    nvidia = devices.cards(machine)[:2]
    book = Devices(nvidia, apart=False)
    first, second, none = book.take(1), book.take(1), book.take(0)
    assert first is not None
    assert second is not None
    assert none is not None
    assert (
        first.environment({})["CUDA_VISIBLE_DEVICES"],
        second.environment({})["CUDA_VISIBLE_DEVICES"],
    ) == ("0", "1")
    assert second.environment({})["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert none.environment({})["CUDA_VISIBLE_DEVICES"] == ""
    assert none.environment({"CUDA_VISIBLE_DEVICES": "0"})["CUDA_VISIBLE_DEVICES"] == "0", (
        "by its job's own word"
    )
    assert Devices((), apart=False).take(0) is None, "a machine without cards tells nothing"


def test_a_provision_is_nothing_for_a_task_that_asks_for_nothing() -> None:
    card = Card(maker="nvidia", index=0, name="A", nodes=(Path("/dev/nvidia0"),), shared=())
    book = Devices((card,), apart=True)
    plain = provide(Requirements(), ways=None, devices=book, job="j")
    assert (plain.way, plain.devices, plain.environment({"A": "b"})) == (None, (), {"A": "b"})
    assert plain.explain(None) is None
    given = provide(Requirements(gpus=1, network=NetworkWish(open=True)), ways=None, devices=book, job="j")
    assert given.devices == (Path("/dev/nvidia0"),)
    given.give_back()
    provide(Requirements(gpus=1), ways=None, devices=book, job="j").give_back()
