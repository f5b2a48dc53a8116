"""Packets of one TCP port on loopback, as a wiretap sees them (Linux, root)."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
from typing import NamedTuple

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10

_SO_ATTACH_FILTER = 26
_SO_TIMESTAMPNS = 35
_ETH_P_IP = 0x0800
_PACKET_OUTGOING = 4
"""packet(7): on loopback each packet is seen twice, going out and coming in."""


class Packet(NamedTuple):
    """What the header says; `time` is the kernel's, in seconds."""

    time: float
    source: int
    destination: int
    flags: int
    window: int
    size: int


def _filter(port: int) -> list[tuple[int, int, int, int]]:
    """Classic BPF for IPv4 and TCP and (source or destination port); see bpf(4)."""
    return [
        (0x28, 0, 0, 12),  # ldh [12]: EtherType
        (0x15, 0, 8, _ETH_P_IP),
        (0x30, 0, 0, 23),  # ldb [23]: protocol
        (0x15, 0, 6, socket.IPPROTO_TCP),
        (0xB1, 0, 0, 14),  # ldxb 4*([14]&0xf): length of the IP header
        (0x48, 0, 0, 14),  # ldh [x+14]: source port
        (0x15, 2, 0, port),
        (0x48, 0, 0, 16),  # ldh [x+16]: destination port
        (0x15, 0, 1, port),
        (0x06, 0, 0, 96),
        (0x06, 0, 0, 0),
    ]


class Capture:
    """Collects the packets of `port` while it is entered; then `packets` has them."""

    def __init__(self, port: int) -> None:
        self.packets: list[Packet] = []
        self._stop, self._stopped = os.pipe()
        self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_IP))
        code = b"".join(struct.pack("HBBI", *step) for step in _filter(port))
        program = ctypes.create_string_buffer(code, len(code))
        fprog = struct.pack("HL", len(_filter(port)), ctypes.addressof(program))
        self._sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
        self._sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 25)
        self._sock.bind(("lo", _ETH_P_IP))
        self._thread = threading.Thread(target=self._collect)

    def __enter__(self) -> Capture:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._stopped)
        self._thread.join()
        os.close(self._stop)
        self._sock.close()

    def _collect(self) -> None:
        import select

        while True:
            ready, _, _ = select.select([self._sock, self._stop], [], [])
            if self._sock not in ready:
                return  # only once everything has been read
            data, ancillary, _, address = self._sock.recvmsg(128, 128)
            if address[2] != _PACKET_OUTGOING:
                self.packets.append(_parse(data, ancillary))


def _parse(data: bytes, ancillary: list[tuple[int, int, bytes]]) -> Packet:
    seconds, nanoseconds = struct.unpack("ll", ancillary[0][2])
    header = 14 + (data[14] & 0xF) * 4
    source, destination, _, _, offset, flags, window = struct.unpack_from("!HHIIBBH", data, header)
    total = int.from_bytes(data[16:18], "big")
    size = total - (header - 14) - (offset >> 4) * 4
    return Packet(seconds + nanoseconds / 1e9, source, destination, flags, window, size)
