"""The owner's file: what it may say, what a mistake in it looks like, and how it is taken up."""

import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from idle_accelerator.agent import terms
from idle_accelerator.agent.config import AgentConfig
from idle_accelerator.agent.owner_file import OwnerFile
from idle_accelerator.agent.taking_up import defaults_of, rules_of
from idle_accelerator.cli import main
from idle_accelerator.errors import InvalidInput
from idle_accelerator.wire.resources import Resources
from idle_sense import Policy

DOCS = Path(__file__).parents[4] / "docs"
PAGE = (DOCS / "reference/owner-file.md").read_text(encoding="utf-8")
TOTAL = Resources(cpus=8, memory_bytes=16 << 30, disk_bytes=1 << 40)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    facts = path.stat()
    os.utime(
        path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1_000_000)
    )  # two writes within one tick differ too
    return path


def config_of(file: OwnerFile) -> AgentConfig:
    values: dict[str, Any] = file.values()
    return AgentConfig(**{"scheduler_url": "http://h", **values}, data_dir=file.path.parent, owner_file=file)


def test_every_setting_is_a_field_of_the_agents_configuration() -> None:
    named = {item.name for item in fields(AgentConfig)}
    assert [setting.field for setting in terms.SETTINGS if setting.field not in named] == []
    assert set(defaults_of(AgentConfig)) == {setting.field for setting in terms.SETTINGS}
    assert len({setting.key for setting in terms.SETTINGS}) == len(terms.SETTINGS)


def test_the_example_of_the_page_says_every_setting_and_is_understood(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    file = OwnerFile(write(tmp_path / "owner.toml", example), required=True)
    said = {term.setting.key for term in file.terms(defaults_of(AgentConfig)) if term.origin != "default"}
    assert said == {setting.key for setting in terms.SETTINGS}
    config = config_of(file)
    assert (config.cpus, config.present_cpus, config.grace_s) == (8, 3, 30)
    rules = rules_of(config, TOTAL, Policy.desktop())
    assert rules.present is not None
    assert rules.present.cpus == 3


def test_the_table_of_the_page_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]*) \| ([^|]*) \| ([^|]*) \|$", PAGE, re.MULTILINE)
    assert [(key, flag.strip(" `"), when, meaning) for key, flag, when, meaning in rows] == [
        (
            setting.key,
            setting.flag or "",
            "at once" if setting.live else "at the next start",
            setting.meaning,
        )
        for setting in terms.SETTINGS
    ]


def test_no_file_says_nothing(tmp_path: Path) -> None:
    file = OwnerFile(tmp_path / "owner.toml")
    assert file.values() == {}
    assert {term.origin for term in file.terms(defaults_of(AgentConfig))} == {"default"}
    assert rules_of(config_of(file), TOTAL, Policy.desktop()).present is None, (
        "nothing runs on unless said so"
    )


def test_a_flag_goes_before_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "owner.toml", 'grace = "30s"\n[share]\ncpus = 2\n')
    file = OwnerFile(path, {"grace": 7.0})
    assert (file.values()["grace_s"], file.values()["cpus"]) == (7.0, 2.0)
    origins = {term.setting.key: term.origin for term in file.terms(defaults_of(AgentConfig))}
    assert (origins["grace"], origins["share.cpus"]) == ("--grace", f"{path}, line 3")


@pytest.mark.parametrize(
    ("text", "where", "hint"),
    [
        ("grace = 5\n", "line 1: grace", "10m"),
        ('\ngrace = "soon"\n', "line 2: grace", "90s"),
        ("[share]\ncpus = 0\n", "line 2: share.cpus", "Leave it out"),
        ("[share]\n# many\ncpus = -1\n", "line 3: share.cpus", "3 or 0.5"),
        ("[share]\ncpus = true\n", "line 2: share.cpus", "3 or 0.5"),
        ("[share.present]\ncpus = nan\n", "line 2: share.present.cpus", "3 or 0.5"),
        ("[share.present]\ngpus = 1.5\n", "line 2: share.present.gpus", "1"),
        ('[share]\nmemory = "much"\n', "line 2: share.memory", "512M"),
        ("share = 3\n", "line 1: share", "[share]"),
        ("[share.presnt]\ncpus = 1\n", "line 1: share.presnt", "share.present"),
        ('polcy = "lab"\n', "line 1: polcy", "policy"),
        ('scheduler = "ftp://h"\n', "line 1: scheduler", "https://HOST:PORT"),
        ('policy = "mine"\n', "line 1: policy", '"lab"'),
        ('on_battery = "no"\n', "line 1: on_battery", '"freeze"'),
        ('[hours]\nlend = ["25:00-26:00"]\n', "line 2: hours.lend", "mon-fri"),
        ("[hours]\nlend = []\n", "line 2: hours.lend", "at all hours"),
        ('[share.present]\nduring = ["naps"]\n', "line 2: share.present.during", '"calls"'),
        ("[labels]\nroom = 12\n", "labels.room", "quotes"),
        ("grace = \n", "line 1", "one setting a line"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_the_mend(
    tmp_path: Path, text: str, where: str, hint: str
) -> None:
    path = write(tmp_path / "owner.toml", text)
    with pytest.raises(InvalidInput) as caught:
        OwnerFile(path)
    assert str(path) in (caught.value.field or "")
    assert where in (caught.value.field or "")
    assert hint in (caught.value.hint or "")


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no such file"):
        OwnerFile(tmp_path / "mine.toml", required=True)


def test_a_change_is_read_and_a_broken_one_leaves_the_last_good_terms(tmp_path: Path) -> None:
    path = write(tmp_path / "owner.toml", 'grace = "30s"\n')
    file = OwnerFile(path)
    assert not file.look(), "nothing has changed"
    write(path, 'grace = "40s"\n')
    assert file.look()
    assert file.values()["grace_s"] == 40
    write(path, 'grace = "40 moons"\n[share]\n')
    assert file.look()
    assert file.values()["grace_s"] == 40
    assert file.problem is not None
    assert "line 1: grace" in str(file.problem.params["detail"])
    write(path, 'grace = "50s" # mended\n')
    assert file.look()
    assert (file.values()["grace_s"], file.problem) == (50, None)
    path.unlink()
    assert file.look()
    assert file.values() == {}, "a file that was removed says nothing"


def test_memory_follows_the_cores_where_it_is_left_out(tmp_path: Path) -> None:
    file = OwnerFile(write(tmp_path / "owner.toml", "[share.present]\ncpus = 2\n"))
    present = rules_of(config_of(file), TOTAL, Policy.desktop()).present
    assert present is not None
    assert (present.cpus, present.memory_bytes, present.gpus) == (2, 4 << 30, 0)


def test_no_share_is_larger_than_what_is_lent_at_all(tmp_path: Path) -> None:
    text = '[share.present]\ncpus = 99\nmemory = "999G"\ngpus = 9\n'
    file = OwnerFile(write(tmp_path / "owner.toml", text))
    assert rules_of(config_of(file), TOTAL, Policy.desktop()).present == TOTAL


def test_the_command_shows_terms_and_where_they_come_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "owner.toml", "[share.present]\ncpus = 3\n")
    assert main(["terms", "--data-dir", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    (row,) = [line for line in shown.out.splitlines() if line.startswith("share.present.cpus")]
    assert row.split()[1:5] == ["3", "owner.toml,", "line", "2"]
    assert "no agent runs" in shown.err


def test_the_command_refuses_a_broken_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "mine.toml", "grace = 5\n")
    assert main(["terms", "--owner-file", str(path), "--json"]) == 1
    assert "line 1: grace" in capsys.readouterr().err
