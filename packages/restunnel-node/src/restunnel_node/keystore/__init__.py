"""Where the node's private key lives."""

from .base import KeyStore, load_or_create
from .file import FileKeyStore
from .memory import MemoryKeyStore

__all__ = ["FileKeyStore", "KeyStore", "MemoryKeyStore", "load_or_create"]
