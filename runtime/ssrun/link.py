"""The interface while we serve on it: watched through netlink, and what changes followed where that can be done."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from ssimage._sandstorm import ffi, lib

from .addresses import Interface4or6, put_address
from .errors import InterfaceGoneError, SsrunError
from .ports import kernel
from .ports.base import Opened
from .ports.kernel import Interface
from .server import Server

# linux/rtnetlink.h
GROUPS = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
RECEIVE_BYTES = 65536
AWAY_S = 3.0  # an address that comes back within this has not been away: interfaces are set up anew like that
HAND_OVER_S = 5.0
HAND_OVER_POLL_S = 0.001
WAIT_POLL_S = 0.25
CARRIER_S = 10.0  # two ends of a copper link take three or four to agree
CARRIER_POLL_S = 0.1

ReportChange = Callable[..., None]  # Output.link
# How often one went, lost its carrier or was set down; and all else that was told.
LINK_COUNTERS = ("interface_gone", "interface_down", "interface_changes")


def counter_of(fields: dict[str, Any]) -> str | None:
    """Which of LINK_COUNTERS counts what is told; None: none does. fields: as they are told."""
    if fields["change"] == "waiting":
        return None
    if fields["change"] == "gone":
        return "interface_gone"
    return "interface_down" if fields.get("state", "up") != "up" else "interface_changes"


class Doorbell:
    """Rings when any interface or address of this network namespace has changed; what, is looked up then."""

    def __init__(self) -> None:
        """Rings from now on."""
        self._sock = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        self._sock.bind((0, GROUPS))

    def fileno(self) -> int:
        """Gives the descriptor, for Events.watch."""
        return self._sock.fileno()

    def silence(self) -> None:
        """What has rung so far is known. That some of it was lost (ENOBUFS) does not matter."""
        while True:
            try:
                self._sock.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise

    def close(self) -> None:
        """Closes the socket."""
        self._sock.close()


class Places:
    """Which address has which place in the workers' stacks."""

    def __init__(self, addresses: Iterable[Interface4or6]) -> None:
        """Gives the addresses their places in this order."""
        self.held: list[Interface4or6 | None] = list(addresses)

    def ips(self) -> set[Any]:
        """The addresses that have one."""
        return {address.ip for address in self.held if address is not None}

    def add(self, address: Interface4or6) -> bool:
        """Gives an address a place. False: there is none left."""
        if len(self.held) < lib.ETH_ADDRESSES_MAX:
            self.held.append(address)
        elif None in self.held:
            self.held[self.held.index(None)] = address
        else:
            return False
        return True

    def remove(self, ip: Any) -> None:
        """Frees a place, to be taken only when no new one is left: late segments had better meet nobody there."""
        self.held = [None if address is not None and address.ip == ip else address for address in self.held]


class Follower:
    """Makes what serves follow its interface."""

    def __init__(
        self,
        interface: Interface,
        opened: Opened,
        server: Server,
        families: set[int],
        image_mtu: int,
        report: ReportChange,
    ) -> None:
        """interface: as it was when the ports were opened on it. image_mtu: what the frames are made for."""
        self.opened = opened
        self.server = server
        self.families = families
        self.image_mtu = image_mtu
        self.report = report
        self.known = interface
        self.places = Places(opened.addresses)
        self.away_since: dict[Any, float] = {}
        self.refused: set[Any] = set()  # addresses of which it was reported that they are not served
        self.mtu_bytes = opened.mtu_bytes
        self.mac = opened.mac
        self.has_its_mac = opened.mac == interface.mac  # on a TAP ours is another
        self.not_handed_over = False
        self.must_announce = False  # when it is
        self.is_elsewhere = False  # in another network namespace, and served on
        self.news: list[Callable[[], None]] = []  # to be reported when the workers know
        self.closed = False
        self.doorbell = Doorbell()

    @property
    def runs(self) -> bool:
        """Is it up, with a carrier, as far as that can be seen?"""
        return self.known.running or self.is_elsewhere

    def why_not_opened_again(self, iface: str) -> str:
        """Why another build of us, started with this --iface, could not open it now; empty: it could."""
        name = self.opened.interface
        if self.is_elsewhere:
            return f"{name} is in another network namespace; bring it back first"
        if self.opened.backend != "tap" and name != iface:
            return f"{iface} is called {name} now; call it {iface} again first, or start ssrun again"
        if not self.known.up:
            return f"{name} is down; `ip link set {name} up` first"
        if not self.places.ips():
            return f"{name} has no address to serve on; `ip addr add` one first"
        return ""

    def rung(self) -> None:
        """Something has changed, perhaps of our interface. Raises InterfaceGoneError."""
        self.doorbell.silence()
        self.look()

    def tick(self) -> None:
        """What waits for its time; to be called once a second. Raises InterfaceGoneError."""
        if self.away_since or self.not_handed_over:
            self.look()

    def look(self) -> None:
        """Follows what is other than it was. Raises InterfaceGoneError."""
        if self.closed:  # asked for while we served, and served no more
            return
        now = self._look_up()
        if now is None:
            return
        before, self.known = self.known, now
        if now.name != before.name:
            self.opened.interface = now.name
            self.report(f"{before.name} is called {now.name} now", change="name", name=now.name)
        link_up = self._state(before, now)
        mac_changed = self._mac(now)
        changed = self._mtu(before, now) or mac_changed
        if self.opened.own_address:
            self._kernel_s_too(now)
        else:
            changed |= self._addresses(now)
        self.must_announce |= link_up or mac_changed
        if changed or link_up or self.not_handed_over:
            self.not_handed_over = not self._hand_over(announce=self.must_announce)
        if not self.not_handed_over:
            self.must_announce = False
            for report in self.news:
                report()
            self.news.clear()

    def _look_up(self) -> Interface | None:
        """The interface as it is now; None: it can't be seen, and is served on. Raises InterfaceGoneError."""
        now = kernel.look_up_index(self.known.index)
        if not all(kernel.is_attached(self.opened.backend, port.fd) for port in self.opened.ports):
            raise InterfaceGoneError(self.opened.interface)
        if self.opened.backend == "tap":
            now = self._wherever_it_is(now)
        elif now is None:
            raise InterfaceGoneError(self.opened.interface)
        return now

    def _wherever_it_is(self, now: Interface | None) -> Interface | None:
        """A TAP is ours in whatever network namespace. None: in another."""
        if now is not None and self.is_elsewhere and now.mac != self.known.mac:
            now = None  # which has its number here
        if (now is None) != self.is_elsewhere:
            self.is_elsewhere = now is None
            where = "another network namespace: it is served on, and not watched" if now is None else "this one again"
            self.report(f"{self.opened.interface} is in {where}", change="moved", away=now is None)
        return now

    def _state(self, before: Interface, now: Interface) -> bool:
        """Tells of a link that went or came; True: it came."""
        if now.running == before.running:
            return False
        if now.running:
            self.report(f"{now.name} is up again; serving goes on", change="state", state="up")
            self.away_since.clear()
            return True
        what = "has no carrier" if now.up else f"is down (`ip link set {now.name} up`)"
        self.report(f"{now.name} {what}; waiting for it", change="state", state="no-carrier" if now.up else "down")
        return False

    def _mac(self, now: Interface) -> bool:
        if not self.has_its_mac or now.mac == self.mac or len(now.mac) != len(self.mac):
            return False
        self.report(f"{now.name} has the MAC {now.mac.hex(':')} now", change="mac", mac=now.mac.hex(":"))
        self.mac = now.mac
        return True

    def _mtu(self, before: Interface, now: Interface) -> bool:
        if now.mtu_bytes == before.mtu_bytes:
            return False
        usable = min(now.mtu_bytes, self.image_mtu)
        fields = {"change": "mtu", "mtu_bytes": now.mtu_bytes}
        if usable < lib.TCPIP_MTU_BYTES_MIN:
            least = lib.TCPIP_MTU_BYTES_MIN
            self.report(
                f"{now.name} has MTU {now.mtu_bytes} now, less than the {least} that we can send in", **fields
            )
            return False
        smaller = f": every segment is cut again (slow); the image is made for {self.image_mtu}"
        self.report(f"{now.name} has MTU {now.mtu_bytes} now{smaller if usable < self.image_mtu else ''}", **fields)
        self.mtu_bytes = usable
        return True

    def _kernel_s_too(self, now: Interface) -> None:
        """Reports where the kernel was given an address of ours, in own-address mode."""
        kernel_s = self.places.ips() & {address.ip for address in now.addresses}
        for ip in kernel_s - self.refused:
            self.report(
                f"{ip} is the kernel's too now, and clients may reach either: take it from {now.name}, or start "
                "without --address",
                change="address-shared",
                address=str(ip),
            )
        self.refused = kernel_s

    def _came(self, now: Interface) -> list[Any]:
        """Addresses that we can serve and don't yet."""
        passed_over = self.places.ips() | self.refused | now.tentative
        return [a for a in now.addresses if a.version in self.families and a.ip not in passed_over]

    def _gone(self, there: set[Any]) -> list[Any]:
        """Notes since when the interface, which is running, is without addresses of ours. Returns those long away."""
        now_s = time.monotonic()
        away = self.places.ips() - there
        for ip in away:
            self.away_since.setdefault(ip, now_s)
        return [ip for ip in away if now_s >= self.away_since[ip] + AWAY_S]

    def _addresses(self, now: Interface) -> bool:
        """Takes up addresses that came, and gives up those that have been away for a while. True: some were."""
        there = {address.ip for address in now.addresses}
        self.refused &= there
        for ip in there:
            self.away_since.pop(ip, None)
        came = self._came(now)
        gone = self._gone(there) if now.running else []
        if not came and not gone:
            return False
        if self.opened.backend == "netmap":
            self._not_followed(
                [address.ip for address in came], "netmap's filter is made at the start: start ssrun again"
            )
            return False
        return bool([self._give_up(ip) for ip in gone] + [ip for ip in map(self._take_up, came) if ip])

    def _not_followed(self, ips: list[Any], why: str) -> None:
        for ip in ips:
            self.refused.add(ip)
            self.report(f"{ip} is not served: {why}", change="address-refused", address=str(ip), reason=why)

    def _take_up(self, address: Interface4or6) -> bool:
        assert self.opened.reservation is not None
        try:
            self.opened.reservation.hold(address.ip)
        except SsrunError as error:
            self._not_followed([address.ip], str(error))
            return False
        if not self.places.add(address):
            self.opened.reservation.release(address.ip)
            self._not_followed([address.ip], f"no more than {lib.ETH_ADDRESSES_MAX} addresses are")
            return False
        text, fields = f"{address.ip} is served too now", {"change": "address-added", "address": str(address)}
        self.news.append(partial(self.report, text, **fields))
        return True

    def _give_up(self, ip: Any) -> bool:
        """The kernel gets what comes for it before we stop to answer."""
        assert self.opened.reservation is not None
        if self.opened.filter is not None:
            lib.nmio_filter_forget(self.opened.filter, ip.packed, len(ip.packed))
        self.opened.reservation.release(ip)
        self.away_since.pop(ip, None)
        self.places.remove(ip)
        left = "" if self.places.ips() else "; no address is left to serve on, waiting for one"
        text, fields = f"{ip} is not served any more{left}", {"change": "address-removed", "address": str(ip)}
        self.news.append(partial(self.report, text, **fields))
        return True

    def _hand_over(self, *, announce: bool) -> bool:
        """Hands the change to all workers, then to the filter: that gives them new addresses. False: in vain."""
        link = ffi.new("struct stack_link *", {"mac": self.mac, "announce": announce, "mtu_bytes": self.mtu_bytes})
        link.address_count = len(self.places.held)
        for entry, address in zip(link.addresses, self.places.held, strict=False):
            if address is not None:
                put_address(entry, address)
        workers = self.server.workers
        deadline_s = time.monotonic() + HAND_OVER_S
        for worker in workers:
            if not self._comes(partial(lib.worker_link_change, worker, link), deadline_s):
                return False
        if not self._comes(lambda: all(map(lib.worker_link_taken, workers)), deadline_s):
            return False
        self.opened.addresses = [address for address in self.places.held if address is not None]
        if self.opened.filter is not None:
            for address in self.opened.addresses:
                error = lib.nmio_filter_address(self.opened.filter, address.ip.packed, len(address.ip.packed))
                if error:
                    self.report(
                        f"{address.ip}: the BPF program does not take it: {os.strerror(-error)}", change="filter"
                    )
        return True

    def _comes(self, condition: Callable[[], bool], deadline_s: float) -> bool:
        """Waits for what workers do. False: they do not; where the server has ended, the next one will be told."""
        while not condition():
            if time.monotonic() > deadline_s or not self.server.runs():
                return False
            time.sleep(HAND_OVER_POLL_S)
        return True

    def close(self) -> None:
        """Follows no more."""
        self.closed = True
        with contextlib.suppress(OSError):
            self.doorbell.close()


def is_ready(interface: Interface, versions: set[int]) -> bool:
    """Can be served on. versions: of the addresses of which it must have one; empty: it needs none."""
    there = {address.version for address in interface.addresses if address.ip not in interface.tentative}
    return interface.up and bool(there & versions or not versions)


def wait_for(name: str, versions: set[int], stopped: Callable[[float], bool]) -> Interface | None:
    """Waits until there is an interface of that name that is ready. None: we are to end.

    stopped: waits for a time, and says whether we are to end.
    """
    while True:
        with contextlib.suppress(SsrunError):
            interface = kernel.look_up(name)
            if is_ready(interface, versions):
                return interface
        if stopped(WAIT_POLL_S):
            return None


def await_carrier(interface: Interface, stopped: Callable[[float], bool]) -> bool:
    """Waits for a link that was there before ports were opened on it: a driver may set its NIC up anew for XDP.

    What is asked or announced meanwhile nobody hears. False: we are to end.

    stopped: as for wait_for.
    """
    deadline_s = time.monotonic() + CARRIER_S
    while interface.running and time.monotonic() < deadline_s:
        now = kernel.look_up_index(interface.index)
        if now is None or now.running or not now.up:
            return True
        if stopped(CARRIER_POLL_S):
            return False
    return True


def has_gone(interface: Interface, versions: set[int]) -> bool:
    """What was ready is not any more."""
    now = kernel.look_up_index(interface.index)
    return now is None or not is_ready(now, versions)
