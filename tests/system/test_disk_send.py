#!/usr/bin/env python3
"""A disk on its way to another host, as its tapds see it: through an HTTP front, handed over, cut off. What runs through
whole daemons is in test_disk_sink.py."""
import os
import socket
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", ".."), HERE]
from tests.lib import tapd as T  # noqa: E402
from tests.lib.relay import Relay  # noqa: E402
import test_mirror_remote as remote  # noqa: E402
import test_tapd_core as core  # noqa: E402

MIB = 1 << 20
SIZE = remote.SIZE
SECRET = "migration_key=5a5a-secret"
PATH = "/services/SM/nbd/vm/sr/location/incoming"
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-encoding: nbd\r\n\r\n"


class Front(remote.There):
    """The other machine behind a front of HTTP, which hands the socket on as a host's daemon does. 'answer': what it says."""

    def __init__(self, place, kind):
        self.answer, self.heads = HEAD, []
        super().__init__(place, kind)

    def serve(self):
        pass

    def connect(self):
        ours, theirs = socket.socketpair()
        threading.Thread(target=self.talk, args=(theirs,), daemon=True).start()
        return ours

    def talk(self, sock):
        with sock:
            head = b""
            try:
                while not head.endswith(b"\r\n\r\n"):
                    more = sock.recv(1)
                    if not more:
                        return
                    head += more
                self.heads.append(head.decode())
                sock.sendall(self.answer)
                if self.answer == HEAD:
                    self.tap.call("adopt", fd=sock.fileno(), read_only=0, tls=0)
            except (OSError, T.Refused):
                pass

    def uri(self, fingerprint=None):
        return f"nbd://127.0.0.1:{self.relay.port}/?put={PATH.replace('/', '%2F')}&cookie={SECRET.replace('=', '%3D')}"


class Place(remote.Place):
    def __init__(self):
        super().__init__()
        self.there = Front


class Move(remote.Move):
    """remote.Move with a front before the other machine."""

    def __init__(self, place, kind="front", **options):
        there, remote.There = remote.There, Front
        try:
            super().__init__(place, kind, **options)
        finally:
            remote.There = there

    def hand_over(self):
        self.tap.call("mirror-hand-over")
        return self.tap.wait(lambda s: s["mirror"] in ("done", "failed"))

    def same_files(self):
        with open(self.source, "rb") as a, open(self.there.image, "rb") as b:
            assert a.read() == b.read(), "the disks differ"


def no_secret(m):
    """The credential is in the spec alone, and that is root's."""
    word = SECRET.split("=")[1]
    assert word in m.tap.spec()["mirror"] and os.stat(m.tap.path("spec")).st_mode & 0o77 == 0
    assert word not in str(m.tap.status()) and word not in m.tap.log()


# --- the front ---------------------------------------------------------------------------------------------------


def refused_by_the_front(place):
    there, tap = Front(place, "front"), place.here(place.image("source"))
    answers = {
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n": "HTTP/1.1 403 Forbidden",
        b"HTTP/1.1 404 Not Found\r\n\r\n": "HTTP/1.1 404 Not Found",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 9000 + b"\r\n\r\n": "HTTP/1.1 200 OK",
        b"HTTP/1.1 200 OK\nX: y\n\n": "HTTP/1.1 200 OK",
        b"NBDMAGICIHAVEOPT\0\3": "front",
        b"": "front",
    }
    for answer, said in answers.items():
        there.answer = answer
        text = core.refused(lambda: tap.call("mirror-start", format="nbd", path=there.uri()), said)
        assert SECRET.split("=")[1] not in text, text
        assert tap.status()["mirror"] == "none" and tap.spec()["mirror"] == ""
    assert there.heads[0] == f"PUT {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{there.relay.port}\r\nCookie: {SECRET}\r\n\r\n", there.heads[0]
    there.answer = HEAD
    tap.call("mirror-start", format="nbd", path=there.uri())
    tap.wait(lambda s: s["mirror"] == "following")


def through_the_front(place):
    """Several connections, cut and frozen under a guest; handed over; both disks are equal."""
    m = Move(place, streams=2)
    m.copied(0.25)
    no_secret(m)
    m.connected_again(m.lost(m.there.relay.cut))
    m.copied(0.5)
    accepted = m.lost(m.there.relay.freeze)
    m.tap.wait(lambda s: s["mirror_error"] != "")
    core.progress(m.guest)
    m.there.relay.freeze(False)
    m.connected_again(accepted)
    m.unlimited()
    m.follows()
    m.lost(m.there.killed)
    m.there.again()
    m.goes_on()
    m.follows()
    m.accounted()
    assert len(m.there.heads) >= 8 and len(set(m.there.heads)) == 1
    no_secret(m)
    m.guest.end()
    status = m.hand_over()
    assert status["mirror"] == "done" and int(status["mirror_pause_us"]) > 0 and status["mirror_handed"] == "1", status
    m.same_files()
    m.guest.check(m.there.image)


# --- handing over ------------------------------------------------------------------------------------------------


def write(tap, number, value):
    """One block, from a thread of its own that ends when it is acknowledged."""
    def run():
        s = core.Guest.connect(guest)
        core.Guest.write(guest, s, number, value)
        s.close()
    guest = core.Guest.__new__(core.Guest)
    guest.tap, guest.acknowledged, guest.stop = tap, {}, threading.Event()
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, guest


def handed_over(place):
    """The tapd stays on its source, holds what comes, and closes; the way back is to activate."""
    m = Move(place, bandwidth=0)
    m.follows()
    m.guest.end()
    assert m.hand_over()["mirror"] == "done"
    spec = m.tap.spec()
    assert spec["path"] == m.source and spec["state"] == "paused" and spec["mirror"] == "", spec
    m.same_files()
    thread, guest = write(m.tap, 100, 7) # nobody may be told that this is written: the disk is elsewhere
    m.tap.wait(lambda s: s["in_flight"] == "1")
    assert m.tap.call("mirror-hand-over") == {} and m.hand_over()["mirror_handed"] == "1" # repeated
    m.tap.call("deactivate")
    status = m.tap.status()
    assert status["mirror"] == "done" and int(status["mirror_proven"]) == SIZE and int(status["mirror_pause_us"]) > 0, status
    assert status["serving"] == "0" and thread.is_alive()
    m.same_files()
    m.there.tap.call("deactivate") # nothing of the target is in use any more
    m.tap.call("activate")
    thread.join(T.DEADLINE)
    assert not thread.is_alive() and m.tap.status()["mirror"] == "none"
    guest.check(m.source)
    m.guest_again()
    core.progress(m.guest)
    m.there.tap.call("activate")
    m.tap.call("mirror-start", format="nbd", path=m.there.uri()) # and once more
    m.follows()
    m.guest.end()
    assert m.hand_over()["mirror"] == "done"
    m.same_files()
    m.tap.kill()
    m.tap.start()
    assert m.tap.status()["mirror"] == "done" and m.tap.status()["serving"] == "0"
    assert m.hand_over()["mirror_handed"] == "1"
    m.tap.call("activate") # without having been closed
    assert m.tap.status()["mirror"] == "none" and m.tap.status()["serving"] == "1"


def killed_meanwhile(place):
    """In the middle of handing over: the mirror goes on, and it is asked for again. Taken back: the guest goes on."""
    m = Move(place, bandwidth=8 * MIB)
    m.copied(0.2)
    m.guest.end()
    m.there.relay.slow(4 * MIB)
    m.tap.call("mirror-hand-over") # also of one that does not follow yet: the cap of the bandwidth does not count any more
    m.tap.wait(lambda s: s["mirror_handing"] == "1" and s["serving"] == "0")
    m.tap.kill()
    m.tap.start()
    m.tap.wait(lambda s: s["mirror"] == "copying" and s["serving"] == "1" and s["mirror_handing"] == "0")
    m.tap.call("mirror-hand-over")
    m.tap.wait(lambda s: s["mirror_handing"] == "1")
    m.tap.call("activate")
    m.guest_again()
    core.progress(m.guest)
    status = m.tap.status()
    assert status["mirror"] == "copying" and status["mirror_handing"] == "0", status
    m.guest.end()
    m.there.relay.slow(0)
    m.lost(m.there.killed)
    m.tap.call("mirror-hand-over") # the target is away just now
    m.there.again()
    m.tap.wait(lambda s: s["mirror"] in ("done", "failed"))
    assert m.tap.status()["mirror"] == "done"
    m.same_files()


def not_handed_over(place):
    """A target that does not come back; a commit that fails; one wrong byte."""
    m = Move(place, bandwidth=0, reconnect_ms=400)
    m.follows()
    m.guest.end()
    m.tap.call("fault-arm", spec="mirror.commit=error@1")
    m.tap.call("mirror-hand-over")
    m.tap.wait(lambda s: "durable" in s["mirror_error"] and s["serving"] == "1")
    m.tap.call("fault-arm", spec="")
    m.guest_again()
    core.progress(m.guest)
    m.guest.end()
    m.there.killed()
    m.there.relay.refuse()
    m.tap.call("mirror-hand-over")
    m.tap.wait(lambda s: s["mirror"] == "failed" and s["serving"] == "1")
    m.guest_again()
    core.progress(m.guest)
    core.refused(lambda: m.tap.call("mirror-hand-over"), "failed")
    m.tap.call("mirror-end")
    m.there.relay.refuse(False)
    m.there.again()
    m.tap.call("fault-arm", spec="mirror.corrupt-target=wrong@1")
    m.tap.call("mirror-start", format="nbd", path=m.there.uri())
    m.follows()
    m.guest.end()
    status = m.hand_over()
    assert status["mirror"] == "done" and int(status["mirror_repaired"]) >= 1, status
    m.same_files()


def copied(place):
    """Mode copy of what nobody writes."""
    there, tap = Front(place, "front"), place.here(place.full("source"))
    tap.call("mirror-start", format="nbd", path=there.uri(), mode="copy")
    core.refused(lambda: tap.call("mirror-hand-over"), "copies")
    tap.wait(lambda s: s["mirror"] == "done")
    with open(place.dir + "/source", "rb") as a, open(there.image, "rb") as b:
        assert a.read() == b.read()


# --- cut ---------------------------------------------------------------------------------------------------------


def cut(place):
    """The target is somebody else's disk now: who sent it is gone and does not come back; its own guest goes on."""
    m = Move(place, bandwidth=0, reconnect_ms=300)
    m.follows()
    own = core.Guest(m.there.tap)
    core.progress(own)
    assert m.there.tap.call("cut") == {} and m.there.tap.call("cut") == {}
    status = m.tap.wait(lambda s: s["mirror"] == "failed")
    assert m.there.tap.status()["clients"] == "1", status
    core.progress(own)
    m.there.tap.kill()
    m.there.tap.start()
    assert m.there.tap.spec()["sealed"] == "1"
    core.refused(lambda: m.tap.call("mirror-end") and m.tap.call("mirror-start", format="nbd", path=m.there.uri()) or
                 m.tap.call("mirror-start", format="nbd", path=m.there.uri()))
    own.end()
    core.progress(m.guest)
    m.guest.end()


CASES = [refused_by_the_front, through_the_front, handed_over, killed_meanwhile, not_handed_over, copied, cut]

if __name__ == "__main__":
    sys.exit(T.run_cases(Place, CASES, ["openssl", "qemu-img"], sys.argv[1:]))
