"""One end of an authenticated tunnel, without I/O.

Feed it bytes (`receive_data`) and the time; it returns events. Call its methods;
it collects bytes (`data_to_send`). It owns no socket, clock, timer or task.

    socket --> receive_data(data, now) --> events
    send_data / connect / accept / close_stream ... --> data_to_send() --> socket
    next_timeout() --> a timer of yours --> handle_timeout(now) --> events

Frames that are not data never wait behind a stream's data (`scheduler`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import cast

from .addresses import Target
from .codec import Buffer
from .errors import (
    CloseReason,
    ConnectFailReason,
    GoAwayReason,
    LocalError,
    RemoteError,
)
from .events import (
    Connected,
    ConnectFailed,
    ConnectRequested,
    DataReceived,
    EofReceived,
    Established,
    Event,
    GoAwayReceived,
    RoundTripMeasured,
    StatusReceived,
    StreamClosed,
    StreamWritable,
    TunnelEnded,
)
from .frames import FIRST_IGNORABLE_TYPE, FrameType, describe_frame, parse_frames
from .limits import (
    MAX_RECEIVE_WINDOW,
    MAX_STREAM_ID,
    MAX_STREAMS,
    PENDING_SMALL,
    PING_INTERVAL,
    PING_TIMEOUT,
    START_WINDOW,
    TUNNEL_WINDOW_BUDGET,
    WINDOW_IDLE,
)
from .liveness import Liveness
from .messages import (
    Close,
    Connect,
    ConnectFail,
    ConnectOk,
    GoAway,
    Status,
    Window,
    check_ping,
)
from .noise import Session
from .outbox import Outbox
from .records import RecordSplitter
from .scheduler import Scheduler
from .streams import TRANSITIONS, Signal, State, Stream
from .windows import ReceiveWindow, SendWindow, WindowBudget

_PINNING = 4
"""A view of less than this part (one in ...) of its record is copied: whoever keeps it would
keep the whole record in memory, however little of it the stream's window counts."""


class Role(Enum):
    """Which end of the tunnel this is."""

    HUB = "hub"
    NODE = "node"


@dataclass(slots=True)
class Settings:
    """What may differ between deployments. Times in seconds, sizes in bytes."""

    ping_interval: float = PING_INTERVAL
    ping_timeout: float = PING_TIMEOUT
    max_streams: int = MAX_STREAMS
    start_window: int = START_WINDOW
    max_receive_window: int = MAX_RECEIVE_WINDOW
    budget: WindowBudget = field(default_factory=lambda: WindowBudget(TUNNEL_WINDOW_BUDGET))


class Connection:
    """A tunnel after its handshake; `role` says which end."""

    def __init__(
        self, role: Role, session: Session, now: float, settings: Settings | None = None
    ) -> None:
        self.role = role
        self.session = session
        self._settings = settings or Settings()
        self._streams: dict[int, Stream] = {}
        self._last_id = 0
        self._events: list[Event] = []
        self._established = False
        self._ended = False
        self._go_away_sent = False
        self._go_away_received = False
        # Receiving.
        self._splitter = RecordSplitter()
        self._handlers = _handlers(self)
        # Sending.
        self._outbox = Outbox(session.sealer)
        self._scheduler = Scheduler(self._outbox)
        self._return_due: float | None = None
        self.timeout_advanced = False
        """Whether `next_timeout` has become sooner since it was last asked for."""
        self._liveness = Liveness(self._settings.ping_interval, self._settings.ping_timeout, now)
        if role is Role.NODE:
            # The hub keeps an older tunnel of this node until a record authenticates.
            self.ping(now)

    # --- state ---------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether `TunnelEnded` has been reported; nothing can be done with it then."""
        return self._ended

    @property
    def draining(self) -> bool:
        """Whether either end has said GOAWAY, so that no new stream can be opened."""
        return self._go_away_sent or self._go_away_received

    @property
    def stream_count(self) -> int:
        return len(self._streams)

    @property
    def round_trip(self) -> float | None:
        """Seconds of the best recent round trip, None before the first PONG."""
        return self._liveness.round_trip

    @property
    def stream_ids_left(self) -> int:
        """How many more streams a hub can open in this tunnel."""
        return MAX_STREAM_ID - self._last_id

    def next_event_list(self) -> list[Event]:
        """Events since the last call that did not come from `receive_data`."""
        events, self._events = self._events, []
        return events

    # --- receiving -----------------------------------------------------------

    def receive_data(self, data: Buffer, now: float) -> list[Event]:
        """Take bytes as they came from the socket; the events they cause, in order.

        Every byte is used or kept; `data` may be overwritten afterwards. A protocol
        error of the peer is reported as `TunnelEnded`, never raised.
        """
        if not self._ended:
            # Once the peer has answered, its next silence counts from now.
            self.timeout_advanced = self.timeout_advanced or self._liveness.asked
            self._liveness.received(now)
            try:
                for ciphertext in self._splitter.feed(data):
                    self._receive_record(ciphertext, now)
                    if self._ended:
                        break
            except RemoteError as error:
                self._fail(error.reason, error.detail, error.frame)
        return self.next_event_list()

    def receive_eof(self) -> list[Event]:
        """The peer closed its end of the socket, or the socket failed."""
        if not self._ended:
            self._end(None, "closed by the peer")
        return self.next_event_list()

    def _receive_record(self, ciphertext: memoryview, now: float) -> None:
        plaintext = self.session.opener.open(ciphertext)
        if not self._established:
            self._established = True
            self._events.append(Established())
            if self.role is Role.HUB:
                self.ping(now)
        handlers = self._handlers
        for frame in parse_frames(plaintext):
            if self._ended:
                return
            kind, stream_id, payload = frame
            try:
                handler = handlers.get(kind)
                if handler is not None:
                    handler(stream_id, payload, now)
                elif kind < FIRST_IGNORABLE_TYPE:
                    self._refuse_type(kind)
            except RemoteError as error:
                error.frame = describe_frame(frame)
                raise

    def _refuse_type(self, kind: int) -> None:
        if kind in FrameType._value2member_map_:
            raise RemoteError(
                GoAwayReason.UNEXPECTED_FRAME,
                f"a {self.role.value} does not take {FrameType(kind).name} here",
            )
        raise RemoteError(GoAwayReason.UNKNOWN_TYPE, f"unknown frame type 0x{kind:02x}")

    def _on_data(self, stream_id: int, payload: memoryview, now: float) -> None:
        stream = self._find(stream_id, FrameType.DATA)
        if stream is None:
            return
        if stream.state is not State.OPEN:
            self._apply(stream, Signal.RECV_DATA)
        size = len(payload)
        stream.receive_window.receive(size)
        if size * _PINNING < len(cast(bytes, payload.obj)):
            payload = memoryview(bytes(payload))
        if size:
            self._events.append(DataReceived(stream_id, payload))

    def _on_window(self, stream_id: int, payload: memoryview, now: float) -> None:
        increment = Window.decode(payload).increment
        stream = self._find(stream_id, FrameType.WINDOW)
        if stream is not None:
            stream.send_window.add(increment)
            self._scheduler.schedule(stream)
            if self._return_due is None and stream.send_window.excess:
                self._return_due = now + WINDOW_IDLE
                self.timeout_advanced = True

    def _on_return(self, stream_id: int, payload: memoryview, now: float) -> None:
        size = Window.decode(payload).increment
        stream = self._find(stream_id, FrameType.RETURN)
        if stream is not None:
            stream.receive_window.take_back(size)

    def _on_eof(self, stream_id: int, payload: memoryview, now: float) -> None:
        _expect_empty(payload, FrameType.EOF)
        stream = self._find(stream_id, FrameType.EOF)
        if stream is not None:
            self._apply(stream, Signal.RECV_EOF)
            stream.receive_window.close()
            self._events.append(EofReceived(stream_id))
            self._finish_if_closed(stream)

    def _on_close(self, stream_id: int, payload: memoryview, now: float) -> None:
        message = Close.decode(payload)
        stream = self._find(stream_id, FrameType.CLOSE)
        if stream is not None:
            self._apply(stream, Signal.RECV_CLOSE)
            self._forget(stream, message.reason, message.detail)

    def _on_connect(self, stream_id: int, payload: memoryview, now: float) -> None:
        target = Connect.decode(payload).target
        if stream_id <= self._last_id:
            raise RemoteError(
                GoAwayReason.BAD_STREAM_ID,
                f"CONNECT for stream {stream_id} after stream {self._last_id}",
            )
        self._last_id = stream_id
        stream = self._add_stream(stream_id, State.OFFERED, now)
        if self._go_away_sent:
            self.refuse(stream_id, ConnectFailReason.GOING_AWAY, "the node is stopping")
        elif len(self._streams) > self._settings.max_streams:
            self.refuse(stream_id, ConnectFailReason.BUSY, "too many streams at once")
        else:
            self._start_window(stream)
            self._events.append(ConnectRequested(stream.id, target))

    def _on_connect_ok(self, stream_id: int, payload: memoryview, now: float) -> None:
        message = ConnectOk.decode(payload)
        stream = self._find(stream_id, FrameType.CONNECT_OK)
        if stream is not None:
            self._apply(stream, Signal.RECV_OK)
            self._events.append(Connected(stream_id, message.address))

    def _on_connect_fail(self, stream_id: int, payload: memoryview, now: float) -> None:
        message = ConnectFail.decode(payload)
        stream = self._find(stream_id, FrameType.CONNECT_FAIL)
        if stream is not None:
            self._apply(stream, Signal.RECV_FAIL)
            self._drop(stream)
            self._events.append(ConnectFailed(stream_id, message.reason, message.detail))

    def _on_ping(self, stream_id: int, payload: memoryview, now: float) -> None:
        _expect_tunnel(stream_id, FrameType.PING)
        self._write_frame(FrameType.PONG, 0, check_ping(payload))

    def _on_pong(self, stream_id: int, payload: memoryview, now: float) -> None:
        _expect_tunnel(stream_id, FrameType.PONG)
        sample = self._liveness.answered(check_ping(payload), now)
        if sample is not None:
            self._events.append(RoundTripMeasured(sample))

    def _on_go_away(self, stream_id: int, payload: memoryview, now: float) -> None:
        _expect_tunnel(stream_id, FrameType.GOAWAY)
        message = GoAway.decode(payload)
        self._go_away_received = True
        self._events.append(GoAwayReceived(message.reason, message.retry_after, message.detail))

    def _on_status(self, stream_id: int, payload: memoryview, now: float) -> None:
        _expect_tunnel(stream_id, FrameType.STATUS)
        self._events.append(StatusReceived(Status.decode(payload).fields))

    def _on_padding(self, stream_id: int, payload: memoryview, now: float) -> None:
        """PADDING means nothing, in any state."""

    # --- streams -------------------------------------------------------------

    def connect(self, target: Target, now: float) -> int:
        """Hub: ask the node for a connection to `target`; the new stream's id.

        Data may follow at once, up to the node's initial window. Raises
        `LocalError` if the tunnel is draining or its stream ids are used up.
        """
        self._check_role(Role.HUB)
        self._check_usable()
        if self.draining:
            raise LocalError("the tunnel takes no new streams")
        if self.stream_ids_left == 0:
            raise LocalError("the tunnel's stream ids are used up")
        self._last_id += 1
        stream = self._add_stream(self._last_id, State.CONNECTING, now)
        self._write_frame(FrameType.CONNECT, stream.id, Connect(target).encode())
        self._start_window(stream)
        return stream.id

    def accept(self, stream_id: int, address: Target) -> None:
        """Node: the target is connected, at `address`."""
        self._check_role(Role.NODE)
        stream = self._own(stream_id)
        self._apply_local(stream, Signal.SEND_OK)
        self._write_frame(FrameType.CONNECT_OK, stream_id, ConnectOk(address).encode())

    def refuse(self, stream_id: int, reason: ConnectFailReason, detail: str = "") -> None:
        """Node: the target cannot be connected; the stream is over."""
        self._check_role(Role.NODE)
        stream = self._own(stream_id)
        self._apply_local(stream, Signal.SEND_FAIL)
        self._drop(stream)
        self._write_frame(FrameType.CONNECT_FAIL, stream_id, ConnectFail(reason, detail).encode())

    def send_data(self, stream_id: int, data: Buffer) -> bool:
        """Send bytes; whether the caller may go on at once.

        `data` is used or copied before this returns, all of it. After False the
        caller should stop; `StreamWritable` says when to go on. Raises `LocalError`
        for a stream that may not send.
        """
        stream = self._own(stream_id)
        if stream.state is not State.OPEN:
            self._apply_local(stream, Signal.SEND_DATA)
        if stream.wants_eof or stream.close_when_drained:
            raise LocalError(f"stream {stream_id} has been ended")
        return self._scheduler.offer(stream, data)

    def offer_size(self, stream_id: int) -> int:
        """Bytes that a source of this stream should read at once, never 0.

        More than that would only be copied and queued.
        """
        stream = self._streams.get(stream_id)
        return PENDING_SMALL if stream is None else self._scheduler.offer_size(stream)

    def send_eof(self, stream_id: int) -> None:
        """End our direction of a stream, after all data that waits."""
        stream = self._own(stream_id)
        if stream.wants_eof or Signal.SEND_EOF not in TRANSITIONS[stream.state]:
            raise LocalError(f"stream {stream_id} cannot be ended in {stream.state.name}")
        stream.wants_eof = True
        self._settle(stream)

    def close_stream(
        self, stream_id: int, reason: CloseReason, detail: str = "", *, drain: bool = False
    ) -> None:
        """End a stream in both directions, visibly failed; does nothing if it is over.

        With `drain`, data that waits goes out before the CLOSE, as TCP delivers
        what came before a reset; otherwise it is dropped.
        """
        stream = self._streams.get(stream_id)
        if stream is None or self._ended:
            return
        if drain and stream.pending:
            stream.close_when_drained = (reason, detail)
            return
        if stream.state in (State.OFFERED, State.OFFERED_ENDED):
            self.refuse(stream_id, ConnectFailReason.GENERAL, detail)
        else:
            self._send_close(stream, reason, detail)

    def consume(self, stream_id: int, size: int, now: float) -> None:
        """`size` received bytes are out of our hands: their credit goes back."""
        stream = self._streams.get(stream_id)
        if stream is None or self._ended or stream.state is State.REMOTE_ENDED:
            return
        increment = stream.receive_window.consume(size, now, self._liveness.round_trip)
        if increment:
            self._write_frame(FrameType.WINDOW, stream_id, Window(increment).encode())
            if self._liveness.is_stale(now):
                self.ping(now)

    # --- the tunnel ----------------------------------------------------------

    def ping(self, now: float) -> None:
        """Send a PING; the PONG measures the round trip."""
        self._check_usable()
        self._write_frame(FrameType.PING, 0, self._liveness.new_ping(now))

    def send_status(self, status: Status) -> None:
        """Node: report to the hub."""
        self._check_role(Role.NODE)
        self._check_usable()
        self._write_frame(FrameType.STATUS, 0, status.encode())

    def go_away(self, reason: GoAwayReason, retry_after: int = 0, detail: str = "") -> None:
        """Announce that no new streams are taken. Running streams go on."""
        self._check_usable()
        self._go_away_sent = True
        self._write_frame(FrameType.GOAWAY, 0, GoAway(reason, retry_after, detail).encode())

    def terminate(self, reason: GoAwayReason, detail: str = "") -> list[Event]:
        """End the tunnel at once: GOAWAY, all streams failed, `TunnelEnded`."""
        if not self._ended:
            self._fail(reason, detail)
        return self.next_event_list()

    def next_timeout(self) -> float | None:
        """When `handle_timeout` wants to be called, in the caller's clock; None: never.

        Most bytes received only move it out, so that one early call does no harm; what
        makes it sooner sets `timeout_advanced`.
        """
        self.timeout_advanced = False
        if self._ended:
            return None
        due = self._liveness.due
        return due if self._return_due is None else min(due, self._return_due)

    def handle_timeout(self, now: float) -> list[Event]:
        """Act on the time: return idle credit, PING a silent peer, give up one that stays so."""
        if not self._ended and self._return_due is not None and now >= self._return_due:
            self._return_idle_credit(now)
        if not self._ended and now >= self._liveness.due:
            if self._liveness.asked:
                self._fail(GoAwayReason.PING_TIMEOUT, "no sign of life from the peer")
            else:
                self._write_frame(FrameType.PING, 0, self._liveness.ask(now))
        return self.next_event_list()

    # --- sending -------------------------------------------------------------

    @property
    def has_output(self) -> bool:
        """Whether `data_to_send` would have something, credit and room permitting."""
        return not (self._outbox.idle and self._scheduler.idle)

    def data_to_send(self) -> list[bytearray]:
        """Records for the socket, each in a buffer of its own that nothing will change.

        Call it after every other call, unless the socket would not take more now.
        """
        while (stream := self._scheduler.serve()) is not None:
            if self._scheduler.resumes(stream):
                self._events.append(StreamWritable(stream.id))
            self._settle(stream)
        return self._outbox.take()

    def _settle(self, stream: Stream) -> None:
        """Send the EOF or CLOSE that waited for the pending data, if it is gone."""
        if stream.pending:
            return
        if stream.close_when_drained is not None:
            self._send_close(stream, *stream.close_when_drained)
        elif stream.wants_eof and Signal.SEND_EOF in TRANSITIONS[stream.state]:
            self._apply_local(stream, Signal.SEND_EOF)
            self._write_frame(FrameType.EOF, stream.id, b"")
            self._finish_if_closed(stream)

    def _send_close(self, stream: Stream, reason: CloseReason, detail: str) -> None:
        self._apply_local(stream, Signal.SEND_CLOSE)
        self._drop(stream)
        self._write_frame(FrameType.CLOSE, stream.id, Close(reason, detail).encode())

    def _start_window(self, stream: Stream) -> None:
        """Grant a new stream more than HELLO did, while there is room for it."""
        increment = stream.receive_window.start(self._settings.start_window)
        if increment:
            self._write_frame(FrameType.WINDOW, stream.id, Window(increment).encode())

    def _return_idle_credit(self, now: float) -> None:
        """Give back what streams without data do not use, so that others can have it."""
        self._return_due = None
        for stream in list(self._streams.values()):
            window = stream.send_window
            if window.excess and not stream.wants_eof:
                if size := window.give_back():
                    self._write_frame(FrameType.RETURN, stream.id, Window(size).encode())
                else:
                    self._return_due = now + WINDOW_IDLE

    def _write_frame(self, kind: FrameType, stream_id: int, payload: bytes) -> None:
        self._outbox.put(kind, stream_id, payload)
        if self._outbox.overflows and not self._ended:
            self._fail(GoAwayReason.NOT_READING, "answers pile up unread")

    # --- helpers -------------------------------------------------------------

    def _add_stream(self, stream_id: int, state: State, now: float) -> Stream:
        session, settings = self.session, self._settings
        stream = self._streams[stream_id] = Stream(
            stream_id,
            state,
            SendWindow(session.remote.window),
            ReceiveWindow(session.local.window, settings.max_receive_window, settings.budget, now),
        )
        return stream

    def _find(self, stream_id: int, kind: FrameType) -> Stream | None:
        """The stream of a received frame; None if it is over already.

        A frame may cross our own end of the stream on the way, so an id that has
        been used is fine; one that never was is not.
        """
        stream = self._streams.get(stream_id)
        if stream is None and not 0 < stream_id <= self._last_id:
            raise RemoteError(
                GoAwayReason.BAD_STREAM_ID, f"{kind.name} for stream {stream_id}, never opened"
            )
        return stream

    def _own(self, stream_id: int) -> Stream:
        """The stream of a local call."""
        self._check_usable()
        stream = self._streams.get(stream_id)
        if stream is None:
            raise LocalError(f"stream {stream_id} is not open")
        return stream

    def _apply(self, stream: Stream, signal: Signal) -> None:
        following = TRANSITIONS[stream.state].get(signal)
        if following is None:
            raise RemoteError(
                GoAwayReason.UNEXPECTED_FRAME,
                f"{signal.name} on stream {stream.id} in state {stream.state.name}",
            )
        stream.state = following

    def _apply_local(self, stream: Stream, signal: Signal) -> None:
        following = TRANSITIONS[stream.state].get(signal)
        if following is None:
            raise LocalError(f"{signal.name} on stream {stream.id} in state {stream.state.name}")
        stream.state = following

    def _finish_if_closed(self, stream: Stream) -> None:
        if stream.state is State.CLOSED:
            self._forget(stream, None, "")

    def _forget(self, stream: Stream, reason: CloseReason | None, detail: str) -> None:
        self._drop(stream)
        self._events.append(StreamClosed(stream.id, reason, detail))

    def _drop(self, stream: Stream) -> None:
        stream.state = State.CLOSED
        self._scheduler.forget(stream)
        stream.close_when_drained = None
        stream.receive_window.release()
        del self._streams[stream.id]

    def _fail(self, reason: GoAwayReason, detail: str, frame: str = "") -> None:
        """End the tunnel ourselves, telling the peer why."""
        announced = self._go_away_sent and not reason.is_protocol_error
        self._go_away_sent = True
        self._ended = True  # before the write: what does not fit any more is no new failure
        if not announced:
            self._write_frame(FrameType.GOAWAY, 0, GoAway(reason, 0, detail).encode())
        self._end(reason, detail, frame)

    def _end(self, reason: GoAwayReason | None, detail: str, frame: str = "") -> None:
        self._ended = True
        self._scheduler.clear()
        for stream in list(self._streams.values()):
            self._forget(stream, CloseReason.TUNNEL_LOST, detail)
        self._events.append(TunnelEnded(reason, detail, frame))

    def _check_usable(self) -> None:
        if self._ended:
            raise LocalError("the tunnel has ended")

    def _check_role(self, role: Role) -> None:
        if self.role is not role:
            raise LocalError(f"only a {role.value} does this")


_Handler = Callable[[int, memoryview, float], None]


def _handlers(connection: Connection) -> dict[int, _Handler]:
    """What each frame type does at this end; a type that is missing is an error there."""
    both: dict[int, _Handler] = {
        FrameType.DATA: connection._on_data,
        FrameType.WINDOW: connection._on_window,
        FrameType.RETURN: connection._on_return,
        FrameType.EOF: connection._on_eof,
        FrameType.CLOSE: connection._on_close,
        FrameType.PING: connection._on_ping,
        FrameType.PONG: connection._on_pong,
        FrameType.GOAWAY: connection._on_go_away,
        FrameType.PADDING: connection._on_padding,
    }
    if connection.role is Role.NODE:
        return {**both, FrameType.CONNECT: connection._on_connect}
    return {
        **both,
        FrameType.CONNECT_OK: connection._on_connect_ok,
        FrameType.CONNECT_FAIL: connection._on_connect_fail,
        FrameType.STATUS: connection._on_status,
    }


def _expect_tunnel(stream_id: int, kind: FrameType) -> None:
    if stream_id != 0:
        raise RemoteError(GoAwayReason.BAD_STREAM_ID, f"{kind.name} on stream {stream_id}")


def _expect_empty(payload: memoryview, kind: FrameType) -> None:
    if payload:
        raise RemoteError(GoAwayReason.BAD_PAYLOAD, f"{kind.name} with a payload")
