"""What all tests have in common."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that mostly wait go first, then those that one worker has to run one by one."""

    def place(item: pytest.Item) -> int:
        names = ("patient", "xdist_group")
        return next((n for n, name in enumerate(names) if item.get_closest_marker(name)), 2)

    items.sort(key=place)
