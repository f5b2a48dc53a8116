"""The Restunnel hub: local proxies whose traffic exits through paired nodes."""

from ._version import __version__

__all__ = ["__version__"]
