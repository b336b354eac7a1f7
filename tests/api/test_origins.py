"""Who asks: addresses behind proxies, origins, cookies and tokens out of headers."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradeback.api.origins import Origins, Peer, Proxies, Site, bearer_of, cookie_of


def headers(**values: str | list[str]):  # type: ignore[no-untyped-def]
    def get(name: str) -> Sequence[str]:
        held = values.get(name.replace("-", "_"), [])
        return [held] if isinstance(held, str) else held

    return get


NONE = Proxies(())
TRUSTED = Proxies(("10.0.0.0/8", "::1", "127.0.0.1"))


@pytest.mark.parametrize(
    ("peer", "chain", "client"),
    [
        ("203.0.113.9", ["1.2.3.4"], "203.0.113.9"),  # nobody whom we trust says so
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", ["6.6.6.6, 1.2.3.4"], "1.2.3.4"),  # the client wrote the first itself
        ("10.0.0.1", ["6.6.6.6", "1.2.3.4, 10.0.0.7"], "1.2.3.4"),
        ("10.0.0.1", ["10.0.0.9, 10.0.0.7"], "10.0.0.9"),
        ("10.0.0.1", ["1.2.3.4:5678"], "1.2.3.4"),
        ("10.0.0.1", ["[2001:db8::1]:5678"], "2001:db8::1"),
        ("10.0.0.1", ["1.2.3.4, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3.4, unknown, 10.0.0.7"], "10.0.0.7"),
        ("10.0.0.1", ["<script>"], "10.0.0.1"),
        ("::1", ["2001:db8::1"], "2001:db8::1"),
        ("::ffff:10.0.0.1", ["1.2.3.4"], "1.2.3.4"),
        ("", ["1.2.3.4"], ""),
    ],
)
def test_the_client_behind_proxies(peer: str, chain: list[str], client: str) -> None:
    assert TRUSTED.client(peer, headers(x_forwarded_for=chain, host="h")).address == client
    assert NONE.client(peer, headers(x_forwarded_for=chain, host="h")).address == peer


def test_tls_and_host_are_a_trusted_proxys_word_only() -> None:
    told = headers(x_forwarded_proto="https", x_forwarded_host="ticks.example", host="backend:8080")
    assert TRUSTED.client("10.0.0.1", told) == Peer("10.0.0.1", True, "ticks.example")
    assert TRUSTED.client("1.1.1.1", told) == Peer("1.1.1.1", False, "backend:8080")
    assert NONE.client("10.0.0.1", told) == Peer("10.0.0.1", False, "backend:8080")
    assert TRUSTED.client("10.0.0.1", headers(host="h")).host == "h"


def test_a_client_of_ipv6_is_its_64() -> None:
    assert Peer("2001:db8::1", False, "").key == Peer("2001:db8::ffff:1", False, "").key == "2001:db8::/64"
    assert Peer("2001:db8:0:1::1", False, "").key != Peer("2001:db8::1", False, "").key
    assert Peer("192.0.2.1", False, "").key == "192.0.2.1"
    assert Peer("::ffff:192.0.2.1", False, "").key == "192.0.2.1", "else all of IPv4 were one client"
    assert Peer("fe80::1%eth0", False, "").key == "fe80::/64"
    assert Peer("", False, "").key == ""


LISTED = Origins(("https://charts.example", "http://localhost:3000"))


@pytest.mark.parametrize(
    ("origins", "host", "secure", "site"),
    [
        ([], "h", False, Site.NONE),
        (["http://127.0.0.1:8080"], "127.0.0.1:8080", False, Site.SAME),
        (["http://Ticks.example"], "ticks.EXAMPLE", False, Site.SAME),
        (["https://ticks.example"], "ticks.example", True, Site.SAME),
        (["https://ticks.example"], "ticks.example:443", False, Site.SAME),
        (["http://ticks.example"], "ticks.example", True, Site.FOREIGN),  # the plain one is somebody else's
        (["http://[::1]:8080"], "[::1]:8080", False, Site.SAME),
        (["http://127.0.0.1:8081"], "127.0.0.1:8080", False, Site.FOREIGN),
        (["http://evil.example"], "ticks.example", False, Site.FOREIGN),
        (["http://ticks.example.evil.example"], "ticks.example", False, Site.FOREIGN),
        (["http://ticks.example@evil.example"], "ticks.example", False, Site.FOREIGN),
        (["null"], "ticks.example", False, Site.FOREIGN),
        ([""], "ticks.example", False, Site.FOREIGN),
        (["file://"], "", False, Site.FOREIGN),
        (["http://h:x"], "h", False, Site.FOREIGN),
        (["http://h"], "h:x", False, Site.FOREIGN),
        (["https://charts.example"], "h", False, Site.LISTED),
        (["https://CHARTS.example"], "h", False, Site.LISTED),
        (["http://charts.example"], "h", False, Site.FOREIGN),
        (["https://charts.example.evil"], "h", False, Site.FOREIGN),
        (["https://charts.example", "http://h"], "h", False, Site.FOREIGN),
    ],
)
def test_origins(origins: list[str], host: str, secure: bool, site: Site) -> None:
    peer = Peer("1.2.3.4", secure, host)
    assert LISTED.judge(origins, peer) is site
    open_to_all = Origins(("*", "https://charts.example"))
    expected = Site.ANYONE if site is Site.FOREIGN and len(origins) == 1 else site
    assert open_to_all.judge(origins, peer) is expected


@pytest.mark.parametrize(
    ("given_headers", "value"),
    [
        ([], ""),
        (["session_token=abc"], "abc"),
        (["a=b; session_token=abc;c=d"], "abc"),
        (["a=b", "session_token=abc"], "abc"),
        (['session_token="abc"'], "abc"),
        (["session_token=first; session_token=second"], "first"),
        (["xsession_token=abc"], ""),
        (["session_token"], ""),
        (["session_token=a=b"], "a=b"),
    ],
)
def test_cookies(given_headers: list[str], value: str) -> None:
    assert cookie_of(given_headers, "session_token") == value


@pytest.mark.parametrize(
    ("given_headers", "value"),
    [
        ([], ""), (["Bearer abc"], "abc"), (["bearer  abc "], "abc"), (["Basic abc"], ""), (["Bearer"], ""),
        (["Bearer a", "Bearer b"], ""),
    ],
)  # fmt: skip
def test_bearer(given_headers: list[str], value: str) -> None:
    assert bearer_of(given_headers) == value


texts = st.text(max_size=30)


@given(texts, st.lists(texts, max_size=3), texts, texts)
def test_whatever_is_sent_nothing_raises(peer: str, chain: list[str], host: str, origin: str) -> None:
    for proxies in (NONE, TRUSTED):
        found = proxies.client(peer, headers(x_forwarded_for=chain, host=host, x_forwarded_proto=origin))
        assert isinstance(found.key, str)
        for judge in (LISTED, Origins(("*",))):
            judge.judge([origin], found)
    cookie_of(chain, "session_token")
    bearer_of(chain)
