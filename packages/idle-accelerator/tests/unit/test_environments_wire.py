"""What may stand in a job's list of requirements, and what a node must have to take the job."""

import pytest
from pool_builders import command_spec, function_spec, node_facts, requirements
from pydantic import ValidationError

from idle_accelerator.core.match import lasting_mismatches
from idle_accelerator.scheduler.store.waiting import requirements_of
from idle_accelerator.wire.environments import (
    LIMIT_BYTES,
    MAX_HASHES,
    MAX_REQUIREMENTS,
    Environment,
    EnvironmentKind,
    RequirementProblem,
    canonical_text,
    parse_requirements,
)
from idle_accelerator.wire.nodes import EnvironmentFacts

HASH = "--hash=sha256:" + "a" * 64
OTHER = "--hash=sha256:" + "b" * 64


def canonical(text: str) -> str:
    return canonical_text(parse_requirements(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("six", "six\n"),
        ("Foo_Bar.baz", "foo-bar-baz\n"),
        ("six >= 1.0 , < 2", "six<2,>=1.0\n"),
        ("six (>=1.0)", "six>=1.0\n"),
        ("six~=1.4.2", "six~=1.4.2\n"),
        ("six===1.0-odd", "six===1.0-odd\n"),
        ("six==1!2.0+local.1", "six==1!2.0+local.1\n"),
        ("dask[ Array,dataframe ]>=2024", "dask[array,dataframe]>=2024\n"),
        ("six ; python_version >= '3.12'", "six ; python_version >= '3.12'\n"),
        ("six;  (os_name=='nt') or  extra == \"x\"", "six ; (os_name=='nt') or extra == \"x\"\n"),
        (f"six==1.0 {OTHER} {HASH}", f"six==1.0 {HASH} {OTHER}\n"),
        (f"six==1.0 \\\n    {HASH} \\\n    {HASH}", f"six==1.0 {HASH}\n"),
        (f"six==1.0 --hash sha256:{'a' * 64}", f"six==1.0 {HASH}\n"),
        ("# a comment\nsix # another\n\n  \nb\r\na\rc\n", "a\nb\nc\nsix\n"),
        ("six \\\n# in between\n  ==1.0", "six==1.0\n"),
        ("\tsix\t==\t1.0", "six==1.0\n"),
    ],
)
def test_what_means_the_same_is_written_the_same(text: str, expected: str) -> None:
    assert canonical(text) == expected


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-r other.txt", "put what that file says here"),
        ("--requirement=other.txt", "put what that file says here"),
        ("-rother.txt", "put what that file says here"),
        ("-c limits.txt", "put what that file says here"),
        ("-e .", "input files"),
        ("--editable=git+https://example.org/x", "input files"),
        ("-i https://example.org/simple", "owner"),
        ("--index-url https://example.org/simple", "owner"),
        ("--extra-index-url=https://example.org", "owner"),
        ("--find-links /tmp", "owner"),
        ("-f/tmp", "owner"),
        ("--no-index", "owner"),
        ("--trusted-host example.org", "only option"),
        ("--config-settings=x", "only option"),
        ("--no-binary :all:", "only option"),
        ("six @ https://example.org/six.whl", "name==version"),
        ("six@file:///etc/passwd", "name==version"),
        ("git+https://example.org/x", "name==version"),
        ("https://example.org/six-1.0-py3-none-any.whl", "name==version"),
        ("./local", "by its name"),
        ("../local", "by its name"),
        ("/absolute", "by its name"),
        ("~/home", "by its name"),
        ("C:\\here", "by its name"),
        ("six-1.0-py3-none-any.whl", "by its name"),
        ("six==1.0/../x", "by its name"),
        ("six ==", "by its name"),
        ("six=1.0", "by its name"),
        ("six==1.0 extra", "by its name"),
        ("$HOME", "by its name"),
        ("${SECRET}==1", "by its name"),
        ("six==1.0 --global-option=x", "--hash"),
        ("six==1.0 --config-settings x", "--hash"),
        ("six==1.0 --hash=md5:" + "a" * 32, "sha256"),
        ("six==1.0 --hash=sha256:short", "sha256"),
        ("six==1.0 --hash=sha256:" + "A" * 64, "sha256"),
        ("six==1.0 --hash", "sha256"),
        ("six ; `id`", "as in"),
        ("six ; \N{LATIN SMALL LETTER E WITH ACUTE}", "as in"),
        ("s\N{CYRILLIC SMALL LETTER I}x", "by its name"),
        ("six\0", "plain text"),
        ("six\x0b==1", "plain text"),
        ("six\N{RIGHT-TO-LEFT OVERRIDE}", "plain text"),
    ],
)
def test_what_could_lead_elsewhere_is_refused_with_its_line_and_what_to_write(line: str, said: str) -> None:
    with pytest.raises(RequirementProblem) as caught:
        parse_requirements(f"numpy\n\n{line}\nscipy")
    assert caught.value.line == 3
    assert said in caught.value.hint
    with pytest.raises(ValidationError, match="line 3"):
        Environment(requirements=f"numpy\n\n{line}")


def test_a_password_in_an_address_is_not_repeated() -> None:
    with pytest.raises(RequirementProblem) as caught:
        parse_requirements("six @ https://me:secret@example.org/x")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "\n", "# nothing", " \\\n"])
def test_no_requirements_are_refused(text: str) -> None:
    with pytest.raises(RequirementProblem, match="no requirements"):
        parse_requirements(text)


@pytest.mark.parametrize(
    "text",
    [
        "a\n" * (MAX_REQUIREMENTS + 1),
        "six==1.0 " + " ".join(f"--hash=sha256:{number:064x}" for number in range(MAX_HASHES + 1)),
        "a" * LIMIT_BYTES,
        "a" + " " * (LIMIT_BYTES - 2) + "!",
        "six==" + "1." * 100_000,
        "six" + "," * 200_000,
        "six " + "(" * 200_000,
        "six[" + "a," * 100_000,
        "six;" + "(" * 200_000,
        "six \\\n" * 30_000 + "!",
        "#" * (LIMIT_BYTES - 1),
        ". " * 100_000,
    ],
)
def test_endless_lines_are_refused_without_much_ado(text: str) -> None:
    with pytest.raises((RequirementProblem, ValidationError)):
        Environment(requirements=text)


def test_too_large_a_list_is_refused() -> None:
    with pytest.raises(ValidationError):
        Environment(requirements="# " + "x" * LIMIT_BYTES + "\nsix")
    with pytest.raises(ValidationError, match="bytes"):
        Environment(requirements="# " + "\N{CJK UNIFIED IDEOGRAPH-4E00}" * (LIMIT_BYTES // 2) + "\nsix")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (f"six==1.0 {HASH}\nidna==3.10 {OTHER}", "locked"),
        (f"six==1.0 {HASH}\nidna", "unlocked"),
        (f"six {HASH}", "unlocked"),
        (f"six>=1.0 {HASH}", "unlocked"),
        (f"six==1.* {HASH}", "unlocked"),
        ("six==1.0", "unlocked"),
    ],
)
def test_locked_is_what_names_one_version_and_the_hashes_of_its_files(text: str, kind: str) -> None:
    assert Environment(requirements=text).kind == kind


def test_another_python_is_another_environment() -> None:
    digests = {Environment(requirements="six", python=python).digest for python in (None, "3.11", "3.12")}
    assert len(digests) == 3


@pytest.mark.parametrize("python", ["3", "2.7", "3.11.4", "3.x", "3.11\n", ""])
def test_a_python_is_named_by_its_minor_version(python: str) -> None:
    with pytest.raises(ValidationError):
        Environment(requirements="six", python=python)


def test_a_function_and_its_environment_are_of_one_python() -> None:
    function_spec(environment=Environment(requirements="six", python="3.11"))
    with pytest.raises(ValidationError, match=r"3\.12"):
        function_spec(environment=Environment(requirements="six", python="3.12"))


def codes(
    environment: Environment | None,
    builds: EnvironmentFacts | None,
    *,
    claimed: EnvironmentKind | None = None,
) -> list[str]:
    spec = command_spec(environment=environment, requirements=requirements(environment=claimed))
    facts = node_facts(environments=builds)
    return [item.code for item in lasting_mismatches(requirements_of(spec), facts, node_id="n")]


LOCKED = Environment(requirements=f"six==1.0 {HASH}")
LOOSE = Environment(requirements="six")


@pytest.mark.parametrize(
    ("environment", "builds", "expected"),
    [
        (None, None, []),
        (LOCKED, None, ["match.environments"]),
        (LOCKED, EnvironmentFacts(pythons=("3.11",)), []),
        (LOOSE, EnvironmentFacts(pythons=("3.11",)), ["match.environment_unlocked"]),
        (LOOSE, EnvironmentFacts(pythons=("3.11",), unlocked=True), []),
        (
            LOCKED.model_copy(update={"python": "3.12"}),
            EnvironmentFacts(pythons=("3.11",)),
            ["match.environment_python"],
        ),
        (LOCKED.model_copy(update={"python": "3.12"}), EnvironmentFacts(pythons=("3.11", "3.12")), []),
    ],
)
def test_a_node_takes_what_it_can_make(
    environment: Environment | None, builds: EnvironmentFacts | None, expected: list[str]
) -> None:
    assert codes(environment, builds) == expected


def test_a_functions_python_is_that_of_its_environment_not_the_agents() -> None:
    spec = function_spec(environment=LOCKED)
    builds = EnvironmentFacts(pythons=("3.13", "3.11"))
    facts = node_facts(python="3.13", environments=builds)
    assert lasting_mismatches(requirements_of(spec), facts, node_id="n") == ()
    assert lasting_mismatches(requirements_of(function_spec()), facts, node_id="n")


def test_a_submitter_does_not_say_by_hand_what_the_scheduler_reads_from_the_environment() -> None:
    assert codes(None, None, claimed="locked") == []
    assert codes(LOOSE, EnvironmentFacts(pythons=("3.11",)), claimed="locked") == [
        "match.environment_unlocked"
    ]
