"""The core in memory, for tests: frames in and out as scapy packets, a clock that the test moves.

Nothing here shares code with the core: images are read with pyelftools, frames are made and judged by scapy.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from ssimage._sandstorm import ffi, lib

from tests import warm

SERVER_MAC = "02:00:00:00:00:01"
CLIENT_MAC = "02:00:00:00:00:02"
SERVER_IP = "192.0.2.1"
CLIENT_IP = "192.0.2.2"
SERVER_IP6 = "2001:db8::1"
CLIENT_IP6 = "2001:db8::2"
WALL_S = 784111777  # Sun, 06 Nov 1994 08:49:37 GMT
WALL_TEXT = b"Sun, 06 Nov 1994 08:49:37 GMT"
SECTIONS = (
    *("header", "strings", "hosts", "sites", "buckets", "routes"),
    *("variants", "responses", "patches", "errors", "frames", "slots"),
)


def build(source: Path, image: Path, *options: str) -> Path:
    """Runs `sscc build`, as a user would."""
    done = warm.run("sscc.cli", "build", source, "-o", image, *options)
    assert done.returncode == 0, done.stderr
    return image


class Image:
    """An image in memory, section by section."""

    def __init__(self, data: dict[str, bytes]) -> None:
        self.keep: list[Any] = []
        self.data: dict[str, bytes] = {}
        self.sections = ffi.new("struct image_sections *")
        for name in SECTIONS:
            self.put(name, data[name])
        self.image = ffi.new("struct image *")
        work = ffi.new("uint32_t[]", self.sections.frames_bytes // ffi.sizeof("struct ssi_frame") + 1)
        self.error = lib.image_open(self.image, self.sections, work)

    @classmethod
    def read(cls, path: Path) -> Image:
        """From a file."""
        with path.open("rb") as file:
            elf = ELFFile(file)
            data = {name: elf.get_section_by_name(f".sandstorm.{name}").data() for name in SECTIONS}
        return cls(data)

    def put(self, name: str, data: bytes) -> None:
        """Sets a section's contents, 8-byte aligned."""
        buffer = ffi.new("uint64_t[]", len(data) // 8 + 1)
        ffi.memmove(buffer, data, len(data))
        self.keep.append(buffer)
        self.data[name] = data
        setattr(self.sections, name, ffi.cast("uint8_t *", buffer))
        setattr(self.sections, f"{name}_bytes", len(data))

    @property
    def header(self) -> Any:
        """struct ssi_header"""
        return self.image.header


def new_generation(image: Image, *, has_arena: bool, app: Any = None) -> tuple[Any, Any]:
    """A struct generation * of an image that is to be served by the web, and its memory, which must be kept."""
    app = app or ffi.addressof(lib.web_app)
    size = lib.generation_bytes(app, image.image, has_arena)
    memory = ffi.new("uint8_t[]", size + 64)
    aligned = ffi.cast("uint8_t *", (int(ffi.cast("uintptr_t", memory)) + 63) & ~63)
    return lib.generation_init(aligned, app, image.image, has_arena), memory


def view_of(stack: Any) -> Any:
    """struct stack_view * of a stack that has just been laid out."""
    view = ffi.new("struct stack_view *")
    lib.stack_view(stack, view)
    return view


class Host:
    """One stack with its region and TX queue. Frames stay in flight until `complete`, unless `prompt`.

    arena_slots: of an arena that is a cache; else it holds the whole image.
    """

    def __init__(
        self,
        image: Image,
        *,
        gather_max: int = 1,
        ring: int = 64,
        buffers: int = 256,
        mtu: int = 1500,
        own_address: bool = True,
        max_connections: int = 64,
        prompt: bool = True,
        start_ns: int = 1_000_000_000_000,
        config: dict[str, Any] | None = None,
        arena_slots: int = 0,
    ) -> None:
        assert image.error == 0, image.error
        header = image.header
        self.image, self.prompt, self.ring = image, prompt, ring
        self.now_ns, self.wall_s = start_ns, WALL_S
        slots = arena_slots or header.slot_count + ring
        chunks = buffers + slots
        self.memory = ffi.new("uint8_t[]", chunks * header.slot_bytes)
        self.free_buffers = ffi.new("uint32_t[]", list(range(buffers)))
        self.in_flight = ffi.new("uint8_t[]", chunks)
        region = {
            "base": self.memory,
            "chunk_bytes": header.slot_bytes,
            "slot_count": slots,
            "resident_count": 0 if arena_slots else header.slot_count,
            "first_slot": buffers,
            "buffer_count": buffers,
            "chunk_count": chunks,
            "free_count": buffers,
            "free_buffers": self.free_buffers,
            "in_flight": self.in_flight,
        }
        self.region = ffi.new("struct nmio_region *", region)
        if not arena_slots:
            ffi.memmove(self.memory + buffers * header.slot_bytes, image.data["slots"], len(image.data["slots"]))
        self.desc = ffi.new("struct nmio_tx_desc[]", ring)
        self.piece = ffi.new("struct nmio_piece[]", ring * lib.NMIO_PIECES_MAX)
        tx = {
            "desc": self.desc,
            "piece": self.piece,
            "capacity": ring,
            "piece_capacity": ring * lib.NMIO_PIECES_MAX,
            "space": ring,
        }
        self.tx = ffi.new("struct nmio_tx *", tx)
        self.flying: list[tuple[list[int], bytes, list[tuple[Any, int]]]] = []
        self.swapped: list[Any] = []
        self.stack_config = self._config(own_address, mtu, gather_max, max_connections, config or {})
        size = lib.stack_memory_bytes(self.stack_config, image.image, self.region)
        assert size > 0
        self.stack_memory = ffi.new("uint8_t[]", size + 64)
        aligned = ffi.cast("uint8_t *", (int(ffi.cast("uintptr_t", self.stack_memory)) + 63) & ~63)
        self.stack = lib.stack_init(aligned, size, self.stack_config, image.image, self.region, self.tx)
        assert self.stack != ffi.NULL
        self.view = view_of(self.stack)
        self.first = self.advance(0)  # what it sent unasked

    @staticmethod
    def _config(own_address: bool, mtu: int, gather_max: int, max_connections: int, more: dict[str, Any]) -> Any:
        v4 = bytes(int(part) for part in SERVER_IP.split("."))
        v6 = bytes.fromhex("20010db8" + "00" * 11 + "01")
        values = {
            "app": ffi.addressof(lib.web_app),
            "mac": bytes.fromhex(SERVER_MAC.replace(":", "")),
            "tcp_port": 80,
            "own_address": own_address,
            "reassemble": own_address,
            "address_count": 2,
            "mtu_bytes": mtu,
            "gather_max": gather_max,
            "max_connections": max_connections,
            "max_incomplete_requests": max_connections,
            "keep_alive_ms": 10_000,
            "request_ms": 5_000,
            "send_ms": 10_000,
            "secret": bytes(range(16)),
        }
        config = ffi.new("struct stack_config *")
        for name, value in (values | more).items():
            layer = next((part for part in (config.eth, config.tcpip) if hasattr(part, name)), config)
            setattr(layer, name, value)
        config.eth.addresses[0].family = lib.IP_FAMILY_V4
        config.eth.addresses[0].prefix_bits = 24
        ffi.memmove(config.eth.addresses[0].bytes, v4, 4)
        config.eth.addresses[1].family = lib.IP_FAMILY_V6
        config.eth.addresses[1].prefix_bits = 64
        ffi.memmove(config.eth.addresses[1].bytes, v6, 16)
        return config

    def advance(self, milliseconds: float) -> list[Packet]:
        """Moves the clock, runs what is due, and returns what was sent."""
        self.now_ns += int(milliseconds * 1_000_000)
        wall_s = WALL_S + (self.now_ns - 1_000_000_000_000) // 1_000_000_000
        lib.stack_clock(self.stack, self.now_ns, wall_s)
        lib.stack_output(self.stack)
        return self.sent()

    def send(self, *packets: Packet | bytes, checksum_ok: bool = False, may_be_partial: bool = False) -> list[Packet]:
        """Gives frames to the stack as one batch and returns what it sent in answer."""
        batch = ffi.new("struct nmio_rx[]", len(packets))
        keep = []
        for rx, packet in zip(batch, packets, strict=True):
            data = bytes(packet)
            keep.append(ffi.new("uint8_t[]", data))
            rx.data = keep[-1]
            rx.len_bytes = len(data)
            rx.flags = lib.NMIO_RX_CHECKSUM_OK if checksum_ok else 0
            rx.flags |= lib.NMIO_RX_CHECKSUM_MAY_BE_PARTIAL if may_be_partial else 0
        lib.stack_input(self.stack, batch, len(packets))
        lib.stack_output(self.stack)
        return self.sent()

    def sent(self) -> list[Packet]:
        """Takes what is in tx, a superframe as one packet, and completes it if prompt."""
        packets = []
        while self.tx.count > 0:
            for desc in self.desc[0 : self.tx.count]:
                packets.append(self._take(desc))
            self.tx.count = self.tx.piece_count = 0
            if self.prompt:
                self.complete()
            self.tx.space = self.ring - len(self.flying)
            lib.stack_output(self.stack)
        return packets

    def _take(self, desc: Any) -> Packet:
        places = [(desc.head, desc.head_bytes)]
        chunks = [desc.chunk]
        for piece in self.piece[desc.first_piece : desc.first_piece + desc.piece_count]:
            places.append((piece.data, piece.len_bytes))
            if piece.chunk != lib.NMIO_NONE:
                chunks.append(piece.chunk)
        data = b"".join(bytes(ffi.buffer(at, length)) for at, length in places)
        self.flying.append((chunks, data, places))
        return Ether(data)

    def complete(self, count: int | None = None) -> None:
        """The oldest frames have been sent. What was enqueued must still be there, unchanged."""
        for _ in range(len(self.flying) if count is None else count):
            chunks, data, places = self.flying.pop(0)
            now = b"".join(bytes(ffi.buffer(at, length)) for at, length in places)
            assert now == data, "a frame was changed in flight"
            for chunk in chunks:
                assert self.in_flight[chunk] != lib.NMIO_FREE
                self._release(chunk)
        self.tx.space = self.ring - len(self.flying) - self.tx.count

    def _release(self, chunk: int) -> None:
        is_buffer = self.in_flight[chunk] == lib.NMIO_BUFFER_IN_FLIGHT
        self.in_flight[chunk] = lib.NMIO_FREE
        if is_buffer:
            self.free_buffers[self.region.free_count] = chunk
            self.region.free_count += 1

    def swap(self, image: Image) -> Any:
        """From now on another image is served; its generation, which lives as long as the host."""
        assert image.error == 0, image.error
        generation, memory = new_generation(image, has_arena=True, app=self.stack_config.app)
        self.swapped.append((generation, memory, image))
        lib.stack_swap(self.stack, generation)
        return generation

    def counters(self) -> dict[str, int]:
        """Every counter that is not zero."""
        names = (
            ffi.string(lib.stack_counter_name(self.view, i)).decode()
            for i in range(lib.stack_counter_count(self.view))
        )
        values = (lib.stack_counter(self.view, i) for i in range(lib.stack_counter_count(self.view)))
        return {name: value for name, value in zip(names, values, strict=True) if value}


def checked(packet: Packet) -> Packet:
    """Asserts that scapy, making the packet again, comes to the same checksums and lengths."""
    again = packet.copy()
    for layer in (IP, IPv6, TCP):
        if layer in again:
            for field in ("chksum", "len", "plen"):
                if field in again[layer].fields:
                    again[layer].delfieldval(field)  # which also forgets the bytes it was read from
    assert bytes(Ether(bytes(again))) == bytes(packet)
    return packet


class Client:
    """A TCP client's side of one connection, by hand: it says only what it is told to."""

    def __init__(
        self,
        host: Host,
        *,
        port: int = 40000,
        v6: bool = False,
        options: Iterable[Any] = (("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1000, 0)), ("WScale", 7)),
        window: int = 64240,
        isn: int = 1_000_000,
    ) -> None:
        self.host = host
        self.v6 = v6
        self.port = port
        self.window = window
        self.seq = isn
        self.ack = 0
        self.options = list(options)
        self.received = b""
        self.fin = False
        self.ts_value = 1000
        self.ts_echo = 0
        self.timestamps = any(name == "Timestamp" for name, _ in self.options)

    def packet(self, flags: str, data: bytes = b"", **fields: Any) -> Packet:
        """A segment with the connection's addresses, and its numbers unless given."""
        if flags != "S":
            options = [("NOP", None), ("NOP", None), ("Timestamp", (self.ts_value, self.ts_echo))]
            fields.setdefault("options", options if self.timestamps else [])
        defaults = {
            "seq": self.seq % 2**32,
            "ack": self.ack % 2**32 if "A" in flags else 0,
            "window": self.window,
        }
        tcp = TCP(sport=self.port, dport=80, flags=flags, **(defaults | fields))
        ip = IPv6(src=CLIENT_IP6, dst=SERVER_IP6) if self.v6 else IP(src=CLIENT_IP, dst=SERVER_IP)
        frame = Ether(src=CLIENT_MAC, dst=SERVER_MAC) / ip / tcp
        return frame / Raw(data) if data else frame

    def note(self, packets: list[Packet], *, check: bool = True) -> list[Packet]:
        """Takes in what the server sent: in order data, FIN and timestamps."""
        for packet in packets:
            if check:
                checked(packet)
            tcp = packet[TCP]
            payload = self.payload(packet)
            for name, value in tcp.options:
                if name == "Timestamp":
                    self.ts_echo = value[0]
            if tcp.seq == self.ack % 2**32:
                self.received += payload
                self.ack += len(payload)
                if "F" in tcp.flags and not self.fin:
                    self.fin = True
                    self.ack += 1
        return packets

    @staticmethod
    def payload(packet: Packet) -> bytes:
        """A segment's data, without Ethernet's padding."""
        if IP in packet:
            length = packet[IP].len - packet[IP].ihl * 4 - packet[TCP].dataofs * 4
        else:
            length = packet[IPv6].plen - packet[TCP].dataofs * 4
        return bytes(packet[TCP].payload)[:length]

    def connect(self, *, ack: bool = True) -> Packet:
        """The handshake; returns the SYN-ACK."""
        (syn_ack,) = self.host.send(self.packet("S", options=self.options))
        checked(syn_ack)
        assert syn_ack[TCP].flags == "SA"
        assert syn_ack[TCP].ack == (self.seq + 1) % 2**32
        self.seq += 1
        self.ack = syn_ack[TCP].seq + 1
        for name, value in syn_ack[TCP].options:
            if name == "Timestamp":
                self.ts_echo = value[0]
        if ack:
            assert self.host.send(self.packet("A")) == []
        return syn_ack

    def request(self, data: bytes, flags: str = "PA", *, check: bool = True) -> list[Packet]:
        """Sends data in one segment; takes in what comes at once."""
        packet = self.packet(flags, data)
        self.seq += len(data) + ("F" in flags)
        return self.note(self.host.send(packet), check=check)

    def drain(self, *, check: bool = True) -> bytes:
        """Acknowledges until nothing more comes; returns all that was received."""
        while True:
            before = self.ack
            self.note(self.host.send(self.packet("A")), check=check)
            if self.ack == before:
                return self.received
