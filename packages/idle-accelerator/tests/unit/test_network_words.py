"""Hosts as patterns, what a job wishes and an owner lends, and how the two are matched."""

import ipaddress

import pytest
from pydantic import ValidationError

from idle_accelerator.core.match import lasting_mismatches
from idle_accelerator.errors import InvalidInput
from idle_accelerator.sdk.submission import command_draft
from idle_accelerator.wire.hosts import is_public, lent_host, wanted_host
from idle_accelerator.wire.jobs import Requirements
from idle_accelerator.wire.network import NetworkOffer, NetworkWish
from idle_accelerator.wire.nodes import NodeFacts
from idle_accelerator.wire.reasons import reason, render
from idle_accelerator.wire.resources import Resources


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("PyPI.org", "pypi.org"),
        ("pypi.org.", "pypi.org"),
        ("pypi.org:443", "pypi.org"),
        ("pypi.org:80", "pypi.org:80"),
        ("*.huggingface.co", "*.huggingface.co"),
        ("nas", "nas"),
        ("192.168.1.7:8000", "192.168.1.7:8000"),
        ("[2001:DB8::1]", "[2001:db8::1]"),
        ("[2001:db8::1]:8443", "[2001:db8::1]:8443"),
        ("2001:db8::1", "[2001:db8::1]"),
    ],
)
def test_a_host_has_one_way_to_be_written(text: str, canonical: str) -> None:
    assert str(wanted_host(text)) == canonical
    assert str(wanted_host(canonical)) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":443",
        "pypi.org:",
        "pypi.org:0",
        "pypi.org:65536",
        "pypi.org:x",
        "pypi.org:+1",
        "https://pypi.org",
        "a@b",
        "pypi.org/simple",
        "*",
        "*:80",
        "*.org",
        "*.co.uk",
        "*.com.cn",
        "a.*.org",
        "*a.org",
        "-a.org",
        "a..org",
        "é.org",
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0.0.0.0",
        "[::1]",
        "[::1",
        "169.254.169.254",
        "224.0.0.1",
        "fe80::1%lo",
        "192.168.0.0/16",
        "a b.org",
        "a\nb.org",
        "x" * 64 + ".org",
        "a." * 130 + "org",
    ],
)
def test_what_no_job_may_ask_for_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        wanted_host(text)
    with pytest.raises(ValidationError):
        NetworkWish(hosts=(text,))


@pytest.mark.parametrize(
    "text", ["*", "*:80", "192.168.0.0/16", "10.0.0.0/8:8000", "127.0.0.1:11434", "[fd00::/8]:443"]
)
def test_an_owner_may_lend_every_public_host_and_addresses_of_the_own_network(text: str) -> None:
    assert NetworkOffer(kind="proxy", hosts=(text,)).hosts[0].removesuffix(":443") == text.removesuffix(
        ":443"
    )


@pytest.mark.parametrize("text", ["192.168.0.1/16", "224.0.0.0/4", "*.org", "https://x"])
def test_what_no_owner_can_mean_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        lent_host(text)


@pytest.mark.parametrize(
    ("lent", "wanted", "covered"),
    [
        ("*", "pypi.org", True),
        ("*", "pypi.org:80", False),
        ("*", "*.huggingface.co", True),
        ("*", "8.8.8.8", True),
        ("*", "192.168.1.7", False),
        ("*.huggingface.co", "cdn.huggingface.co", True),
        ("*.huggingface.co", "a.b.huggingface.co", True),
        ("*.huggingface.co", "huggingface.co", False),
        ("*.huggingface.co", "evilhuggingface.co", False),
        ("*.huggingface.co", "*.huggingface.co", True),
        ("*.huggingface.co", "*.cdn.huggingface.co", True),
        ("*.cdn.huggingface.co", "*.huggingface.co", False),
        ("pypi.org", "pypi.org", True),
        ("pypi.org", "*.pypi.org", False),
        ("pypi.org", "pypi.org:8443", False),
        ("192.168.0.0/16:80", "192.168.1.7:80", True),
        ("192.168.0.0/16:80", "192.169.1.7:80", False),
        ("192.168.0.0/16:80", "nas.lan:80", False),
        ("192.168.0.0/16", "[fd00::1]", False),
    ],
)
def test_what_an_owner_lends_covers_what_is_within_it(lent: str, wanted: str, covered: bool) -> None:
    assert lent_host(lent).covers(wanted_host(wanted)) is covered


@pytest.mark.parametrize(
    ("text", "public"),
    [
        *[
            (text, True)
            for text in ("8.8.8.8", "1.1.1.1", "223.255.255.255", "2606:4700::1", "64:ff9b::808:808")
        ],
        *[
            (text, False)
            for text in ("0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.31.0.1")
        ],
        *[
            (text, False)
            for text in (
                "192.0.0.1",
                "192.168.0.1",
                "198.18.0.1",
                "224.0.0.1",
                "240.0.0.1",
                "255.255.255.255",
            )
        ],
        *[
            (text, False)
            for text in ("::", "::1", "fe80::1", "fd00::1", "ff02::1", "2001:db8::1", "2002:7f00:1::")
        ],
        *[(text, False) for text in ("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1")],
        *[
            (text, False)
            for text in ("64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808", "2001::1", "fec0::1", "3fff::1")
        ],
    ],
)
def test_only_hosts_of_the_public_internet_are_public(text: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(text)) is public


def test_an_open_network_and_named_hosts_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="exclude"):
        NetworkWish(open=True, hosts=("pypi.org",))


def facts(offer: NetworkOffer) -> NodeFacts:
    return NodeFacts(
        name="n", os="linux", arch="x", python="3.11", resources=Resources(cpus=2.0), network=offer
    )


def why_not(wish: NetworkWish, offer: NetworkOffer) -> list[tuple[str, object]]:
    found = lasting_mismatches(Requirements(network=wish), facts(offer), node_id="x")
    return [(item.code, item.params.get("needed")) for item in found]


OFF, OPEN, UNGUARDED = (NetworkOffer(kind=kind) for kind in ("off", "open", "unguarded"))
PYPI = NetworkOffer(kind="proxy", hosts=("pypi.org",))
BOTH = NetworkWish(hosts=("pypi.org", "example.org"))


def test_a_node_that_does_not_lend_the_hosts_is_told_apart_with_the_missing_ones() -> None:
    assert why_not(NetworkWish(), OFF) == []
    assert why_not(BOTH, OFF) == [("match.network_off", "pypi.org, example.org")]
    assert why_not(BOTH, PYPI) == [("match.network", "example.org")]
    assert why_not(NetworkWish(hosts=("pypi.org",)), PYPI) == []
    assert why_not(BOTH, OPEN) == []
    assert why_not(NetworkWish(hosts=("192.168.1.7",)), OPEN) == [("match.network", "192.168.1.7")]
    assert why_not(NetworkWish(hosts=("192.168.1.7",)), UNGUARDED) == []


def test_an_open_network_is_had_where_it_is_lent_or_nothing_is_guarded() -> None:
    wish = NetworkWish(open=True)
    assert [why_not(wish, offer) for offer in (OPEN, UNGUARDED)] == [[], []]
    assert [why_not(wish, offer) for offer in (OFF, PYPI)] == [[("match.network_open", None)]] * 2


def test_a_job_without_a_wish_says_nothing_of_it_on_the_wire() -> None:
    assert "network" not in Requirements().model_dump_json(exclude_defaults=True)
    wish = Requirements(network=BOTH)
    assert Requirements.model_validate_json(wish.model_dump_json()) == wish


def test_the_sdk_takes_hosts_or_open_and_names_what_is_wrong() -> None:
    def wished(network: object) -> NetworkWish:
        draft = command_draft(["true"], array=1, options={"network": network})  # pyright: ignore[reportArgumentType]
        return draft.spec.requirements.network

    assert wished(["PyPI.org:443"]) == NetworkWish(hosts=("pypi.org",))
    assert wished("open") == NetworkWish(open=True)
    assert wished([]) == NetworkWish()
    with pytest.raises(InvalidInput, match="names no hosts") as caught:
        wished("pypi.org")
    assert caught.value.hint == 'Write ["pypi.org"], or "open" for an open network.'
    with pytest.raises(InvalidInput, match=r"'\*\.org'.*whole top-level domain") as caught:
        wished(["pypi.org", "*.org"])
    assert caught.value.field == "network[1]"


def test_a_failures_sentence_says_what_was_refused() -> None:
    refused = reason("network.refused", host="a.org:443", detail="")
    why = reason("task.exit_code", exit_code=3, because=(refused,))
    assert (
        render(why)
        == "exited with status 3 (a.org:443 was refused: the job does not name it (--allow-host a.org:443))"
    )
    assert render(why, "zh").startswith("退出状态 3（a.org:443 被拒绝")
