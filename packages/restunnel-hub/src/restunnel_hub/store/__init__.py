"""What the hub remembers, in SQLite: nodes, tokens, traffic, clients and events."""

from .ledger import ClientRecord, EventRecord, Ledger, NewEvent
from .store import NodeRecord, Store, TokenRecord
from .thread import StoreThread

__all__ = [
    "ClientRecord",
    "EventRecord",
    "Ledger",
    "NewEvent",
    "NodeRecord",
    "Store",
    "StoreThread",
    "TokenRecord",
]
