"""The Restunnel exit node: serves a hub's connections from this device."""

from ._version import __version__

__all__ = ["__version__"]
