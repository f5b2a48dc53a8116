"""The REST API: `Operations` over HTTP, spoken by the command line and by scripts."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

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
    """New name or group of a node; what is None stays."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = None
    group: str | None = None


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
        described = operations.node(node)
        if wishes.name is not None:
            described = await operations.rename(described["id"], wishes.name)
        if wishes.group is not None:
            described = await operations.regroup(described["id"], wishes.group)
        return described

    @router.delete("/nodes/{node}")
    async def revoke(node: str) -> dict[str, Any]:
        return await operations.revoke(node)

    @router.post("/pairings", status_code=201)
    async def invite(wishes: NewPairing) -> dict[str, Any]:
        return describe_invitation(await operations.invite(wishes.name, wishes.group, wishes.ttl))

    @router.get("/pairings/{token_id}")
    async def invitation(token_id: str) -> dict[str, Any]:
        return await operations.invitation(token_id)

    @router.get("/explain")
    async def explain(username: str = "") -> dict[str, Any]:
        return operations.explain(username)

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

    return app
