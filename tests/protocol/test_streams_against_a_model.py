"""Both ends of a tunnel driven at random, compared with the simplest possible model."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from restunnel_protocol import (
    CloseReason,
    ConnectFailReason,
    ConnectRequested,
    DataReceived,
    EofReceived,
    Settings,
    StreamClosed,
    Target,
    TunnelEnded,
)
from restunnel_protocol.events import Connected, ConnectFailed
from restunnel_protocol.limits import WINDOW_IDLE
from restunnel_protocol.streams import State
from restunnel_protocol.testing import connected_pair
from restunnel_protocol.windows import WindowBudget

WINDOW = 64
TARGET, ADDRESS = Target("example.com", 80), Target("192.0.2.1", 80)
HUB, NODE = 0, 1
SENDING = {State.CONNECTING, State.OFFERED, State.OPEN, State.REMOTE_ENDED}


class Tunnel(RuleBasedStateMachine):
    """The wire delivers any number of bytes at a time; readers consume when they like."""

    def __init__(self) -> None:
        super().__init__()
        self.budgets = [WindowBudget(20_000), WindowBudget(20_000)]
        options = [
            Settings(start_window=128, max_receive_window=256, budget=budget)
            for budget in self.budgets
        ]
        self.ends = connected_pair(
            hub_window=WINDOW, node_window=WINDOW, hub_settings=options[0], node_settings=options[1]
        )
        self.wire = [bytearray(), bytearray()]  # towards hub, towards node
        self.sent = [defaultdict(bytes), defaultdict(bytes)]
        self.got = [defaultdict(bytes), defaultdict(bytes)]
        self.unread = [defaultdict(int), defaultdict(int)]
        self.can_send: list[set[int]] = [set(), set()]
        self.ended: list[set[int]] = [set(), set()]
        self.saw_end: list[set[int]] = [set(), set()]
        self.offered: set[int] = set()
        self.failed: set[int] = set()
        self.now = 1.0

    @rule()
    def connect(self) -> None:
        stream_id = self.ends[HUB].connect(TARGET, self.now)
        self.can_send[HUB].add(stream_id)

    @precondition(lambda self: self.offered)
    @rule(data=st.data(), accept=st.booleans())
    def answer(self, data, accept) -> None:
        stream_id = data.draw(st.sampled_from(sorted(self.offered)))
        self.offered.discard(stream_id)
        if accept:
            self.ends[NODE].accept(stream_id, ADDRESS)
            self.can_send[NODE].add(stream_id)
        else:
            self.ends[NODE].refuse(stream_id, ConnectFailReason.REFUSED)
            self.failed.add(stream_id)

    @precondition(lambda self: any(self.can_send))
    @rule(data=st.data(), payload=st.binary(min_size=1, max_size=300))
    def send(self, data, payload) -> None:
        end, stream_id = self._sender(data)
        self.ends[end].send_data(stream_id, payload)
        self.sent[end][stream_id] += payload

    @precondition(lambda self: any(self.can_send))
    @rule(data=st.data())
    def send_eof(self, data) -> None:
        end, stream_id = self._sender(data)
        self.can_send[end].discard(stream_id)
        self.ended[end].add(stream_id)
        self.ends[end].send_eof(stream_id)
        self._take(end, self.ends[end].next_event_list())

    @precondition(lambda self: any(self.can_send))
    @rule(data=st.data(), drain=st.booleans())
    def close(self, data, drain) -> None:
        end, stream_id = self._sender(data)
        self.ends[end].close_stream(stream_id, CloseReason.CANCELLED, drain=drain)
        self._fail(stream_id)

    @rule(end=st.sampled_from([HUB, NODE]))
    def flush(self, end) -> None:
        self.wire[1 - end] += b"".join(self.ends[end].data_to_send())
        self._take(end, self.ends[end].next_event_list())

    @rule(end=st.sampled_from([HUB, NODE]), size=st.integers(1, 2000))
    def deliver(self, end, size) -> None:
        piece, self.wire[end] = self.wire[end][:size], self.wire[end][size:]
        self._take(end, self.ends[end].receive_data(bytes(piece), self.now))

    @rule(end=st.sampled_from([HUB, NODE]), seconds=st.sampled_from([0.0, 0.01, 1.0]))
    def read(self, end, seconds) -> None:
        self.now += seconds
        for stream_id, size in self.unread[end].items():
            self.ends[end].consume(stream_id, size, self.now)
        self.unread[end].clear()

    @rule(end=st.sampled_from([HUB, NODE]))
    def idle(self, end) -> None:
        """A long time passes, but no longer than the peer's silence may be."""
        self.now += WINDOW_IDLE
        for either in (HUB, NODE):
            self.ends[either]._liveness.received(self.now)
        self._take(end, self.ends[end].handle_timeout(self.now))

    @invariant()
    def bytes_are_a_prefix_of_what_was_sent(self) -> None:
        for end in (HUB, NODE):
            for stream_id, got in self.got[end].items():
                assert self.sent[1 - end][stream_id].startswith(got)

    @invariant()
    def credit_is_never_negative_nor_unread_data_over_the_window(self) -> None:
        for end in (HUB, NODE):
            for stream in self.ends[end]._streams.values():
                assert stream.send_window.credit >= 0
                assert stream.receive_window.credit >= 0
            assert all(size <= 256 for size in self.unread[end].values())

    @invariant()
    def budgets_count_what_windows_promise(self) -> None:
        for end, budget in enumerate(self.budgets):
            streams = self.ends[end]._streams.values()
            assert budget.used == sum(stream.receive_window.size for stream in streams)
            for stream in streams:
                assert stream.receive_window.credit <= stream.receive_window.size

    @invariant()
    def a_clean_end_means_all_bytes(self) -> None:
        for end in (HUB, NODE):
            for stream_id in self.saw_end[end]:
                assert self.got[end][stream_id] == self.sent[1 - end][stream_id]
                assert stream_id in self.ended[1 - end]

    def teardown(self) -> None:
        """Let everything run to its end: nothing may be stuck."""
        for _ in range(500):
            moved = False
            for end in (HUB, NODE):
                self.flush(end)
                moved = moved or bool(self.wire[1 - end])
                self.deliver(1 - end, 1 << 20)
                moved = moved or bool(self.unread[1 - end])
                self.read(1 - end, 0.0)
            if not moved:
                break
        for end in (HUB, NODE):
            for stream_id, sent in self.sent[end].items():
                if stream_id not in self.failed and stream_id not in self.offered:
                    assert self.got[1 - end][stream_id] == sent
                    assert (stream_id in self.saw_end[1 - end]) == (stream_id in self.ended[end])
        for end in (HUB, NODE):  # no credit has got lost on its way
            for stream in self.ends[end]._streams.values():
                twin = self.ends[1 - end]._streams.get(stream.id)
                if twin is not None and stream.state in SENDING:
                    assert twin.receive_window.credit == stream.send_window.credit
        live = {stream.id for stream in self.ends[NODE]._streams.values()}
        assert not live & self.failed

    def _sender(self, data) -> tuple[int, int]:
        choices = [(end, i) for end in (HUB, NODE) for i in sorted(self.can_send[end])]
        return data.draw(st.sampled_from(choices))

    def _fail(self, stream_id: int) -> None:
        self.failed.add(stream_id)
        self.offered.discard(stream_id)
        for streams in self.can_send:
            streams.discard(stream_id)

    def _take(self, end: int, events) -> None:
        for event in events:
            assert not isinstance(event, TunnelEnded), event
            if isinstance(event, ConnectRequested):
                self.offered.add(event.stream_id)
            elif isinstance(event, DataReceived):
                self.got[end][event.stream_id] += bytes(event.data)
                self.unread[end][event.stream_id] += len(event.data)
            elif isinstance(event, EofReceived):
                self.saw_end[end].add(event.stream_id)
            elif isinstance(event, ConnectFailed) or (
                isinstance(event, StreamClosed) and event.reason is not None
            ):
                self._fail(event.stream_id)
            else:
                assert isinstance(event, Connected | StreamClosed) or event


TestTunnel = Tunnel.TestCase
TestTunnel.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
