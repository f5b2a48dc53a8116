"""Fixtures of the system tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.origin import origin
from support.services import Hub, Node, tunnel


@pytest.fixture(scope="session")
def shared_tunnel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, Node]]:
    """A paired and connected hub and node for tests that leave them as they are."""
    with tunnel(tmp_path_factory.mktemp("tunnel")) as pair:
        yield pair


@pytest.fixture(scope="module")
def origin_port(shared_tunnel: tuple[Hub, Node]) -> Iterator[int]:
    """A web server on 127.0.0.1 that the shared node may reach."""
    with origin() as port:
        shared_tunnel[1].allow(f"127.0.0.1:{port}")
        yield port


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub of the test's own, not started."""
    hub = Hub(tmp_path / "hub")
    yield hub
    hub.destroy()


@pytest.fixture(scope="module")
def common_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A running hub for tests that bring nodes of their own, by names of their own."""
    hub = Hub(tmp_path_factory.mktemp("common") / "hub")
    hub.start()
    yield hub
    hub.destroy()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node of the test's own, neither paired nor started."""
    node = Node(tmp_path / "node")
    yield node
    node.destroy()


@pytest.fixture
def own_tunnel(tmp_path: Path) -> Iterator[tuple[Hub, Node]]:
    """A paired and connected hub and node for tests that break things."""
    with tunnel(tmp_path) as pair:
        yield pair


@pytest.fixture(scope="session")
def curl() -> str:
    """The curl command line."""
    path = shutil.which("curl")
    if path is None:
        pytest.skip("curl is not installed")
    return path
