"""The store on a thread of its own, so that no fsync stops the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from .store import Store

P = ParamSpec("P")
T = TypeVar("T")


class StoreThread:
    """Runs a store's methods one after another."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="store")

    async def call(self, method: Callable[P, T], /, *arguments: P.args, **options: P.kwargs) -> T:
        """Call a method of `store`; once it has begun it is not cancelled half-way."""
        future = self._executor.submit(method, *arguments, **options)
        return await asyncio.shield(asyncio.wrap_future(future))

    def close(self) -> None:
        """Wait for the calls under way and close the store."""
        self._executor.shutdown()
        self.store.close()
