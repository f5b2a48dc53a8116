"""The dashboard's doors: host names, logins, forms."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from restunnel_hub.dashboard.sessions import LOGIN_LIFETIME, SESSION_LIFETIME, Sessions
from support.browser import open_browser
from support.services import Hub, check


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    hub = Hub(tmp_path_factory.mktemp("dashboard") / "hub")
    hub.start()
    yield hub
    hub.destroy()


class Browser:
    """Follows redirects and keeps cookies, as a browser does."""

    def __init__(self, hub: Hub) -> None:
        self.base = f"http://{hub.listeners['dashboard']}"
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())

    def open(self, path: str, form: dict | None = None, **headers: str) -> tuple[int, str, dict]:
        url = path if path.startswith("http") else self.base + path
        data = urllib.parse.urlencode(form).encode() if form is not None else None
        request = urllib.request.Request(url, data, headers)
        try:
            with self.opener.open(request) as response:
                return response.status, response.read().decode(), dict(response.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode(), dict(error.headers)


@pytest.fixture
def browser(hub: Hub) -> Browser:
    return Browser(hub)


@pytest.fixture
def inside(hub: Hub, browser: Browser) -> tuple[Browser, str]:
    """A browser that is logged in, and the CSRF token of its forms."""
    status, page, _ = browser.open(hub.call("dashboard").strip())
    assert status == 200
    return browser, re.search(r'name="csrf" value="([^"]+)"', page)[1]


def test_health_needs_no_login(browser: Browser):
    assert browser.open("/healthz")[:2] == (200, "ok\n")


def test_a_stranger_sees_how_to_log_in_and_nothing_else(browser: Browser):
    status, page, _ = browser.open("/")
    assert status == 401
    assert "restunnel-hub dashboard" in page
    assert "socks5" not in page
    assert browser.open("/api/v1/nodes")[0] == 404


def test_a_login_works_once(hub: Hub):
    url = hub.call("dashboard").strip()
    assert Browser(hub).open(url)[0] == 200
    assert Browser(hub).open(url)[0] == 403
    assert Browser(hub).open(url + "x")[0] == 403


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "192.168.1.1", "[::2]", ""],
)
def test_other_host_names_are_not_served(inside, host):
    browser, _ = inside
    assert browser.open("/", Host=host)[0] in (400, 421)


@pytest.mark.parametrize("host", ["localhost", "localhost:1234", "127.0.0.1:8080", "[::1]:8080"])
def test_local_names_are_served_at_any_port(inside, host):
    browser, _ = inside
    assert browser.open("/", Host=host)[0] == 200


def test_pairing_shows_a_code_that_works(inside, tmp_path: Path):
    browser, csrf = inside
    form = {"csrf": csrf, "name": "tablet", "group": ""}
    status, page, _ = browser.open("/pair", form, Origin=browser.base)
    assert status == 201
    assert "<svg" in page
    link = re.search(r"restunnel://pair\?[^<&#']*(?:&amp;[^<&#']*)*", page)[0].replace("&amp;", "&")
    check("restunnel-node", "--data-dir", tmp_path / "node", "pair", link)
    assert "tablet" in browser.open("/")[1]
    status, page, _ = browser.open("/pair", form, Origin=browser.base)
    assert status == 409
    assert "a node is called &#39;tablet&#39; already" in page


def test_forms_of_other_sites_change_nothing(hub: Hub, inside):
    browser, csrf = inside
    before = hub.nodes()
    good = {"csrf": csrf, "name": "x"}
    for form, headers in (
        (good, {}),
        (good, {"Origin": "http://evil.example"}),
        (good, {"Origin": "null"}),
        ({"name": "x"}, {"Origin": browser.base}),
        ({"csrf": "guess", "name": "x"}, {"Origin": browser.base}),
        ({**good, "pad": "y" * 10_000}, {"Origin": browser.base}),
    ):
        assert browser.open("/pair", form, **headers)[0] == 403
    assert Browser(hub).open("/pair", good, Origin=browser.base)[0] == 403
    assert hub.nodes() == before


def test_revoking_wants_the_name_typed(hub: Hub, inside, tmp_path: Path):
    browser, csrf = inside
    check("restunnel-node", "--data-dir", tmp_path / "n", "pair", hub.link("--name", "old"))
    node = next(node for node in hub.nodes() if node["name"] == "old")
    form = {"csrf": csrf, "node": node["id"], "confirm": "yes"}
    assert browser.open("/revoke", form, Origin=browser.base)[0] == 422
    assert any(n["name"] == "old" for n in hub.nodes())
    assert browser.open("/revoke", {**form, "confirm": "old"}, Origin=browser.base)[0] == 200
    assert not any(n["name"] == "old" for n in hub.nodes())


def test_answers_keep_other_sites_and_caches_out(browser: Browser):
    headers = browser.open("/")[2]
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers


def test_the_session_cookie_is_out_of_reach_of_scripts_and_other_sites(hub: Hub):
    class Unfollowing(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_):
            return None

    opener = urllib.request.build_opener(Unfollowing())
    with pytest.raises(urllib.error.HTTPError) as caught:
        opener.open(hub.call("dashboard").strip())
    with caught.value:
        cookie = caught.value.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def test_logins_and_sessions_end(monkeypatch):
    now = [0.0]
    sessions = Sessions(lambda: now[0])
    late = sessions.new_login()
    now[0] = LOGIN_LIFETIME
    assert sessions.redeem(late) is None
    session = sessions.redeem(sessions.new_login())
    assert sessions.find(session) is not None
    now[0] += SESSION_LIFETIME
    assert sessions.find(session) is None


def test_what_the_rest_api_refuses_it_explains(hub: Hub):
    from support.services import run

    for arguments, words in (
        (["node", "show", "nobody"], "no node is called 'nobody'"),
        (["pair", "--name", "a,b"], "not a usable name"),
        (["pair", "--ttl", "2d"], "a pairing link lives for up to a day"),
        (["pair", "--ttl", "soon"], "not a duration"),
    ):
        done = run("restunnel-hub", "--data-dir", hub.data_dir, *arguments)
        assert done.returncode in (1, 2)
        assert words in done.stderr
    assert json.loads(hub.call("explain", "--json", "nobody"))["reason"]


@pytest.fixture
def chromium():
    """A browser."""
    with open_browser() as driver:
        yield driver


def test_a_real_browser_logs_in_and_pairs_a_device(hub: Hub, chromium, tmp_path: Path):
    chromium.call("POST", "/url", {"url": hub.call("dashboard").strip()})
    name = chromium.find("form[action='/pair'] input[name=name]")
    chromium.call("POST", f"{name}/value", {"text": "tv"})
    button = chromium.find("form[action='/pair'] button")
    chromium.call("POST", f"{button}/click", {})
    command = chromium.call("GET", chromium.find("pre") + "/text")
    link = re.fullmatch(r"restunnel-node pair '(\S+)'", command)[1]
    check("restunnel-node", "--data-dir", tmp_path / "node", "pair", link)
    chromium.call("POST", "/url", {"url": f"http://{hub.listeners['dashboard']}/"})
    assert "tv" in chromium.call("GET", chromium.find("table") + "/text")
