"""The REST API: `Operations` over HTTP, spoken by the command line and by scripts."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from restunnel_protocol.limits import TOKEN_LIFETIME

from ._version import __version__
from .operations import OperationError, Operations, describe_invitation


class NewPairing(BaseModel):
    """Wishes for a pairing link; `ttl` is in seconds."""

    model_config = ConfigDict(extra="forbid")

    name: str = ""
    group: str = ""
    ttl: float = TOKEN_LIFETIME


class NodeChange(BaseModel):
    """New values of a node's fields; what is not given stays, and null takes a limit away.

    `max_day` and `max_month` are bytes, `bandwidth` bytes a second in each direction.
    """

    model_config = ConfigDict(extra="forbid")

    name: str = ""
    group: str = ""
    note: str = Field("", max_length=1000)
    drained: bool = False
    max_streams: int | None = Field(None, ge=0, lt=2**31)
    max_day: int | None = Field(None, ge=0, lt=2**62)
    max_month: int | None = Field(None, ge=0, lt=2**62)
    bandwidth: int | None = Field(None, ge=0, lt=2**62)


class NewClient(BaseModel):
    """A name for a client of the proxies."""

    model_config = ConfigDict(extra="forbid")

    name: str


class NewPassword(BaseModel):
    """The dashboard's password; null: only one-time links log in."""

    model_config = ConfigDict(extra="forbid")

    password: str | None = Field(max_length=1000)


class Probe(BaseModel):
    """Bytes that somebody has just sent to the tunnel port, in hexadecimal digits."""

    model_config = ConfigDict(extra="forbid")

    sent: str = Field(pattern="^([0-9a-f]{2}){8,100}$")


def api_router(operations: Operations) -> APIRouter:
    """All routes below /api/v1."""
    router = APIRouter(prefix="/api/v1")

    @router.get("/status")
    async def status() -> dict[str, Any]:
        return operations.status()

    @router.get("/nodes")
    async def nodes() -> list[dict[str, Any]]:
        return operations.nodes()

    @router.get("/nodes/{node}")
    async def node(node: str) -> dict[str, Any]:
        return operations.node(node)

    @router.patch("/nodes/{node}")
    async def change(node: str, wishes: NodeChange) -> dict[str, Any]:
        return await operations.change(node, **wishes.model_dump(exclude_unset=True))

    @router.get("/nodes/{node}/traffic")
    async def traffic(node: str) -> dict[str, Any]:
        return await operations.traffic(node)

    @router.delete("/nodes/{node}")
    async def revoke(node: str) -> dict[str, Any]:
        return await operations.revoke(node)

    @router.get("/endpoints")
    async def endpoints() -> list[str]:
        return operations.endpoints()

    @router.post("/pairings", status_code=201)
    async def invite(wishes: NewPairing) -> dict[str, Any]:
        return describe_invitation(await operations.invite(wishes.name, wishes.group, wishes.ttl))

    @router.get("/pairings/{token_id}")
    async def invitation(token_id: str) -> dict[str, Any]:
        return await operations.invitation(token_id)

    @router.get("/explain")
    async def explain(username: str = "") -> dict[str, Any]:
        return operations.explain(username)

    @router.get("/events")
    async def events(
        after: int = 0,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
        kind: str = "",
        node: str = "",
    ) -> list[dict[str, Any]]:
        return await operations.events(after, limit, kind, node)

    @router.get("/clients")
    async def clients() -> list[dict[str, Any]]:
        return await operations.list_clients()

    @router.post("/clients", status_code=201)
    async def add_client(wishes: NewClient) -> dict[str, Any]:
        return await operations.add_client(wishes.name)

    @router.delete("/clients/{name}")
    async def remove_client(name: str) -> dict[str, Any]:
        return await operations.remove_client(name)

    return router


def add_error_handlers(app: FastAPI) -> None:
    """Errors as `{"error": ..., "hint": ...}`."""

    @app.exception_handler(OperationError)
    async def refuse(request: Request, error: OperationError) -> JSONResponse:
        return JSONResponse({"error": error.message, "hint": error.hint}, error.status)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return JSONResponse({"error": f"{where}: {first['msg']}".lower(), "hint": ""}, 422)


def control_app(operations: Operations, new_login: Any) -> FastAPI:
    """What the command line talks to over the Unix socket; its mode is the access control."""
    app = FastAPI(title="Restunnel hub", version=__version__, docs_url=None, redoc_url=None)
    app.include_router(api_router(operations))
    add_error_handlers(app)

    @app.post("/api/v1/logins", status_code=201)
    async def login() -> dict[str, str]:
        return {"url": new_login()}

    @app.put("/api/v1/password")
    async def password(wishes: NewPassword) -> dict[str, bool]:
        await operations.set_password(wishes.password)
        return {"set": wishes.password is not None}

    @app.post("/api/v1/probes")
    async def probe(wishes: Probe) -> dict[str, bool]:
        return {"seen": operations.sees(bytes.fromhex(wishes.sent))}

    return app
