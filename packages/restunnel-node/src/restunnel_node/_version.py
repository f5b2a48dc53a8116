"""The one place where the version of restunnel-node is written."""

__version__ = "0.1.0"
