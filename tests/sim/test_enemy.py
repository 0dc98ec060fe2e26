"""What seeds would seldom come by: floods that would use up what the stack allows itself to answer, and the end of TIME-WAIT."""

from __future__ import annotations

from tests.host import WALL_S
from tests.sim.client import ACK, FIN, PSH, RST, SYN, Segment, Side
from tests.sim.enemy import HALF, segment
from tests.sim.world import RawHost, image, lib, request_of

FIRST_ENEMY_PORT = 20_000
VICTIM = 45_000
ENEMIES = 600  # each may provoke two challenge ACKs a second: more than 1,000
STRAYS = 3_000
ENEMY_ADDRESS = bytes((192, 0, 2, 77))


class Line:
    """A stack, and a clock."""

    def __init__(self) -> None:
        self.host = RawHost(image(), max_connections=1024, config={"keep_alive_ms": 300_000, "request_ms": 300_000})
        self.start_ns = self.host.now_ns
        self.at(0.0)

    def at(self, now_ms: float) -> None:
        self.host.now_ns = self.start_ns + int(now_ms * 1e6)
        lib.stack_clock(self.host.stack, self.host.now_ns, WALL_S + int(now_ms / 1000))
        self.host.output()

    def say(self, side: Side, seq: int, ack: int, flags: int, payload: bytes = b"") -> list[Segment]:
        return [side.parse(f) for f in self.host.give(segment(side, seq, ack, flags, 65_535, b"", payload))]

    def connect(self, side: Side, iss: int) -> int:
        """The handshake; what the server sends next."""
        (answer,) = self.say(side, iss, 0, SYN)
        assert answer.flags == SYN | ACK
        assert self.say(side, iss + 1, answer.seq + 1, ACK) == []
        return answer.seq + 1


def test_challenges_of_others_do_not_silence_one() -> None:
    """CVE-2016-5696's kind: a client that has booted needs the ACK to its SYN, whatever others have provoked."""
    line = Line()
    sides = [Side(False, FIRST_ENEMY_PORT + i) for i in range(ENEMIES)]
    for side in sides:
        line.connect(side, 1000)
    victim = Side(False, VICTIM)
    line.connect(victim, 5000)
    provoked = 0
    for half in range(2):
        line.at(1000.0 + 500 * half)
        provoked += sum(len(line.say(side, 1001 + 5, 0, SYN)) for side in sides)
    assert provoked > ENEMIES
    line.at(1750.0)
    (answer,) = line.say(victim, 77_777, 0, SYN)
    assert answer.flags == ACK
    assert answer.ack == 5001
    assert line.say(victim, answer.ack, 0, RST) == []
    (answer,) = line.say(victim, 77_777, 0, SYN)
    assert answer.flags == SYN | ACK


def test_strays_of_one_address_do_not_silence_resets_to_another() -> None:
    """Who comes back to a connection that is gone must learn of it, however many strays another sends."""
    line = Line()
    line.at(2000.0)
    for i in range(STRAYS):
        line.say(Side(False, 1024 + i, client=ENEMY_ADDRESS), i, i, ACK)
    (answer,) = line.say(Side(False, VICTIM), 5001, 0x40000000, ACK | PSH, request_of("/1"))
    assert answer.flags == RST
    assert answer.seq == 0x40000000


def test_a_blind_syn_does_not_end_time_wait() -> None:
    """The client's FIN comes again, as our last ACK was lost: that ACK is still what answers it."""
    line, victim = Line(), Side(False, VICTIM)
    ack = line.connect(victim, 5000)
    request = request_of("/1", close=True)
    answers = line.say(victim, 5001, ack, ACK | PSH, request)
    assert answers[-1].flags & FIN
    seq = 5001 + len(request)
    end = answers[-1].seq + len(answers[-1].payload) + 1
    (last,) = line.say(victim, seq, end, ACK | FIN)
    line.at(100.0)
    for iss in (10, 10 + HALF):
        line.say(victim, iss, 0, SYN)
    line.at(1000.0)
    (again,) = line.say(victim, seq, end, ACK | FIN)
    assert (again.flags, again.seq, again.ack) == (last.flags, last.seq, last.ack) == (ACK, end, seq + 1)


def test_the_connection_before_does_not_come_back() -> None:
    """A port is used twice within a minute. The first connection's cookie is good still, but its segments are late."""
    line, client = Line(), Side(False, VICTIM)
    ack = line.connect(client, 1000)
    request = request_of("/1", close=True)
    assert line.say(client, 1001, ack, RST) == []
    line.at(1000.0)
    second = line.connect(client, 500_000)
    end = line.say(client, 500_001, second, ACK | PSH, request)[-1]
    assert end.flags & FIN
    line.say(client, 500_001 + len(request), end.seq + len(end.payload) + 1, ACK | FIN)
    line.at(2000.0)
    assert all(not answer.payload for answer in line.say(client, 1001, ack, ACK | PSH, request))
    assert lib.stack_connections(line.host.stack) == 0
