"""The protocol over asyncio sockets: the one subpackage that does I/O."""

from .dial import Dialled, HubSilentError, dial_hub
from .link import Link, LinkOwner, StreamHandler, TunnelStream
from .relay import Relay

__all__ = [
    "Dialled",
    "HubSilentError",
    "Link",
    "LinkOwner",
    "Relay",
    "StreamHandler",
    "TunnelStream",
    "dial_hub",
]
