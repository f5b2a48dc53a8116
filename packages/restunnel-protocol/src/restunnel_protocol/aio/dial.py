"""A node's way to a hub: TCP connection and handshake."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

from ..errors import HandshakeError
from ..keys import PrivateKey, PublicKey
from ..limits import HANDSHAKE_TIMEOUT, MAX_MESSAGE_2
from ..messages import Enroll, EnrollOk, Hello
from ..noise import Initiator, Session
from ..pairing import Endpoint
from ..records import Suite


class HubSilentError(HandshakeError):
    """The port took the connection and said nothing, as a hub does to strangers."""


@dataclass(frozen=True, slots=True)
class Dialled:
    """A socket after the handshake, non-blocking, and what the handshake gave."""

    sock: socket.socket
    session: Session
    enroll_ok: EnrollOk | None
    leftover: bytes


async def dial_hub(
    endpoint: Endpoint,
    key: PrivateKey,
    hub: PublicKey,
    hello: Hello,
    *,
    enroll: Enroll | None = None,
    suite: Suite = Suite.AESGCM_SHA256,
    timeout: float = HANDSHAKE_TIMEOUT,
) -> Dialled:
    """Connect to one endpoint, trying each of its addresses, and shake hands.

    `timeout` is in seconds, for the name, the connection and the answer each. Raises
    `OSError` if no address takes the connection (`TimeoutError` included),
    `HubSilentError` if no answer comes, `HandshakeError` if it is not the hub's.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout):
        infos = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    failure: Exception = OSError(f"no address for {endpoint.host}")
    for family, kind, proto, _, address in infos:
        sock = socket.socket(family, kind, proto)
        sock.setblocking(False)
        try:
            async with asyncio.timeout(timeout):
                await loop.sock_connect(sock, address)
            return await _shake_hands(
                sock, Initiator(key, hub, hello, enroll=enroll, suite=suite), timeout
            )
        except (OSError, HandshakeError) as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    raise failure


async def _shake_hands(sock: socket.socket, initiator: Initiator, timeout: float) -> Dialled:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, initiator.write_message_1())
    try:
        async with asyncio.timeout(timeout):
            while True:
                data = await loop.sock_recv(sock, MAX_MESSAGE_2)
                if not data:
                    raise HandshakeError("the port closed the connection: no hub does that")
                result = initiator.receive_data(data)
                if result is not None:
                    return Dialled(sock, *result)
    except TimeoutError as error:
        raise HubSilentError(f"no answer within {timeout:g} s") from error
