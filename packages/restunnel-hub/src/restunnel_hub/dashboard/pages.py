"""The pages: server-rendered, without script, and closed to other sites.

Whoever asks must name this machine as localhost (a rebound DNS name does not),
must have logged in by a one-time URL, and must send a form of ours to change
anything (session cookie SameSite=Strict, Origin, CSRF token).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, select_autoescape

from restunnel_protocol import AddressError
from restunnel_protocol.addresses import split_host_port

from ..metrics import CONTENT_TYPE, Metrics
from ..operations import OperationError, Operations, describe_invitation
from ..qr import svg_qr
from .sessions import Session, Sessions

COOKIE: Final = "restunnel_session"

LOCAL_NAMES: Final = {"localhost", "127.0.0.1", "::1"}
"""Hosts under which the dashboard answers, at any port: it is mostly used through ssh -L."""

MAX_FORM: Final = 8192
"""Bytes of a form."""

SECURITY_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self';"
        " base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: with that, browsers send `Origin: null` with the dashboard's own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Call = Callable[[Request], Awaitable[Response]]


class Dashboard:
    """The dashboard as an ASGI application, and its logins."""

    def __init__(self, operations: Operations, address: str, *, exposed: bool = False) -> None:
        """`exposed`: it listens where others than this machine may come from."""
        self._operations = operations
        self._address = address
        self._exposed = exposed
        self._metrics = Metrics(operations)
        self._sessions = Sessions()
        self._templates = Environment(
            loader=PackageLoader("restunnel_hub.dashboard"), autoescape=select_autoescape()
        )
        self._templates.filters["when"] = _when
        self.app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        self.app.middleware("http")(self._guard)
        self.app.get("/healthz")(self._healthz)
        self.app.get("/style.css")(self._style)
        self.app.get("/metrics")(self._metrics_page)
        self.app.get("/login")(self._login)
        self.app.post("/login")(self._login_by_password)
        self.app.get("/")(self._overview)
        self.app.post("/pair")(self._pair)
        self.app.post("/revoke")(self._revoke)

    def new_login(self) -> str:
        """A URL that logs one browser in, once."""
        return f"http://{self._address}/login?token={self._sessions.new_login()}"

    # --- access --------------------------------------------------------------------------

    async def _guard(self, request: Request, call: Call) -> Response:
        """Host and Origin of every request, and headers of every response."""
        response: Response
        if not self._exposed and not _is_local(request.headers.get("host", "")):
            response = PlainTextResponse("this host name is not served here\n", 421)
        elif request.method not in ("GET", "HEAD") and not _same_origin(request):
            response = PlainTextResponse("a form of another site is not taken here\n", 403)
        else:
            response = await call(request)
        response.headers.update(SECURITY_HEADERS)
        return response

    def _session(self, request: Request) -> Session | None:
        return self._sessions.find(request.cookies.get(COOKIE, ""))

    async def _form(self, request: Request) -> dict[str, str] | None:
        """The fields of a form of ours, sent by a browser that is logged in."""
        session, fields = self._session(request), await self._fields(request)
        if session is None or fields is None:
            return None
        if not hmac.compare_digest(fields.get("csrf", ""), session.csrf):
            return None
        return fields

    async def _fields(self, request: Request) -> dict[str, str] | None:
        """The fields of a form; None if it is too large."""
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_FORM:
                return None
        fields = parse_qs(body.decode("utf-8", "replace"))
        return {name: values[0] for name, values in fields.items()}

    # --- pages ---------------------------------------------------------------------------

    async def _healthz(self) -> Response:
        return PlainTextResponse("ok\n")

    async def _style(self) -> Response:
        style = self._templates.get_template("style.css").render()
        return Response(style, media_type="text/css")

    async def _metrics_page(self, request: Request) -> Response:
        """For whoever is on this machine; where others come, for those with the password."""
        if self._exposed and not await self._knows_password(request):
            return Response(status_code=401, headers={"WWW-Authenticate": "Basic"})
        return Response(self._metrics.text(), media_type=CONTENT_TYPE)

    async def _knows_password(self, request: Request) -> bool:
        """HTTP Basic with any user name; a session will do as well."""
        if self._session(request) is not None:
            return True
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        try:
            text = base64.b64decode(credentials.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return False
        return scheme.lower() == "basic" and await self._operations.passwords.verify(
            text.partition(":")[2]
        )

    async def _login(self, request: Request, token: str = "") -> Response:
        if not token:
            return self._login_page(200, "")
        session_id = self._sessions.redeem(token)
        if session_id is None:
            return self._login_page(403, "This login link is used or expired.")
        return self._logged_in(request, session_id)

    async def _login_by_password(self, request: Request) -> Response:
        fields = await self._fields(request)
        password = (fields or {}).get("password", "")
        if not password or not await self._operations.passwords.verify(password):
            self._operations.journal.note("login-failed", detail=f"from {_peer(request)}")
            return self._login_page(403, "This is not the password.")
        return self._logged_in(request, self._sessions.begin())

    def _login_page(self, status: int, problem: str) -> Response:
        has_password = self._operations.passwords.is_set
        return self._page("login.html", status, problem=problem, has_password=has_password)

    def _logged_in(self, request: Request, session_id: str) -> Response:
        self._operations.journal.note("login", detail=f"from {_peer(request)}")
        response = RedirectResponse("/", 303)
        response.set_cookie(COOKIE, session_id, httponly=True, samesite="strict", path="/")
        return response

    async def _overview(self, request: Request) -> Response:
        session = self._session(request)
        if session is None:
            return self._login_page(401, "")
        return self._page(
            "overview.html",
            csrf=session.csrf,
            hub=self._operations.status(),
            nodes=self._operations.nodes(),
        )

    async def _pair(self, request: Request) -> Response:
        fields = await self._form(request)
        if fields is None:
            return self._login_page(403, "Please log in again.")
        try:
            invitation = await self._operations.invite(
                fields.get("name", "").strip(), fields.get("group", "").strip()
            )
        except OperationError as error:
            return self._page("problem.html", error.status, problem=error.message)
        described = describe_invitation(invitation)
        return self._page("pair.html", 201, invitation=described, qr=svg_qr(described["link"]))

    async def _revoke(self, request: Request) -> Response:
        fields = await self._form(request)
        if fields is None:
            return self._login_page(403, "Please log in again.")
        try:
            node = self._operations.node(fields.get("node", ""))
            if fields.get("confirm") != node["name"]:
                raise OperationError(422, "To revoke a node, type its name.")
            await self._operations.revoke(node["id"])
        except OperationError as error:
            return self._page("problem.html", error.status, problem=error.message)
        return RedirectResponse("/", 303)

    def _page(self, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        return HTMLResponse(self._templates.get_template(template).render(**values), status)


def _peer(request: Request) -> str:
    return request.client.host if request.client is not None else "this machine"


def _is_local(host: str) -> bool:
    try:
        return split_host_port(host, 80)[0].lower() in LOCAL_NAMES
    except AddressError:
        return False


def _same_origin(request: Request) -> bool:
    """Whether a change comes from a page of this very host and port."""
    origin = request.headers.get("origin", "")
    return bool(origin) and urlsplit(origin).netloc == request.headers.get("host")


def _when(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
