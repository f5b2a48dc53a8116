"""The operator's pages on 127.0.0.1:8080."""

from .pages import Dashboard

__all__ = ["Dashboard"]
