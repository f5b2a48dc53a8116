"""A tunnel's two ends: streams, credit, misbehaviour, liveness."""

from __future__ import annotations

import pytest

from restunnel_protocol import (
    CloseReason,
    Connected,
    ConnectFailed,
    ConnectFailReason,
    Connection,
    ConnectRequested,
    DataReceived,
    EofReceived,
    Established,
    GoAwayReason,
    GoAwayReceived,
    LocalError,
    Role,
    RoundTripMeasured,
    Settings,
    Status,
    StatusReceived,
    StreamClosed,
    StreamWritable,
    Suite,
    Target,
    TunnelEnded,
)
from restunnel_protocol.frames import FrameType, encode_frame
from restunnel_protocol.limits import (
    FIRST_WINDOW,
    MAX_STREAM_ID,
    MAX_WINDOW,
    PENDING_HIGH,
    PENDING_SMALL,
    PENDING_TOTAL,
    START_WINDOW,
    TUNNEL_WINDOW_BUDGET,
    WINDOW_IDLE,
)
from restunnel_protocol.messages import Close, Connect, ConnectFail, ConnectOk, Window
from restunnel_protocol.testing import connected_pair, exchange, handshake_pair, transfer
from restunnel_protocol.windows import WindowBudget

TARGET = Target("example.com", 443)
ADDRESS = Target("192.0.2.1", 443)


def received(events) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, DataReceived))


def open_stream(hub: Connection, node: Connection) -> int:
    stream_id = hub.connect(TARGET, 0.0)
    exchange(hub, node)
    node.accept(stream_id, ADDRESS)
    assert exchange(hub, node) == ([Connected(stream_id, ADDRESS)], [])
    return stream_id


def inject(sender: Connection, receiver: Connection, *frames: bytes):
    """Have `sender` send frames that its own code would not; the events they cause."""
    return receiver.receive_data(sender.session.sealer.seal(b"".join(frames)), 0.0)


def ended(events) -> GoAwayReason | None:
    assert isinstance(events[-1], TunnelEnded), events
    return events[-1].reason


@pytest.mark.parametrize("suite", Suite)
def test_a_stream_lives_from_connect_to_eof_in_both_directions(suite):
    hub, node = connected_pair(suite=suite)
    stream_id = hub.connect(TARGET, 0.0)
    assert exchange(hub, node) == ([], [ConnectRequested(stream_id, TARGET)])
    node.accept(stream_id, ADDRESS)
    hub.send_data(stream_id, b"request")
    hub.send_eof(stream_id)
    at_hub, at_node = exchange(hub, node)
    assert at_hub == [Connected(stream_id, ADDRESS)]
    assert at_node == [DataReceived(stream_id, b"request"), EofReceived(stream_id)]
    node.send_data(stream_id, b"answer")
    node.send_eof(stream_id)
    at_hub, at_node = exchange(hub, node)
    assert at_hub == [
        DataReceived(stream_id, b"answer"),
        EofReceived(stream_id),
        StreamClosed(stream_id, None, ""),
    ]
    assert node.next_event_list() == [StreamClosed(stream_id, None, "")]
    assert (hub.stream_count, node.stream_count) == (0, 0)


def test_the_first_record_of_the_node_establishes_the_tunnel():
    hub_session, node_session = handshake_pair()
    hub, node = (
        Connection(Role.HUB, hub_session, 0.0),
        Connection(Role.NODE, node_session, 0.0),
    )
    events = transfer(node, hub)
    assert events[0] == Established()
    assert transfer(hub, node, 0.25)[0] == Established()
    assert RoundTripMeasured(0.5) in transfer(node, hub, 0.5)
    assert hub.round_trip == 0.5


def test_a_refused_connect_ends_the_stream_with_its_reason():
    hub, node = connected_pair()
    stream_id = hub.connect(TARGET, 0.0)
    exchange(hub, node)
    node.refuse(stream_id, ConnectFailReason.REFUSED, "connection refused")
    at_hub, _ = exchange(hub, node)
    assert at_hub == [ConnectFailed(stream_id, ConnectFailReason.REFUSED, "connection refused")]
    assert (hub.stream_count, node.stream_count) == (0, 0)


def test_data_may_follow_connect_without_waiting():
    hub, node = connected_pair()
    stream_id = hub.connect(TARGET, 0.0)
    hub.send_data(stream_id, b"early")
    hub.send_eof(stream_id)
    _, at_node = exchange(hub, node)
    assert [type(event) for event in at_node] == [ConnectRequested, DataReceived, EofReceived]
    node.accept(stream_id, ADDRESS)
    node.send_eof(stream_id)
    at_hub, _ = exchange(hub, node)
    assert at_hub[-1] == StreamClosed(stream_id, None, "")


def test_bytes_arrive_whole_and_in_order_however_they_are_cut():
    hub, node = connected_pair()
    stream_id = open_stream(hub, node)
    data = bytes(range(256)) * 3000
    for start in range(0, len(data), 7777):
        hub.send_data(stream_id, data[start : start + 7777])
    got = b""
    for _ in range(100):
        wire = b"".join(hub.data_to_send())
        for start in range(0, len(wire), 1009):
            piece = received(node.receive_data(wire[start : start + 1009], 0.0))
            got += piece
            node.consume(stream_id, len(piece), 0.0)
        transfer(node, hub)
    assert got == data


@pytest.mark.parametrize("step", [1, 2, 3, 17])
def test_records_may_come_byte_by_byte(step):
    hub, node = connected_pair()
    stream_id = open_stream(hub, node)
    wire = b""
    for number in range(5):
        hub.send_data(stream_id, bytes((number,)) * 10)
        wire += b"".join(hub.data_to_send())
    events = []
    for start in range(0, len(wire), step):
        events += node.receive_data(wire[start : start + step], 0.0)
    assert received(events) == b"".join(bytes((number,)) * 10 for number in range(5))


def test_data_for_a_stream_that_was_ended_is_misuse():
    hub, node = connected_pair()
    stream_id = open_stream(hub, node)
    hub.send_eof(stream_id)
    for misuse in (
        lambda: hub.send_eof(stream_id),
        lambda: hub.send_data(stream_id, b"x"),
    ):
        with pytest.raises(LocalError):
            misuse()
    node.close_stream(hub.connect(TARGET, 0.0), CloseReason.CANCELLED)  # unknown there: nothing
    assert node.data_to_send() == []


def test_a_node_that_closes_an_offer_refuses_it():
    hub, node = connected_pair()
    stream_id = hub.connect(TARGET, 0.0)
    exchange(hub, node)
    node.close_stream(stream_id, CloseReason.INTERNAL, "no")
    assert exchange(hub, node)[0] == [ConnectFailed(stream_id, ConnectFailReason.GENERAL, "no")]


def test_a_sender_stops_at_its_credit_and_goes_on_with_more():
    hub, node = connected_pair(node_window=1000)
    stream_id = open_stream(hub, node)
    assert not hub.send_data(stream_id, bytes(2500))
    assert len(received(transfer(hub, node))) == 1000
    assert transfer(hub, node) == []
    node.consume(stream_id, 249, 1.0)
    transfer(node, hub)
    assert transfer(hub, node) == []
    node.consume(stream_id, 751, 1.0)
    transfer(node, hub)
    assert len(received(transfer(hub, node))) == 1000


def test_a_long_queue_asks_to_stop_and_says_when_to_go_on():
    hub, node = connected_pair(node_window=1000)
    stream_id = open_stream(hub, node)
    assert not hub.send_data(stream_id, bytes(PENDING_HIGH + 1000))
    events = []
    for _ in range(1000):
        size = len(received(transfer(hub, node)))
        node.consume(stream_id, size, 0.0)
        events += transfer(node, hub) + hub.next_event_list()
    assert events == [StreamWritable(stream_id)]


def test_eof_waits_for_the_data_before_it():
    hub, node = connected_pair(node_window=10)
    stream_id = open_stream(hub, node)
    hub.send_data(stream_id, b"x" * 25)
    hub.send_eof(stream_id)
    with pytest.raises(LocalError):
        hub.send_data(stream_id, b"more")
    events = []
    for _ in range(5):
        batch = transfer(hub, node)
        node.consume(stream_id, len(received(batch)), 0.0)
        transfer(node, hub)
        events += batch
    assert received(events) == b"x" * 25
    assert events[-1] == EofReceived(stream_id)


@pytest.mark.parametrize("drain", [False, True])
def test_a_close_drops_or_drains_the_data_before_it(drain):
    hub, node = connected_pair(hub_window=10)
    stream_id = open_stream(hub, node)
    node.send_data(stream_id, b"y" * 25)
    node.close_stream(stream_id, CloseReason.RESET, "gone", drain=drain)
    events = []
    for _ in range(5):
        batch = transfer(node, hub)
        hub.consume(stream_id, len(received(batch)), 0.0)
        transfer(hub, node)
        events += batch
    assert received(events) == b"y" * (25 if drain else 10)
    assert events[-1] == StreamClosed(stream_id, CloseReason.RESET, "gone")
    assert (hub.stream_count, node.stream_count) == (0, 0)
    hub.close_stream(stream_id, CloseReason.CANCELLED)  # over: nothing happens
    assert hub.data_to_send() == []


def test_a_close_from_the_peer_takes_what_still_waits():
    hub, node = connected_pair(hub_window=10)
    stream_id = open_stream(hub, node)
    node.send_data(stream_id, b"y" * 25)
    node.close_stream(stream_id, CloseReason.RESET, drain=True)
    hub.close_stream(stream_id, CloseReason.CANCELLED)
    at_hub, at_node = exchange(hub, node)
    assert at_node == [StreamClosed(stream_id, CloseReason.CANCELLED, "")]
    assert (hub.stream_count, node.stream_count) == (0, 0)


def test_frames_that_cross_a_close_are_dropped():
    hub, node = connected_pair()
    stream_id = open_stream(hub, node)
    node.send_data(stream_id, b"late")
    node.send_eof(stream_id)
    hub.close_stream(stream_id, CloseReason.CANCELLED)
    at_hub, at_node = exchange(hub, node)
    assert at_hub == []
    assert at_node == [StreamClosed(stream_id, CloseReason.CANCELLED, "")]


def test_closing_an_unanswered_stream_cancels_the_connect():
    hub, node = connected_pair()
    stream_id = hub.connect(TARGET, 0.0)
    exchange(hub, node)
    hub.close_stream(stream_id, CloseReason.CANCELLED)
    _, at_node = exchange(hub, node)
    assert at_node == [StreamClosed(stream_id, CloseReason.CANCELLED, "")]
    with pytest.raises(LocalError):
        node.accept(stream_id, ADDRESS)


def test_streams_share_the_tunnel_in_turns():
    hub, node = connected_pair()
    first, second = open_stream(hub, node), open_stream(hub, node)
    hub.send_data(first, bytes(START_WINDOW))
    hub.send_data(first, b"")
    hub.send_data(second, b"small")
    ids = [event.stream_id for event in transfer(hub, node)]
    assert ids.index(second) < len(ids) - 1  # not behind all that the first has


def test_one_stalled_stream_does_not_stop_the_others():
    hub, node = connected_pair()
    stalled, running = open_stream(hub, node), open_stream(hub, node)
    hub.send_data(stalled, bytes(10 * START_WINDOW))
    for _ in range(50):
        hub.send_data(running, bytes(60000))
        for event in transfer(hub, node):
            if event.stream_id == running:
                node.consume(running, len(event.data), 0.0)
        transfer(node, hub)
    assert node.stream_count == 2
    hub.send_data(running, b"end")
    assert received(transfer(hub, node)).endswith(b"end")


def test_small_frames_that_are_ready_together_share_a_record():
    hub, node = connected_pair()
    for _ in range(50):
        hub.connect(TARGET, 0.0)
    assert len(hub.data_to_send()) == 1


def test_a_window_that_limits_its_stream_grows_up_to_its_maximum_and_returns_to_the_budget():
    budget = WindowBudget(1 << 26)
    settings = Settings(max_receive_window=8 * START_WINDOW, budget=budget)
    hub, node = connected_pair(node_settings=settings)
    stream_id = open_stream(hub, node)
    now = 1.0
    for _ in range(40):
        hub.send_data(stream_id, bytes(200_000))
        size = len(received(transfer(hub, node, now)))
        node.consume(stream_id, size, now)
        transfer(node, hub, now)
        transfer(hub, node, now)
    assert budget.used == 8 * START_WINDOW
    hub.close_stream(stream_id, CloseReason.CANCELLED)
    transfer(hub, node)
    assert budget.used == 0


def test_an_idle_stream_gives_its_window_back_and_can_have_it_again():
    budget = WindowBudget(1 << 26)
    hub, node = connected_pair(node_settings=Settings(budget=budget))
    stream_id, idle_id = open_stream(hub, node), open_stream(hub, node)
    assert budget.used == 2 * START_WINDOW
    now = hub.next_timeout()
    assert now == WINDOW_IDLE
    for _ in range(3):
        hub.send_data(stream_id, b"busy")
        hub.handle_timeout(now)
        node.consume(stream_id, len(received(exchange(hub, node, now)[1])), now)
        exchange(hub, node, now)
        now += WINDOW_IDLE
    assert START_WINDOW + FIRST_WINDOW <= budget.used < START_WINDOW + FIRST_WINDOW + 100
    hub.handle_timeout(now)
    transfer(hub, node, now)
    assert FIRST_WINDOW <= budget.used - FIRST_WINDOW < FIRST_WINDOW + 100
    exchange(hub, node, now)
    assert hub.next_timeout() > now + WINDOW_IDLE  # nothing left to return: no wake-ups for it
    hub.send_data(idle_id, bytes(START_WINDOW))
    for _ in range(6):
        node.consume(idle_id, len(received(transfer(hub, node, now))), now)
        transfer(node, hub, now)
    assert budget.used >= 4 * FIRST_WINDOW
    assert hub.next_timeout() == now + WINDOW_IDLE


def test_windows_of_many_streams_stay_within_the_budget():
    budget = WindowBudget(TUNNEL_WINDOW_BUDGET)
    hub, node = connected_pair(node_settings=Settings(budget=budget))
    ids = [open_stream(hub, node) for _ in range(1000)]
    assert budget.used <= TUNNEL_WINDOW_BUDGET
    held = 0
    for stream_id in ids:  # a reader that takes nothing
        for _ in range(4):
            hub.send_data(stream_id, bytes(START_WINDOW))
        held += len(received(transfer(hub, node)))
    assert held == budget.used <= TUNNEL_WINDOW_BUDGET
    assert hub._scheduler._waiting <= len(ids) * 4 * START_WINDOW
    exchange(hub, node)
    last = open_stream(hub, node)  # still served
    hub.send_data(last, bytes(FIRST_WINDOW))
    assert len(received(transfer(hub, node))) == FIRST_WINDOW


def test_an_ended_direction_leaves_the_budget_at_once():
    budget = WindowBudget(1 << 26)
    hub, node = connected_pair(node_settings=Settings(budget=budget))
    stream_id = open_stream(hub, node)
    hub.send_data(stream_id, b"12345")
    hub.send_eof(stream_id)
    transfer(hub, node)
    assert budget.used == 5
    assert hub.handle_timeout(WINDOW_IDLE) == []
    transfer(hub, node)


def test_a_stalled_stream_asks_its_source_for_little():
    hub, node = connected_pair(node_window=1000)
    stream_id = open_stream(hub, node)
    assert hub.offer_size(stream_id) == PENDING_SMALL
    hub.send_data(stream_id, bytes(999))
    assert hub.send_data(stream_id, b"x")
    assert not hub.send_data(stream_id, b"y")
    assert hub.offer_size(stream_id + 1) == PENDING_SMALL  # over: anything but 0
    wide, node = connected_pair()
    assert wide.offer_size(open_stream(wide, node)) > PENDING_SMALL


def test_sources_are_asked_for_little_while_much_waits():
    hub, node = connected_pair()
    late, *ids = [open_stream(hub, node) for _ in range(PENDING_TOTAL // PENDING_HIGH + 3)]
    for stream_id in ids:
        hub.send_data(stream_id, bytes(PENDING_HIGH))
    assert hub.offer_size(ids[0]) == PENDING_SMALL
    hub.send_data(late, bytes(PENDING_SMALL))
    assert not hub.send_data(late, b"x")
    for stream_id in ids:
        hub.close_stream(stream_id, CloseReason.CANCELLED)
    assert hub.offer_size(late) > PENDING_SMALL


@pytest.mark.parametrize(
    "frame",
    [
        (FrameType.DATA, b"x"),
        (FrameType.WINDOW, Window(1).encode()),
        (FrameType.RETURN, Window(1).encode()),
        (FrameType.EOF, b""),
        (FrameType.CLOSE, Close(CloseReason.RESET).encode()),
        (FrameType.CONNECT_OK, ConnectOk(ADDRESS).encode()),
        (FrameType.CONNECT_FAIL, ConnectFail(ConnectFailReason.BUSY).encode()),
    ],
)
def test_frames_for_a_stream_that_is_over_are_dropped(frame):
    hub, node = connected_pair()
    stream_id = open_stream(hub, node)
    hub.close_stream(stream_id, CloseReason.CANCELLED)
    kind, payload = frame
    assert inject(node, hub, encode_frame(kind, stream_id, payload)) == []
    assert not hub.ended


def test_an_empty_piece_of_data_means_nothing():
    hub, node = connected_pair()
    stream_id = open_stream(hub, node)
    assert inject(hub, node, encode_frame(FrameType.DATA, stream_id)) == []


def test_an_answer_to_a_ping_that_was_not_sent_means_nothing():
    hub, node = connected_pair()
    assert inject(hub, node, encode_frame(FrameType.PONG, 0, b"whatever")) == []


def test_a_small_piece_does_not_keep_its_record_in_memory():
    hub, node = connected_pair()
    stream_id = open_stream(hub, node)
    small = encode_frame(FrameType.DATA, stream_id, b"x")
    padding = encode_frame(FrameType.PADDING, 0, bytes(60_000))
    (event,) = inject(hub, node, small, padding)
    assert len(event.data.obj) == 1


def test_a_window_that_does_not_limit_its_stream_stays():
    budget = WindowBudget(1 << 26)
    hub, node = connected_pair(node_settings=Settings(budget=budget))
    stream_id = open_stream(hub, node)
    assert budget.used == START_WINDOW
    for second in range(1, 40):
        hub.send_data(stream_id, bytes(200_000))
        node.consume(stream_id, len(received(transfer(hub, node, second))), second)
        exchange(hub, node, second)
    assert budget.used == START_WINDOW


def test_a_budget_is_bounded_by_its_parents():
    process = WindowBudget(100)
    first, second = WindowBudget(80, process), WindowBudget(80, process)
    first.take(40)
    assert (first.room, second.room) == (20, 35)
    second.take(90)
    assert (first.room, second.room) == (0, 0)
    second.release(60)
    assert (process.used, first.room, second.room) == (70, 5, 5)


FLOOD = encode_frame(FrameType.DATA, 1, bytes(60_000))

MISBEHAVIOUR_OF_THE_HUB = {
    "a type that does not exist": ([encode_frame(0x7F, 0)], GoAwayReason.UNKNOWN_TYPE),
    "HELLO after the handshake": (
        [encode_frame(FrameType.HELLO, 0)],
        GoAwayReason.UNEXPECTED_FRAME,
    ),
    "CONNECT_OK": (
        [encode_frame(FrameType.CONNECT_OK, 1, ConnectOk(ADDRESS).encode())],
        GoAwayReason.UNEXPECTED_FRAME,
    ),
    "STATUS": ([encode_frame(FrameType.STATUS, 0, b"{}")], GoAwayReason.UNEXPECTED_FRAME),
    "CONNECT again": (
        [encode_frame(FrameType.CONNECT, 1, Connect(TARGET).encode())],
        GoAwayReason.BAD_STREAM_ID,
    ),
    "CONNECT with id 0": (
        [encode_frame(FrameType.CONNECT, 0, Connect(TARGET).encode())],
        GoAwayReason.BAD_STREAM_ID,
    ),
    "DATA before CONNECT": ([encode_frame(FrameType.DATA, 2, b"x")], GoAwayReason.BAD_STREAM_ID),
    "EOF before CONNECT": ([encode_frame(FrameType.EOF, 9)], GoAwayReason.BAD_STREAM_ID),
    "WINDOW for stream 0": (
        [encode_frame(FrameType.WINDOW, 0, Window(1).encode())],
        GoAwayReason.BAD_STREAM_ID,
    ),
    "PING on a stream": ([encode_frame(FrameType.PING, 1, bytes(8))], GoAwayReason.BAD_STREAM_ID),
    "DATA beyond credit": ([FLOOD], GoAwayReason.FLOW_CONTROL),
    "credit beyond its limit": (
        [encode_frame(FrameType.WINDOW, 1, Window(MAX_WINDOW).encode())],
        GoAwayReason.FLOW_CONTROL,
    ),
    "DATA after EOF": (
        [encode_frame(FrameType.EOF, 1), encode_frame(FrameType.DATA, 1, b"x")],
        GoAwayReason.UNEXPECTED_FRAME,
    ),
    "EOF twice": ([encode_frame(FrameType.EOF, 1)] * 2, GoAwayReason.UNEXPECTED_FRAME),
    "EOF with a payload": ([encode_frame(FrameType.EOF, 1, b"x")], GoAwayReason.BAD_PAYLOAD),
    "a short PING": ([encode_frame(FrameType.PING, 0, b"x")], GoAwayReason.BAD_PAYLOAD),
    "half a frame": ([b"\x20\0\0"], GoAwayReason.BAD_FRAME),
    "a length over the limit": ([b"\x20\0\0\0\1\xff\xff\xff\xff"], GoAwayReason.BAD_FRAME),
}


@pytest.mark.parametrize("case", MISBEHAVIOUR_OF_THE_HUB)
def test_a_hub_that_misbehaves_loses_its_tunnel_and_hears_why(case):
    frames, reason = MISBEHAVIOUR_OF_THE_HUB[case]
    hub, node = connected_pair(node_window=50_000)
    open_stream(hub, node)
    events = inject(hub, node, *frames)
    assert ended(events) is reason
    assert StreamClosed(1, CloseReason.TUNNEL_LOST, events[-1].detail) in events
    at_hub = transfer(node, hub)
    assert at_hub[-1] == GoAwayReceived(reason, 0, events[-1].detail)
    assert node.receive_data(b"whatever", 0.0) == []
    assert node.next_timeout() is None


MISBEHAVIOUR_OF_THE_NODE = {
    "CONNECT": ([encode_frame(FrameType.CONNECT, 5, Connect(TARGET).encode())],
                GoAwayReason.UNEXPECTED_FRAME),
    "DATA before CONNECT_OK": ([encode_frame(FrameType.DATA, 2, b"x")],
                               GoAwayReason.UNEXPECTED_FRAME),
    "EOF before CONNECT_OK": ([encode_frame(FrameType.EOF, 2)], GoAwayReason.UNEXPECTED_FRAME),
    "CLOSE instead of CONNECT_FAIL": (
        [encode_frame(FrameType.CLOSE, 2, Close(CloseReason.RESET).encode())],
        GoAwayReason.UNEXPECTED_FRAME,
    ),
    "CONNECT_OK twice": ([encode_frame(FrameType.CONNECT_OK, 1, ConnectOk(ADDRESS).encode())],
                         GoAwayReason.UNEXPECTED_FRAME),
    "CONNECT_FAIL after CONNECT_OK": (
        [encode_frame(FrameType.CONNECT_FAIL, 1, ConnectFail(ConnectFailReason.BUSY).encode())],
        GoAwayReason.UNEXPECTED_FRAME,
    ),
    "an answer to what was not asked": (
        [encode_frame(FrameType.CONNECT_OK, 3, ConnectOk(ADDRESS).encode())],
        GoAwayReason.BAD_STREAM_ID,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISBEHAVIOUR_OF_THE_NODE)
def test_a_node_that_misbehaves_loses_its_tunnel(case):
    frames, reason = MISBEHAVIOUR_OF_THE_NODE[case]
    hub, node = connected_pair()
    open_stream(hub, node)
    assert hub.connect(TARGET, 0.0) == 2
    assert ended(inject(node, hub, *frames)) is reason


def test_types_that_may_be_ignored_are_ignored():
    hub, node = connected_pair()
    assert inject(hub, node, encode_frame(0x80, 9, b"x"), encode_frame(FrameType.PADDING, 0)) == []


def test_nothing_after_a_protocol_error_is_looked_at():
    hub, node = connected_pair()
    bad = encode_frame(0x7F, 0)
    connect = encode_frame(FrameType.CONNECT, 1, Connect(TARGET).encode())
    events = inject(hub, node, bad, connect)
    assert [type(event) for event in events] == [TunnelEnded]


def test_a_conversation_cut_at_any_byte_never_ends_cleanly():
    hub, node = connected_pair()
    stream_id = open_stream(hub, node)
    node.send_data(stream_id, b"a" * 100)
    node.send_data(stream_id, b"b" * 100)
    first = b"".join(node.data_to_send())
    node.send_eof(stream_id)
    wire = first + b"".join(node.data_to_send())
    hub.send_eof(stream_id)
    hub.data_to_send()
    import copy

    for end in range(len(wire)):
        opener = copy.copy(hub.session.opener)
        cut = Connection(Role.HUB, _with_opener(hub.session, opener), 0.0)
        cut.connect(TARGET, 0.0)
        cut._streams[stream_id].state = hub._streams[stream_id].state
        events = cut.receive_data(wire[:end], 0.0) + cut.receive_eof()
        closed = [event for event in events if isinstance(event, StreamClosed)]
        assert [event.reason for event in closed] == [CloseReason.TUNNEL_LOST]


def _with_opener(session, opener):
    import dataclasses

    return dataclasses.replace(session, opener=opener)


def test_a_peer_that_pings_without_reading_is_given_up():
    hub, node = connected_pair()
    pings = encode_frame(FrameType.PING, 0, bytes(8)) * 3000
    for _ in range(200):
        events = inject(hub, node, pings)
        if events:
            break
    assert ended(events) is GoAwayReason.NOT_READING


def test_a_million_connects_and_closes_leave_nothing_behind():
    hub, node = connected_pair()
    for batch in range(100):
        ids = range(batch * 500 + 1, batch * 500 + 501)
        frames = b"".join(
            encode_frame(FrameType.CONNECT, number, Connect(ADDRESS).encode())
            + encode_frame(FrameType.CLOSE, number, Close(CloseReason.CANCELLED).encode())
            for number in ids
        )
        assert len(inject(hub, node, frames)) == 1000
        node.data_to_send()
    assert node.stream_count == 0


def test_streams_over_the_nodes_limit_are_refused_as_busy():
    hub, node = connected_pair(node_settings=Settings(max_streams=2))
    ids = [hub.connect(TARGET, 0.0) for _ in range(3)]
    at_hub, at_node = exchange(hub, node)
    assert [event.stream_id for event in at_node] == ids[:2]
    assert at_hub == [ConnectFailed(3, ConnectFailReason.BUSY, "too many streams at once")]


def test_a_silent_peer_is_asked_and_then_given_up():
    hub, node = connected_pair(now=100.0)
    assert hub.next_timeout() == 130.0
    assert hub.handle_timeout(129.9) == []
    assert hub.data_to_send() == []
    assert hub.handle_timeout(130.0) == []
    assert len(hub.data_to_send()) == 1
    assert hub.next_timeout() == 140.0
    assert ended(hub.handle_timeout(140.0)) is GoAwayReason.PING_TIMEOUT


def test_any_byte_proves_the_peer_alive():
    hub, node = connected_pair(now=100.0)
    hub.handle_timeout(130.0)
    node.ping(135.0)
    hub.receive_data(b"".join(node.data_to_send())[:1], 135.0)
    assert hub.next_timeout() == 165.0
    assert hub.handle_timeout(140.0) == []


def test_after_goaway_no_stream_is_opened_and_running_ones_finish():
    hub, node = connected_pair()
    stream_id = open_stream(hub, node)
    crossing = hub.connect(TARGET, 0.0)
    node.go_away(GoAwayReason.SHUTDOWN, 5, "stopping")
    at_hub, at_node = exchange(hub, node)
    assert GoAwayReceived(GoAwayReason.SHUTDOWN, 5, "stopping") in at_hub
    assert ConnectFailed(crossing, ConnectFailReason.GOING_AWAY, "the node is stopping") in at_hub
    with pytest.raises(LocalError):
        hub.connect(TARGET, 0.0)
    node.send_data(stream_id, b"still here")
    assert received(exchange(hub, node)[0]) == b"still here"


def test_a_status_reaches_the_hub():
    hub, node = connected_pair()
    node.send_status(Status({"version": "1"}))
    assert exchange(hub, node)[0] == [StatusReceived({"version": "1"})]


def test_used_up_stream_ids_are_told_to_the_hub_itself():
    hub, node = connected_pair()
    hub._last_id = MAX_STREAM_ID
    with pytest.raises(LocalError, match="used up"):
        hub.connect(TARGET, 0.0)


def test_misuse_raises_and_leaves_the_tunnel_as_it_is():
    hub, node = connected_pair()
    stream_id = open_stream(hub, node)
    for misuse in (
        lambda: node.connect(TARGET, 0.0),
        lambda: hub.accept(stream_id, ADDRESS),
        lambda: node.accept(stream_id, ADDRESS),
        lambda: node.refuse(stream_id, ConnectFailReason.BUSY),
        lambda: hub.send_status(Status({})),
        lambda: hub.send_data(99, b"x"),
        lambda: hub.send_eof(99),
    ):
        with pytest.raises(LocalError):
            misuse()
    hub.send_data(stream_id, b"fine")
    assert received(transfer(hub, node)) == b"fine"
    hub.terminate(GoAwayReason.SHUTDOWN)
    for misuse in (lambda: hub.ping(0.0), lambda: hub.send_data(stream_id, b"x")):
        with pytest.raises(LocalError):
            misuse()
    hub.consume(stream_id, 5, 0.0)
    hub.close_stream(stream_id, CloseReason.CANCELLED)


def test_an_idle_tunnel_holds_no_record_buffer():
    hub, node = connected_pair()
    open_stream(hub, node)
    assert hub._outbox.idle
    assert node._outbox.idle
