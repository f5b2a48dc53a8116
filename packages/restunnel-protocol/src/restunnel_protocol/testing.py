"""A pair of connections in memory, for tests of programs built on this package.

hub, node = connected_pair()
stream_id = hub.connect(Target("example.com", 443), now=0.0)
events = transfer(hub, node)
"""

from __future__ import annotations

from .connection import Connection, Role, Settings
from .events import Event
from .keys import PrivateKey
from .messages import Enroll, EnrollOk, Hello
from .noise import Initiator, Responder, Session
from .records import Suite


def handshake_pair(
    *,
    suite: Suite = Suite.AESGCM_SHA256,
    hub_window: int | None = None,
    node_window: int | None = None,
    enroll: Enroll | None = None,
    enroll_ok: EnrollOk | None = None,
) -> tuple[Session, Session]:
    """Sessions (hub, node) from a real handshake between two fresh keys."""
    hub_key, node_key = PrivateKey.generate(), PrivateKey.generate()
    node_hello = Hello(1) if node_window is None else Hello(1, node_window)
    hub_hello = Hello(1) if hub_window is None else Hello(1, hub_window)
    initiator = Initiator(node_key, hub_key.public, node_hello, enroll=enroll, suite=suite)
    message_1 = initiator.write_message_1()
    responder = Responder(hub_key)
    found = responder.recognise(message_1)
    assert found is suite
    request = responder.read_message_1(message_1, found)
    message_2, hub_session = request.write_message_2(hub_hello, enroll_ok)
    result = initiator.receive_data(message_2)
    assert result is not None
    return hub_session, result[0]


def connected_pair(
    now: float = 0.0,
    *,
    suite: Suite = Suite.AESGCM_SHA256,
    hub_settings: Settings | None = None,
    node_settings: Settings | None = None,
    hub_window: int | None = None,
    node_window: int | None = None,
) -> tuple[Connection, Connection]:
    """A hub's and a node's connection that have exchanged their first records.

    A window that is given here is all that a new stream gets, unless settings say more.
    """
    if hub_settings is None and hub_window is not None:
        hub_settings = Settings(start_window=hub_window)
    if node_settings is None and node_window is not None:
        node_settings = Settings(start_window=node_window)
    hub_session, node_session = handshake_pair(
        suite=suite, hub_window=hub_window, node_window=node_window
    )
    hub = Connection(Role.HUB, hub_session, now, hub_settings)
    node = Connection(Role.NODE, node_session, now, node_settings)
    exchange(hub, node, now)
    return hub, node


def transfer(source: Connection, sink: Connection, now: float = 0.0) -> list[Event]:
    """Carry all that `source` has to send; the events at `sink`."""
    events: list[Event] = []
    while chunks := source.data_to_send():
        events += sink.receive_data(b"".join(chunks), now)
    return events


def exchange(
    hub: Connection, node: Connection, now: float = 0.0
) -> tuple[list[Event], list[Event]]:
    """Carry bytes both ways until neither end has more; the events (at hub, at node)."""
    at_hub: list[Event] = []
    at_node: list[Event] = []
    while True:
        carried = False
        for source, sink, events in ((hub, node, at_node), (node, hub, at_hub)):
            if chunks := source.data_to_send():
                carried = True
                events += sink.receive_data(b"".join(chunks), now)
        if not carried:
            return at_hub, at_node
