"""Talks to a simulated guest past the toolstack (xenops/sim/guest_protocol.h): it can prove its blocks at once, and end as if
of its own accord."""
import os
import socket
import struct

MAGIC = 0x51455247
SHUTDOWN = 8
VERIFY = 11
OK, ACK = 0, 1
ENDS = {"poweroff": 1, "reboot": 2, "crash": 3}


def ask(host, uuid, verb, number=0, timeout=60):
    """(answer, text) of the guest with this uuid on a tests.lib.pool Host."""
    directory = os.path.join(host.dir, "sim", "domains")
    for name in os.listdir(directory):
        try:
            with open(os.path.join(directory, name, "domain.json")) as f:
                if uuid not in f.read():
                    continue
        except OSError:
            continue
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(timeout)
            s.connect(os.path.join(directory, name, "control"))
            s.sendall(struct.pack("=IIqII", MAGIC, verb, number, 0, 0))
            magic, answer, length, _ = struct.unpack("=IIII", take(s, 16))
            assert magic == MAGIC
            return answer, take(s, length).decode(errors="replace")
    raise AssertionError(f"there is no guest {uuid}")


def take(s, n):
    got = b""
    while len(got) < n:
        more = s.recv(n - len(got))
        if not more:
            raise ConnectionError("the guest has gone")
        got += more
    return got


def prove(host, uuid):
    """A paused guest reads back every page and block it has been told is written."""
    answer, text = ask(host, uuid, VERIFY)
    assert answer == OK, f"the guest found something else than it has written: {text}"


def end(host, uuid, how):
    """A running guest powers off, reboots or crashes without having been told by the toolstack."""
    answer, text = ask(host, uuid, SHUTDOWN, ENDS[how])
    assert answer == ACK, f"the guest does not end: it is {text}"
