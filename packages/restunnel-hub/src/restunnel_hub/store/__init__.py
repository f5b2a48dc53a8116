"""What the hub remembers: nodes and tokens, in SQLite."""

from .store import NodeRecord, Store, TokenRecord
from .thread import StoreThread

__all__ = ["NodeRecord", "Store", "StoreThread", "TokenRecord"]
