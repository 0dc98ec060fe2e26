"""ssrun without a network: the replay port, and images that can't be served."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.l2 import ARP, Ether
from scapy.utils import rdpcap, wrpcap
from ssrun.addresses import parse_address
from ssrun.ports import kernel

from tests import warm
from tests.host import CLIENT_IP, CLIENT_MAC, SERVER_IP, build


def ssrun(*words: str | Path, status: int = 0, module: str = "ssrun.cli") -> subprocess.CompletedProcess[str]:
    done = warm.run(module, *words)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text("hello")
    return build(folder, tmp_path_factory.mktemp("image") / "x.img")


def test_a_capture_is_replayed(image: Path, tmp_path: Path) -> None:
    ether = Ether(src=CLIENT_MAC, dst=kernel.stable_mac("pcap").hex(":"))
    ask = ether / ARP(psrc=CLIENT_IP, hwsrc=CLIENT_MAC, pdst=SERVER_IP)
    wrpcap(
        str(tmp_path / "in.pcap"),
        [
            ask,
            ether / IP(src=CLIENT_IP, dst=SERVER_IP) / TCP(sport=9, dport=80, flags="S"),
            ether / IP(src=CLIENT_IP, dst=SERVER_IP) / ICMP(),
        ],
    )
    done = ssrun(image, "--iface", f"pcap:{tmp_path}/in.pcap:{tmp_path}/out.pcap", "--address", SERVER_IP, "--json")
    first, last = (json.loads(line) for line in done.stdout.splitlines())
    assert first["backend"] == "pcap"
    assert last["counters"]["arp_tx_replies"] == 1
    arp, syn_ack, echo = rdpcap(str(tmp_path / "out.pcap"))
    assert arp[ARP].psrc == SERVER_IP
    assert syn_ack[TCP].flags == "SA"
    assert echo[ICMP].type == 0


def test_what_is_no_capture_is_told(image: Path, tmp_path: Path) -> None:
    (tmp_path / "in.pcap").write_text("no capture")
    done = ssrun(image, "--iface", f"pcap:{tmp_path}/in.pcap:{tmp_path}/out.pcap", "--address", SERVER_IP, status=1)
    assert "classic pcap" in done.stderr


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "truncated", "changed", "folder"])
def test_images_that_cant_be_served(image: Path, tmp_path: Path, kind: str) -> None:
    data = image.read_bytes()
    bad = tmp_path / "bad.img"
    if kind == "folder":
        bad.mkdir()
    elif kind != "missing":
        contents = {"empty": b"", "text": b"hello\n" * 100, "truncated": data[:-500]}
        changed = data[:4300] + bytes([data[4300] ^ 1]) + data[4301:]
        bad.write_bytes(contents.get(kind, changed))
    done = ssrun(bad, "--iface", "tap:never0", status=1)
    assert done.stderr.startswith(f"ssrun: {bad}: ")
    assert done.stderr.count("\n") == 1
    assert not Path("/sys/class/net/never0").exists()


def test_without_root_it_says_so(image: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("runs as root")
    assert "root" in ssrun(image, "--iface", "tap:never0", status=1).stderr


def test_help_and_version() -> None:
    assert "--iface" in ssrun("--help").stdout
    assert ssrun("--version").stdout.startswith("python -m ssrun.cli, version ")


@pytest.fixture
def replay(tmp_path: Path) -> list[str]:
    """Options that serve a capture without a packet: that needs no rights, and ends at once."""
    wrpcap(str(tmp_path / "in.pcap"), [Ether(src=CLIENT_MAC, dst=CLIENT_MAC) / IP() / ICMP()])
    return ["--iface", f"pcap:{tmp_path}/in.pcap:{tmp_path}/out.pcap", "--address", SERVER_IP]


@pytest.mark.parametrize(
    ("name", "contents", "what", "build_it"),
    [
        ("site.yaml", "roots: [public]\n", "a manifest", "sscc build site.yaml -o site.img"),
        ("my site.yml", "roots: [public]\n", "a manifest", "sscc build 'my site.yml' -o 'my site.img'"),
        ("public", None, "a folder", "sscc build public -o public.img"),
        ("index.html", "<!doctype html>\n", "a page", "sscc build . -o site.img"),
    ],
)
def test_what_an_image_is_made_of_is_told_from_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, contents: str | None, what: str, build_it: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if contents is None:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_text(contents)
    done = ssrun(name, "--iface", "tap:never0", status=1)
    assert done.stderr == f"ssrun: {name}: this is {what}, not an image; build it first: {build_it}\n"


def test_sskv_tells_an_image(image: Path) -> None:
    done = ssrun(image, "--iface", "tap:never0", status=1, module="ssrun.kv")
    assert done.stderr == f"sskv: {image}: this is a packet image; serve it with ssrun\n"


BAD_ADDRESSES = [
    ("224.0.0.1/24", "a multicast address"),
    ("ff02::1/64", "a multicast address"),
    ("127.0.0.1/8", "a loopback address"),
    ("::1/128", "a loopback address"),
    ("0.0.0.0/24", "no host's address"),
    ("::/64", "no host's address"),
    ("0.1.2.3/24", "no host's address"),
    ("255.255.255.255/24", "no host's address"),
    ("::ffff:192.0.2.1/96", "an IPv4 address in IPv6's clothes; write 192.0.2.1"),
    ("192.0.2.0/24", "the network's own address; write one of 192.0.2.1 to 192.0.2.254"),
    ("192.0.2.255/24", "the network's broadcast address; write one of 192.0.2.1 to 192.0.2.254"),
    ("2001:db8::/64", "the anycast address of the network's routers"),
]


@pytest.mark.parametrize("module", ["ssrun.cli", "ssrun.kv"])
@pytest.mark.parametrize(("address", "why"), BAD_ADDRESSES)
@pytest.mark.parametrize("option", ["--address", "--host-address"])
def test_an_address_that_no_host_can_have_is_refused(
    image: Path, module: str, address: str, why: str, option: str
) -> None:
    done = ssrun(image, "--iface", "tap:never0", option, address, status=2, module=module)
    assert f"{address} is {why}" in " ".join(done.stderr.split())


@pytest.mark.parametrize("address", ["192.0.2.0/31", "192.0.2.255/32", "2001:db8::/127", "2001:db8::/128"])
def test_small_networks_have_no_address_of_their_own(address: str) -> None:
    assert str(parse_address(address)) == address


@pytest.mark.parametrize("twice", [["192.0.2.9/24", "192.0.2.9/25"], ["2001:db8::9", "2001:db8:0::9/64"]])
def test_an_address_given_twice_is_refused(image: Path, twice: list[str]) -> None:
    for option in ("--address", "--host-address"):
        done = ssrun(image, "--iface", "tap:never0", option, twice[0], option, twice[1], status=2)
        assert "is given twice" in done.stderr


@pytest.mark.parametrize("option", ["--keep-alive", "--request-timeout", "--send-timeout"])
@pytest.mark.parametrize("value", ["nan", "-nan", "inf", "0", "x"])
def test_no_time_is_told(image: Path, option: str, value: str) -> None:
    assert option in ssrun(image, "--iface", "tap:never0", f"{option}={value}", status=2).stderr


@pytest.mark.parametrize("option", ["--arena", "--pcapng-buffer"])
@pytest.mark.parametrize("value", ["9" * 400, "x", "-1", "1e3"])
def test_no_size_is_told(image: Path, option: str, value: str) -> None:
    assert option in ssrun(image, "--iface", "tap:never0", f"{option}={value}", status=2).stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-", ">/dev/full", "| true"])
def test_output_that_nobody_takes_is_no_matter(image: Path, tmp_path: Path, replay: list[str], closed: str) -> None:
    capture = tmp_path / "seen.pcapng"
    words = [sys.executable, "-m", "ssrun.cli", str(image), *replay, "--pcapng", str(capture)]
    script = f'set -o pipefail; "$@" {closed}'
    done = subprocess.run(
        ["bash", "-c", script, "_", *words], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert capture.read_bytes()[:4] == b"\x0a\x0d\x0d\x0a"  # and nothing of what was said
    assert b"serving" not in capture.read_bytes()


NAMES = {
    b"caf\xc3\xa9.img": "café.img",
    b"\xff.img": r"\xff.img",
    b"a\x1b[31m\nssrun: b.img": r"a\x1b[31m\nssrun: b.img",
}


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_whatever_is_in_it(
    image: Path, tmp_path: Path, replay: list[str], name: bytes, encoding: str
) -> None:
    path = os.path.join(os.fsencode(tmp_path), name)
    shown = NAMES[name] if encoding != "ascii" else NAMES[name].replace("é", r"\xe9")
    command = [sys.executable, "-m", "ssrun.cli", path, *replay]
    env = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, check=False, timeout=60, env=env)
    assert done.returncode == 1
    assert done.stderr == f"ssrun: {tmp_path}/{shown}: can't be read: No such file or directory\n".encode(encoding)
    with open(path, "wb") as file:
        file.write(image.read_bytes())
    done = subprocess.run(command, capture_output=True, check=False, timeout=60, env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(f"{tmp_path}/{shown}: 2 routes".encode(encoding))


@pytest.mark.parametrize("iface", [b"\xff", b"tap:\xff", b"netmap:\xff", b"", b"tap:", b"a/b", b"a b", b"x\x1b[31m"])
def test_what_is_no_interface_is_told(image: Path, iface: bytes) -> None:
    done = warm.run("ssrun.cli", image, "--iface", iface)
    assert done.returncode == 1
    assert done.stderr.startswith("ssrun: ")
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr


def test_a_wrong_option_can_t_speak_to_the_terminal(image: Path) -> None:
    done = ssrun(image, "--iface\x1b[31m", "x", status=2)
    assert "\x1b" not in done.stderr
    assert r"--iface\x1b[31m" in done.stderr
