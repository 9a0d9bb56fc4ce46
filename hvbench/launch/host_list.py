"""The words of `-H host1:4,host2:4` -> the host of each rank. The same machine under several names is one host."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from hvbench.errors import UsageError
from hvbench.spec.messages import shorten

NAME = r"(?P<name>[A-Za-z0-9_][\w.-]{0,252}|\[(?P<address>[0-9A-Fa-f:.]{2,45}(%[\w.-]{1,15})?)\])"
HOST = re.compile(rf"((?P<user>[A-Za-z0-9_][\w.-]{{0,63}})@)?{NAME}(:(?P<slots>[1-9]\d{{0,3}}))?", re.ASCII)
ALLOWED = (
    "a host is a name of letters, digits, dots, dashes and underscores, or an address (IPv6 in brackets), USER@ before it "
    "where ssh needs that; behind it a colon and 1 to 9999 ranks, or 1 rank without; such as host1:4,host2:4"
)
LOCAL_NAMES = re.compile(r"(.+\.)?localhost(\.localdomain|6|4)?|ip6-(localhost|loopback)")
LOOKUPS_AT_ONCE = 16

FindAddresses = Callable[[str], Iterable[str]]  # name -> its addresses as text; none where it has none


@dataclass(frozen=True, kw_only=True)
class Here:
    """This machine's own names and addresses."""

    names: frozenset[str]
    addresses: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One word of the list."""

    target: str  # what ssh is called with
    name: str  # without the user, brackets, and what the spelling of a name does not change
    slots: int


def parse_hosts(text: str, *, here: Here | None = None, find: FindAddresses | None = None) -> list[str]:
    """`host1:2,user@host2` -> what ssh calls the host of each rank, the first being this machine; raises UsageError.

    Names of one machine (localhost, its own name, its addresses, two names with one address) become the first of them.

    Args:
        text: the list; a host without a number of ranks has one.
        here: this machine; None: as it is.
        find: the addresses that a name has; None: as this machine looks them up.
    """
    words = [word.strip() for word in text.split(",")]
    listed = [parse_word(word, text=text) for word in words]
    for number, one in enumerate(listed):
        if one.target in [other.target for other in listed[:number]]:
            raise UsageError(f"-H {shorten(text, limit=200)}: {one.target} is listed twice")
    one_name = listed[0].target
    if len(listed) == 1:
        return [one_name] * listed[0].slots
    hosts: list[str] = []
    known: list[tuple[str, frozenset[str]]] = []  # of each machine so far: what it is called, its names and addresses
    here = here or describe_machine()
    with ThreadPoolExecutor(LOOKUPS_AT_ONCE) as pool:
        found = list(pool.map(lambda one: identify(one.name, here=here, find=find or look_up), listed))
    for number, (one, identity) in enumerate(zip(listed, found, strict=True)):
        identity |= frozenset({LOCAL}) if number == 0 else frozenset()  # the first is this machine, whatever its name
        target = next((target for target, other in known if identity & other), one.target)
        known.append((target, identity))
        hosts += [target] * one.slots
    return hosts


LOCAL = "this machine"


def parse_word(word: str, *, text: str) -> Listed:
    """One host of the list; raises UsageError."""
    match = HOST.fullmatch(word)
    address = match["address"] if match else None
    if not match or (address and not is_address(address)):
        raise UsageError(f"-H {shorten(text, limit=200)}: {shorten(word)} is no host: {ALLOWED}")
    bare = address or match["name"]
    target = f"{match['user']}@{bare}" if match["user"] else bare
    return Listed(target=target, name=normalize(bare), slots=int(match["slots"] or 1))


def identify(name: str, *, here: Here, find: FindAddresses) -> frozenset[str]:
    """What two names of one machine have in common: LOCAL here, else the name itself and its addresses."""
    if LOCAL_NAMES.fullmatch(name) or name in here.names:
        return frozenset({LOCAL})
    addresses = {name} if is_address(name) else {normalize(address) for address in find(name)}
    if any(is_loopback(address) or address in here.addresses for address in addresses):
        return frozenset({LOCAL})
    return frozenset({name, *addresses})


def normalize(name: str) -> str:
    """A name or address as it is compared: case and a dot at the end of a name mean nothing, nor does an address's spelling."""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(name.partition("%")[0])
        return str(getattr(address, "ipv4_mapped", None) or address)
    return name.lower().rstrip(".")


def is_address(name: str) -> bool:
    """Whether `name` is a numeric address."""
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def is_loopback(address: str) -> bool:
    """Whether an address leads back to where it is used: 127.0.0.0/8, ::1, and the unspecified ones."""
    parsed = ipaddress.ip_address(address)
    return parsed.is_loopback or parsed.is_unspecified


def look_up(name: str) -> set[str]:
    """The addresses of a name; none where nobody knows it, as for a name that only ssh's configuration has."""
    with contextlib.suppress(OSError, UnicodeError):
        return {entry[4][0] for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
    return set()


def describe_machine() -> Here:
    """This machine's names, whole and short, and the addresses of its interfaces."""
    import psutil

    names = {socket.gethostname(), socket.getfqdn()}
    names |= {name.partition(".")[0] for name in names if not is_address(name)}
    families = (socket.AF_INET, socket.AF_INET6)
    addresses = (
        each.address for entries in psutil.net_if_addrs().values() for each in entries if each.family in families
    )
    return Here(
        names=frozenset(normalize(name) for name in names if name),
        addresses=frozenset(normalize(address) for address in addresses),
    )


def bare_name(target: str) -> str:
    """The host of `user@host`."""
    return target.rpartition("@")[2]
