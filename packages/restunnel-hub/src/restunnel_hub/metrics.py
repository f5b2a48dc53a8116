"""/metrics: what the hub knows, in Prometheus' text format, made when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from ._version import __version__
from .operations import Operations
from .outlet import OUTCOMES

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics(Collector):
    """All of the hub's own metrics, and its process'."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """The page."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """The library asks for them at each `text`."""
        hub = self._operations.status()
        yield _gauge("info", "The hub's version.", ["version"], {(__version__,): 1})
        for name, text in (
            ("nodes", "Nodes that are paired."),
            ("streams", "Streams that are open."),
            ("clients", "Connections of proxy clients."),
            ("strangers", "Connections at the tunnel port that have proved nothing."),
        ):
            yield _gauge(name, text, [], {(): hub[name]})
        yield _gauge("nodes_online", "Nodes with a tunnel.", [], {(): hub["online"]})
        yield _counter(
            "requests",
            "Proxy requests by what became of them.",
            ["outcome"],
            {(name,): self._operations.outlet.outcomes[name] for name in OUTCOMES},
        )
        yield _counter(
            "events",
            "Events of the audit log by kind.",
            ["kind"],
            {(name,): count for name, count in self._operations.journal.counts.items()},
        )
        yield from self._nodes()

    def _nodes(self) -> Iterator[Metric]:
        nodes = self._operations.nodes()
        for name, text, field in (
            ("node_online", "Whether the node has a tunnel.", "online"),
            ("node_streams", "Streams open on the node.", "streams"),
        ):
            values = _by_name(nodes, field)
            yield _gauge(name, text, ["node"], values)
        for name, text, field in (
            ("node_received_bytes", "Bytes of the node's tunnels, from it.", "bytes_received"),
            ("node_sent_bytes", "Bytes of the node's tunnels, to it.", "bytes_sent"),
            ("node_streams_opened", "Streams opened on the node.", "total_streams"),
        ):
            values = _by_name(nodes, field)
            yield _counter(name, text, ["node"], values)


def _by_name(nodes: list[dict[str, Any]], field: str) -> dict[tuple[str, ...], float]:
    return {(node["name"],): float(node[field]) for node in nodes}


Family = TypeVar("Family", GaugeMetricFamily, CounterMetricFamily)


def _fill(metric: Family, values: Mapping[tuple[str, ...], float]) -> Family:
    for label, value in values.items():
        metric.add_metric(label, value)
    return metric


def _gauge(
    name: str, text: str, labels: list[str], values: Mapping[tuple[str, ...], float]
) -> GaugeMetricFamily:
    return _fill(GaugeMetricFamily(f"restunnel_{name}", text, labels=labels), values)


def _counter(
    name: str, text: str, labels: list[str], values: Mapping[tuple[str, ...], float]
) -> CounterMetricFamily:
    return _fill(CounterMetricFamily(f"restunnel_{name}", text, labels=labels), values)
