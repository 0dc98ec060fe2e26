"""Which frames are ours, by the BPF programs, run by the kernel; and what they take."""

from __future__ import annotations

import errno
import ipaddress
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from ssimage._sandstorm import lib

from tests.net import needs_root, run
from tests.unit.test_netmap_filter import BOTH, CASES, OUR4, OUR6, OWN, segment, to4, to6

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "runtime" / "csrc"
CALL, MAP_LOOKUP = 0x85, 1  # linux/bpf.h: BPF_JMP | BPF_CALL, BPF_FUNC_map_lookup_elem
PLACES = 64

Ask = Callable[[list[str]], list[int]]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs, as the extension has them."""
    if not lib.nmio_filter_built():
        pytest.skip("built without AF_XDP")
    folder = tmp_path_factory.mktemp("filter")
    python = "import sys, runtime.ffi_build as b; sys.stdout.buffer.write(b.filter_object())"
    made = subprocess.run([sys.executable, "-c", python], cwd=ROOT, capture_output=True, check=True).stdout
    (folder / "filter.o").write_bytes(made)
    return folder


@pytest.fixture(scope="module")
def ask(objects: Path) -> Ask:
    """Commands for filter_run.c; its answers."""
    program = objects / "filter_run"
    words = ",".join(str(byte) for byte in (objects / "filter.o").read_bytes())
    (objects / "object.c").write_text(
        f"const unsigned char filter_object[] __attribute__((aligned(8))) = {{{words}}};\n"
        "const unsigned int filter_object_bytes = sizeof(filter_object);\n"
    )
    sources = [Path(__file__).with_name("filter_run.c"), objects / "object.c", CSRC / "libnmio" / "region.c"]
    run("gcc", "-O1", "-Wall", "-Wno-unused-function", f"-I{CSRC}", *sources, "-lbpf", "-o", program)

    def asked(lines: list[str]) -> list[int]:
        done = subprocess.run([program], input="\n".join(lines) + "\n", text=True, capture_output=True, check=True)
        return [int(line) for line in done.stdout.split()]

    return asked


def packed(address: str) -> str:
    return ipaddress.ip_address(address).packed.hex()


def frame(packet: object) -> str:
    return f"frame {bytes(packet).hex()}"  # type: ignore[call-overload]


@needs_root
@pytest.mark.parametrize("own_address", [False, True], ids=["shared", "own"])
def test_whose_it_is(ask: Ask, own_address: bool) -> None:
    """As netmap's filter has it, but for UDP to an address of ours alone: the kernel, which does not know the address, drops it as well."""
    start = [f"load {own_address:d}", f"address {packed(OUR4)}", f"address {packed(OUR6)}"]
    answers = ask([*start, *(frame(packet) for packet, _ in CASES.values())])
    assert answers[:3] == [0, 0, 0]
    ours = {name: bool(answer) for name, answer in zip(CASES, answers[3:], strict=True)}
    own = {name for name, (_, whose) in CASES.items() if own_address and whose == OWN} - {"udp4"}
    assert ours == {name: whose == BOTH or name in own for name, (_, whose) in CASES.items()}


@needs_root
def test_addresses_come_and_go(ask: Ask) -> None:
    """Whatever becomes of one, the others stay; there is room for as many as were there before."""
    v4 = [f"192.0.2.{number}" for number in range(1, PLACES + 2)]
    v6 = [f"2001:db8::{number:x}" for number in range(1, PLACES + 2)]
    more = [f"address {packed(address)}" for address in (*v4, *v6)]
    gone = {*v4[::2], *v6[::2]}
    looks = [frame((to4(address) if "." in address else to6(address)) / segment()) for address in (*v4, *v6)]
    forget = [f"forget {packed(address)}" for address in gone]
    answers = ask(["load 0", *more, *looks, *forget, *looks, more[PLACES], *looks])
    added, seen, answers = (
        answers[1 : len(more) + 1],
        answers[len(more) + 1 :][: len(looks)],
        answers[len(more) + 1 :],
    )
    assert added == [0] * PLACES + [-errno.ENOSPC] + [0] * PLACES + [-errno.ENOSPC]
    assert seen == [int(answer == 0) for answer in added]
    after = answers[len(looks) + len(forget) :][: len(looks)]
    assert after == [int(address not in gone) for address in (*v4, *v6)]
    again = answers[-len(looks) :]
    assert again == [int(address not in gone or address == v4[PLACES]) for address in (*v4, *v6)]


@needs_root
def test_no_address_is_nobodys(ask: Ask) -> None:
    """Empty places are zeros."""
    lines = [f"address {packed('192.0.2.9')}", f"forget {packed('192.0.2.9')}"]
    lines += [f"address {packed('2001:db8::9')}", f"forget {packed('2001:db8::9')}", "forget 0a000001"]
    looks = [frame(to4("0.0.0.0") / segment()), frame(to6("::") / segment())]
    assert ask(["load 1", *lines, *looks]) == [0] * 6 + [0, 0]


def test_no_table_of_the_kernels_is_looked_up(objects: Path) -> None:
    """A hash map's costs as much as all the rest."""
    with (objects / "filter.o").open("rb") as file:
        elf = ELFFile(file)
        for name in ("xdp", "tc"):
            code = elf.get_section_by_name(name).data()
            calls = [code[at + 4] for at in range(0, len(code), 8) if code[at] == CALL]
            assert MAP_LOOKUP not in calls, name
