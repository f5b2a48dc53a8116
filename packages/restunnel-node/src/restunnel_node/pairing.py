"""Enrolment: from a pairing link to a stored hub."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass

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
from restunnel_protocol.limits import MAX_NODE_NAME
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


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What a device brings to its pairing; `timeout` is in seconds for each hub address."""

    key: PrivateKey
    hubs: HubFile
    clock: RisingClock
    suite: Suite
    timeout: float

    async def pair(self, link: PairingLink) -> Hub:
        """Enrol with the hub and store it. Raises `ProgramError` saying what went wrong.

        The hub is stored before its answer can be lost: if an earlier attempt with this
        hub got no answer, the key may be enrolled already, and then that is enough.
        """
        known = self.hubs.find(link.hub)
        interrupted = known is not None and not known.paired
        hub = Hub(link.hub, link.endpoints)
        if known is not None:
            hub = confirmed(hub, known.node_id, known.name)
        self.hubs.put(hub)
        enroll = Enroll(link.token, platform.node()[:MAX_NODE_NAME])
        failure: ProgramError | None = None
        for endpoint in link.endpoints:
            try:
                return self._store(hub, await self._enrol(endpoint, hub, enroll))
            except ProgramError as error:
                failure = error
        if interrupted and await self._is_enrolled(hub):
            return self._store(hub, EnrollOk(self.key.public.fingerprint, ""))
        assert failure is not None  # a link has at least one endpoint
        raise failure

    def _store(self, hub: Hub, answer: EnrollOk) -> Hub:
        paired = confirmed(hub, answer.node_id, answer.name)
        self.hubs.put(paired)
        return paired

    async def _dial(self, endpoint: Endpoint, hub: Hub, enroll: Enroll | None = None) -> Dialled:
        hello = Hello(self.clock.next(), agent=AGENT)
        return await dial_hub(
            endpoint,
            self.key,
            hub.key,
            hello,
            enroll=enroll,
            suite=self.suite,
            timeout=self.timeout,
        )

    async def _enrol(self, endpoint: Endpoint, hub: Hub, enroll: Enroll) -> EnrollOk:
        try:
            dialled = await self._dial(endpoint, hub, enroll)
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

    async def _is_enrolled(self, hub: Hub) -> bool:
        for endpoint in hub.endpoints:
            try:
                _say_goodbye(await self._dial(endpoint, hub))
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
