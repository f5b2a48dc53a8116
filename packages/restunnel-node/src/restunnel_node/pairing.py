"""Enrolment: from a pairing link to a stored hub."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable

from restunnel_protocol import (
    Connection,
    Endpoint,
    Enroll,
    EnrollOk,
    GoAwayReason,
    HandshakeError,
    Hello,
    LinkError,
    PairingLink,
    PrivateKey,
    Role,
    Suite,
)
from restunnel_protocol.aio import Dialled, HubSilentError, dial_hub
from restunnel_protocol.program.errors import ExitCode, ProgramError, describe_os_error

from .clock import RisingClock
from .connector import AGENT
from .hubs import Hub, HubFile, confirmed

SILENT_HINT = (
    "the link was used already, was cancelled or has expired, or this device's clock is wrong;"
    " ask for a new one with `restunnel-hub pair`"
)


def parse_link(text: str, now: Callable[[], float] = time.time) -> PairingLink:
    """A link that is still good by this device's clock. Raises `ProgramError`."""
    try:
        link = PairingLink.parse(text)
    except LinkError as error:
        raise ProgramError(
            str(error), hint="copy the whole link that `restunnel-hub pair` shows"
        ) from error
    age = now() - link.expires_at
    if age >= 0:
        raise ProgramError(
            f"the pairing link expired {_ago(age)} ago, by this device's clock",
            hint="ask for a new one with `restunnel-hub pair`; check the clock if this cannot be",
        )
    return link


async def pair(
    link: PairingLink, key: PrivateKey, hubs: HubFile, clock: RisingClock, suite: Suite
) -> Hub:
    """Enrol with the hub and store it. Raises `ProgramError` saying what went wrong.

    The hub is stored before its answer can be lost: if an earlier attempt with this
    hub got no answer, the key may be enrolled already, and then that is enough.
    """
    known = hubs.find(link.hub)
    interrupted = known is not None and not known.paired
    hub = Hub(link.hub, link.endpoints, known.node_id if known else "", known.name if known else "")
    hubs.put(hub)
    enroll = Enroll(link.token, platform.node()[:64])
    failure: ProgramError | None = None
    for endpoint in link.endpoints:
        try:
            answer = await _enrol(endpoint, hub, key, clock, suite, enroll)
        except ProgramError as error:
            failure = error
            continue
        return _store(hubs, hub, answer)
    if interrupted and await _is_enrolled(hub, key, clock, suite):
        return _store(hubs, hub, EnrollOk(key.public.fingerprint, ""))
    assert failure is not None  # a link has at least one endpoint
    raise failure


def _store(hubs: HubFile, hub: Hub, answer: EnrollOk) -> Hub:
    paired = confirmed(hub, answer.node_id, answer.name)
    hubs.put(paired)
    return paired


async def _enrol(
    endpoint: Endpoint,
    hub: Hub,
    key: PrivateKey,
    clock: RisingClock,
    suite: Suite,
    enroll: Enroll,
) -> EnrollOk:
    hello = Hello(clock.next(), agent=AGENT)
    try:
        dialled = await dial_hub(endpoint, key, hub.key, hello, enroll=enroll, suite=suite)
    except HubSilentError as error:
        raise ProgramError(
            f"the hub at {endpoint} does not answer this link", hint=SILENT_HINT
        ) from error
    except HandshakeError as error:
        raise ProgramError(f"{endpoint} is not the hub of this link: {error}") from error
    except OSError as error:
        reason = "no answer" if isinstance(error, TimeoutError) else describe_os_error(error)
        raise ProgramError(
            f"cannot reach the hub at {endpoint}: {reason}",
            hint="is it running, and is its tunnel port open to the internet?",
            code=ExitCode.NOT_RUNNING,
        ) from error
    _say_goodbye(dialled)
    if dialled.enroll_ok is None:
        raise ProgramError(f"the hub at {endpoint} did not confirm the enrolment")
    return dialled.enroll_ok


async def _is_enrolled(hub: Hub, key: PrivateKey, clock: RisingClock, suite: Suite) -> bool:
    for endpoint in hub.endpoints:
        try:
            hello = Hello(clock.next(), agent=AGENT)
            _say_goodbye(await dial_hub(endpoint, key, hub.key, hello, suite=suite))
        except (OSError, HandshakeError):
            continue
        return True
    return False


def _say_goodbye(dialled: Dialled) -> None:
    """Confirm the tunnel with a first record, so that the hub sees the device, and leave."""
    connection = Connection(Role.NODE, dialled.session, time.monotonic())
    connection.terminate(GoAwayReason.SHUTDOWN, "paired")
    with dialled.sock as sock:
        sock.setblocking(True)
        sock.sendall(b"".join(connection.data_to_send()))


def _ago(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.0f} hours"
