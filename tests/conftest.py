"""What all tests have in common."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that mostly wait go first, so that the others run meanwhile."""
    items.sort(key=lambda item: item.get_closest_marker("patient") is None)
