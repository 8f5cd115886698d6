"""The proxy's reading of requests, and its look at addresses."""

import ipaddress
import sys

import pytest

from idle_accelerator.agent.network import names, reaching, requests
from idle_accelerator.agent.network.reaching import RefusedError, permitted
from idle_accelerator.agent.network.requests import NotUnderstoodError
from idle_accelerator.wire.hosts import Address, lent_host


def read(text: str) -> requests.Wanted:
    return requests.read(text.encode("latin-1"))


def test_a_tunnel_names_host_and_port() -> None:
    wanted = read("CONNECT PyPI.org:443 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (wanted.name, wanted.port, wanted.first, str(wanted)) == ("pypi.org", 443, b"", "pypi.org:443")
    assert str(read("CONNECT [2001:DB8::1]:8443 HTTP/1.0\r\n\r\n")) == "[2001:db8::1]:8443"


def test_a_plain_request_is_made_anew_for_its_host() -> None:
    wanted = read(
        "POST http://A.org/x?y=1#z HTTP/1.1\r\nHost: b.org\r\nProxy-Connection: keep-alive\r\n"
        "connection: keep-alive\r\nContent-Length: 3\r\n\r\n"
    )
    assert (wanted.name, wanted.port) == ("a.org", 80)
    assert wanted.first == (
        b"POST /x?y=1 HTTP/1.1\r\nHost: A.org\r\nConnection: close\r\nContent-Length: 3\r\n\r\n"
    )


@pytest.mark.parametrize(
    "line",
    [
        "CONNECT pypi.org HTTP/1.1",
        "CONNECT pypi.org: HTTP/1.1",
        "CONNECT pypi.org:0 HTTP/1.1",
        "CONNECT pypi.org:99999 HTTP/1.1",
        "CONNECT pypi.org:٣ HTTP/1.1",
        "CONNECT 127.1:443 HTTP/1.1",
        "CONNECT a@b:443 HTTP/1.1",
        "CONNECT a.org:443 HTTP/2",
        "CONNECT a.org:443",
        "GET / HTTP/1.1",
        "GET https://a.org/ HTTP/1.1",
        "GET ftp://a.org/ HTTP/1.1",
        "GET http://u:p@a.org/ HTTP/1.1",
        "GET http://[::1/ HTTP/1.1",
        "GET http://a.org:x/ HTTP/1.1",
        "GET http:/// HTTP/1.1",
        "GET http://a.org/ HTTP/1.1\r\nX: 1\r\n Y: 2",
        "nonsense",
        "",
    ],
)
def test_what_is_no_request_for_a_proxy_is_refused_with_a_sentence(line: str) -> None:
    with pytest.raises(NotUnderstoodError, match=r"\w+ .*\.$"):
        requests.read(f"{line}\r\n\r\n".encode())


def addresses(*texts: str) -> list[Address]:
    return [ipaddress.ip_address(text) for text in texts]


def test_of_what_a_name_leads_to_only_public_addresses_are_taken() -> None:
    assert permitted(addresses("10.0.0.1", "8.8.8.8", "::1"), 443, named=[]) == addresses("8.8.8.8")
    with pytest.raises(RefusedError) as caught:
        permitted(addresses("169.254.169.254", "127.0.0.1"), 443, named=[lent_host("*")])
    assert (caught.value.code, caught.value.detail) == ("network.not_public", "169.254.169.254")


def test_an_address_that_the_owner_names_is_taken_at_that_port_alone() -> None:
    named = [lent_host("10.0.0.0/8:8000"), lent_host("nas.lan:80")]
    assert permitted(addresses("10.0.0.1"), 8000, named=named) == addresses("10.0.0.1")
    for text, port in (("10.0.0.1", 80), ("192.168.0.1", 8000)):
        with pytest.raises(RefusedError):
            permitted(addresses(text), port, named=named)


def test_a_public_address_of_this_machine_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaching, "is_own", lambda address: str(address) == "8.8.4.4")
    assert permitted(addresses("8.8.4.4", "8.8.8.8"), 443, named=[lent_host("*")]) == addresses("8.8.8.8")


@pytest.mark.skipif(sys.platform != "linux", reason="the proxy is for Linux")
def test_this_machine_knows_its_own_addresses() -> None:
    assert reaching.is_own(ipaddress.ip_address("127.0.0.1"))
    assert not reaching.is_own(ipaddress.ip_address("192.0.2.53"))


def test_the_resolver_is_the_first_that_the_machine_names() -> None:
    assert (
        names.resolver("# x\nsearch lan\nnameserver nonsense\nnameserver 10.0.0.1\nnameserver 10.0.0.2\n")
        == "10.0.0.1"
    )
    assert names.resolver("nameserver fe80::1\n") == "fe80::1"
    assert names.resolver("") == "127.0.0.1"
