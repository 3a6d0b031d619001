#!/usr/bin/env python3
"""A mirror to another machine: two tapds with a network between them that is cut, frozen and slow, and either tapd
killed. The guest notices nothing; only what is missing is sent again; afterwards both disks are equal."""
import os
import random
import shutil
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", ".."), HERE]
from tests.lib import tapd as T  # noqa: E402
from tests.lib.relay import Relay  # noqa: E402
import test_tapd_core as core  # noqa: E402

MIB = 1 << 20
SIZE = 48 * MIB
IN_FLIGHT = 6 * MIB  # the most a mirror has under way: storage/tapd/mirror_private.h
PACE_S = 0.004


class Guest(core.Guest):
    """Writes now and then, so that what it rewrites is little; counts it."""

    def __init__(self, tap):
        self.bytes = 0
        super().__init__(tap, blocks=2048)

    def write(self, s, number, round):
        self.bytes += 4096
        super().write(s, number, round)
        time.sleep(PACE_S)


def certificate(directory):
    pem, cert = os.path.join(directory, "server.pem"), os.path.join(directory, "cert.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                    "/CN=there", "-keyout", pem, "-out", cert], check=True, capture_output=True, timeout=60)
    with open(pem, "a") as f, open(cert) as c:
        f.write(c.read())
    said = subprocess.run(["openssl", "x509", "-in", cert, "-noout", "-fingerprint", "-sha256"], check=True, capture_output=True, text=True, timeout=60)
    return pem, said.stdout.strip().split("=")[1].replace(":", "")


class There:
    """The other machine: its tapd, and the network before it. kind: plain, starttls, tls-first."""

    def __init__(self, place, kind):
        self.kind = kind
        self.pem, self.fingerprint = place.certificate
        self.image = place.image(f"there-{len(place.taps)}")
        self.tap = place.tap(self.image, state="active")
        self.port = 0
        self.serve()
        self.relay = Relay(self.connect)
        place.relays.append(self.relay)

    def serve(self):
        if self.kind == "tls-first":
            return
        tls = {"tls": 1, "certificate": self.pem} if self.kind == "starttls" else {"tls": 0}
        self.port = int(self.tap.call("listen", address="127.0.0.1", port=0, **tls)["port"])

    def connect(self):
        if self.kind != "tls-first":
            return socket.create_connection(("127.0.0.1", self.port), 5)
        with socket.create_server(("127.0.0.1", 0)) as listener: # what a host's front does with a connection for it
            ours = socket.create_connection(listener.getsockname(), 5)
            theirs, _ = listener.accept()
        with theirs:
            self.tap.call("adopt", fd=theirs.fileno(), read_only=0, tls=1, certificate=self.pem)
        return ours

    def uri(self, fingerprint=None):
        f = fingerprint or self.fingerprint
        tail = {"plain": "disk", "starttls": f"disk?fingerprint={f}", "tls-first": f"disk?tls=first&sni=there.nbd&fingerprint={f}"}[self.kind]
        return f"nbd{'' if self.kind == 'plain' else 's'}://127.0.0.1:{self.relay.port}/{tail}"

    def killed(self):
        self.tap.kill()
        self.relay.cut()

    def again(self):
        self.tap.start()
        self.serve()


class Place(core.Place):
    def __init__(self):
        super().__init__()
        self.relays = []
        self.certificate = certificate(self.dir)

    def image(self, name, size=SIZE):
        return super().image(name, size)

    def full(self, name):
        """Random data but for some holes."""
        path = self.image(name)
        noise = random.Random(1)
        with open(path, "r+b") as f:
            for at in (m for m in range(SIZE // MIB) if m % 8 != 5):
                f.seek(at * MIB)
                f.write(noise.randbytes(MIB))
        return path

    def here(self, path):
        return self.tap(path, state="active", size=SIZE)

    def remove(self):
        super().remove()
        for relay in self.relays:
            relay.stop()


class Move:
    """A mirror from here to there under a guest, with the account of what it may send."""

    def __init__(self, place, kind, **options):
        self.place, self.there = place, There(place, kind)
        self.source = place.full(f"here-{len(place.taps)}")
        self.tap = place.here(self.source)
        self.guest = Guest(self.tap)
        core.progress(self.guest)
        self.losses, self.base = 0, 0
        self.options = dict({"bandwidth": 24 * MIB, "silence_ms": 500}, **options)
        self.tap.call("mirror-start", format="nbd", path=self.there.uri(), **self.options)

    def copied(self, share):
        return self.tap.wait(lambda s: int(s["mirror_total"]) - int(s["mirror_dirty"]) >= share * SIZE or s["mirror"] == "failed")

    def goes_on(self):
        """After a loss: connected again."""
        status = self.tap.wait(lambda s: s["mirror"] in ("copying", "following") and s["mirror_error"] == "")
        core.progress(self.guest)
        return status

    def lost(self, how):
        accepted = self.there.relay.accepted
        how()
        self.losses += 1
        return accepted

    def connected_again(self, accepted):
        deadline = time.monotonic() + T.DEADLINE
        while self.there.relay.accepted == accepted:
            assert time.monotonic() < deadline, self.tap.log()
            time.sleep(0.005)
        return self.goes_on()

    def unlimited(self):
        self.tap.call("mirror-set", bandwidth=0)

    def follows(self):
        return self.tap.wait(lambda s: s["mirror"] in ("following", "failed") and s["mirror_dirty"] == "0" or s["mirror"] == "failed")

    def accounted(self, owed=SIZE):
        """Nothing was sent that was there already: a write of the guest may be sent twice, what was in flight again."""
        status = self.tap.status()
        sent, allowed = int(status["mirror_sent"]), owed + 2 * self.guest.bytes + self.losses * IN_FLIGHT
        assert sent <= allowed, f"{sent} bytes were sent, {allowed} are explained\n" + self.tap.log()

    def switch(self):
        self.tap.call("mirror-switch")
        self.tap.wait(lambda s: s["mirror"] in ("switched", "failed"))
        status = self.tap.status()
        assert status["mirror"] == "switched", status
        return status

    def equal(self, image):
        """The guest rests; what it sees is what the image holds."""
        self.guest.end()
        self.tap.call("pause")
        self.tap.call("resume")
        done = subprocess.run(["qemu-img", "compare", "-U", "-f", "raw", "-F", "raw", self.tap.uri(), image], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        self.guest.check(image)

    def guest_again(self):
        acknowledged, self.guest = self.guest.acknowledged, Guest(self.tap)
        self.guest.acknowledged.update({k: v for k, v in acknowledged.items() if k not in self.guest.acknowledged})


# --- the cases ---------------------------------------------------------------------------------------------


def there_and_back(place, kind):
    """Cut in mid-copy, while following, after the switch, after the mirror's end, and on the way back."""
    m = Move(place, kind)
    m.copied(0.25)
    m.connected_again(m.lost(m.there.relay.cut))
    m.copied(0.5)
    m.connected_again(m.lost(lambda: m.there.relay.cut(reset=False)))
    m.unlimited()
    m.follows()
    m.connected_again(m.lost(m.there.relay.cut))
    m.follows()
    m.accounted()
    m.switch()
    assert m.tap.spec()["format"] == "nbd" and m.tap.spec()["mirror"] == ""
    m.there.relay.cut()
    core.progress(m.guest)
    core.progress(m.guest)
    m.there.relay.refuse()
    m.tap.wait(lambda s: s["mirror_error"] != "")
    for verb in ("mirror-end", "pause", "deactivate", "quit"):
        core.refused(lambda: m.tap.call(verb), "cannot be reached")
    m.there.relay.refuse(False)
    core.progress(m.guest)
    m.tap.call("mirror-end")
    assert m.tap.status()["mirror"] == "none"
    for reset in (True, False):
        m.there.relay.cut(reset)
        core.progress(m.guest)
        core.progress(m.guest)
    m.there.killed()
    before = dict(m.guest.acknowledged)
    m.there.again()
    core.progress(m.guest)
    assert before.keys() <= m.guest.acknowledged.keys()
    m.tap.kill() # and the whole chain is opened again from the spec
    m.there.relay.refuse()
    m.tap.start()
    m.tap.wait(lambda s: s["serving"] == "0")
    m.there.relay.refuse(False)
    core.progress(m.guest)
    m.equal(m.there.image)
    m.guest_again()
    back = place.image(f"back-{kind}")
    m.tap.call("mirror-start", format="raw", path=back)
    m.there.relay.cut() # the source is lost, not the target: the mirror waits as the guest does
    m.tap.wait(lambda s: s["mirror"] == "following")
    core.progress(m.guest)
    m.switch()
    m.tap.call("mirror-end")
    m.there.relay.refuse()
    core.progress(m.guest)
    m.equal(back)


def frozen(place, kind):
    m = Move(place, kind)
    for share in (0.3, 0.6):
        m.copied(share)
        accepted = m.lost(m.there.relay.freeze)
        status = m.tap.wait(lambda s: s["mirror_error"] != "")
        assert "lost" in status["mirror_error"] and int(status["mirror_lost_us"]) >= 500000 and status["mirror"] == "copying", status
        core.progress(m.guest)
        m.there.relay.freeze(False)
        m.connected_again(accepted)
    m.unlimited()
    m.follows()
    m.lost(m.there.relay.freeze)  # a write of the guest is what finds out
    m.tap.wait(lambda s: s["mirror_error"] != "")
    m.there.relay.freeze(False)
    m.goes_on()
    m.follows()
    m.accounted()
    m.switch()
    m.tap.call("mirror-end")
    m.equal(m.there.image)


def slow(place, kind):
    """Slow is not silent."""
    m = Move(place, kind, bandwidth=0, silence_ms=400)
    m.there.relay.slow(2 * MIB)
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        status = m.tap.status()
        assert status["mirror"] == "copying" and status["mirror_error"] == "", status
        time.sleep(0.05)
    m.there.relay.slow(0)
    m.follows()
    m.accounted()
    m.switch()
    m.tap.call("mirror-end")
    m.equal(m.there.image)


def gone_for_good(place, kind):
    for when in ("copying", "following"):
        m = Move(place, kind, reconnect_ms=600)
        if when == "following":
            m.unlimited()
            m.follows()
        else:
            m.copied(0.2)
        m.there.killed()
        m.there.relay.refuse()
        status = m.tap.wait(lambda s: s["mirror"] == "failed")
        assert "could not be reached again" in status["mirror_error"], status
        core.progress(m.guest)
        core.refused(lambda: m.tap.call("mirror-switch"), "failed")
        assert m.tap.spec()["mirror"] == "" and m.tap.spec()["path"] == m.source
        m.tap.kill()
        m.tap.start()
        assert m.tap.status()["mirror"] == "failed"
        m.tap.call("mirror-abort" if when == "copying" else "mirror-end")
        assert m.tap.status()["mirror"] == "none" and not os.path.exists(m.tap.path("map"))
        core.progress(m.guest)
        core.refused(lambda: m.tap.call("mirror-start", format="nbd", path=m.there.uri()), m.there.uri().split("?")[0])
        m.equal(m.source)
        m.there.relay.refuse(False)
        m.there.again()


def killed_there(place, kind):
    m = Move(place, kind)
    for share in (0.2, 0.5):
        m.copied(share)
        m.lost(m.there.killed)
        m.tap.wait(lambda s: s["mirror_error"] != "")
        core.progress(m.guest)
        m.there.again()
        m.goes_on()
    m.unlimited()
    m.follows()
    m.lost(m.there.killed)
    m.there.again()
    m.goes_on()
    m.follows()
    m.accounted()
    m.switch()
    m.tap.call("mirror-end")
    m.equal(m.there.image)


def killed_here(place, kind):
    m = Move(place, kind)
    for n, share in enumerate((0.2, 0.4, 0.6)):
        m.copied(share)
        status, written = m.tap.status(), m.guest.bytes
        m.tap.kill()
        if n == 1:
            m.there.relay.refuse() # nobody is there when it comes back: the guest does not wait for that
        m.tap.start()
        core.progress(m.guest)
        if n == 1:
            assert "lost" in m.tap.status()["mirror_error"] and m.tap.status()["mirror"] == "copying", m.tap.status()
            m.there.relay.refuse(False)
        m.goes_on()
    m.unlimited()
    m.follows()
    sent, owed = int(m.tap.status()["mirror_sent"]), int(status["mirror_dirty"])
    assert sent <= owed + IN_FLIGHT + 2 * (m.guest.bytes - written), (sent, owed)
    m.tap.kill()
    m.tap.start()
    m.follows()
    written = m.guest.bytes
    assert int(m.tap.status()["mirror_sent"]) <= IN_FLIGHT + 2 * written
    m.switch()
    m.tap.kill() # switched is switched
    m.tap.start()
    assert m.tap.status()["mirror"] == "switched" and m.tap.spec()["format"] == "nbd"
    core.progress(m.guest)
    m.tap.call("mirror-end")
    m.equal(m.there.image)


def nobody_else(place, kind):
    """The wrong certificate, the wrong kind of TLS, a clear port: refused at the start, nothing is left."""
    there, tap = There(place, kind), place.here(place.full(f"here-{len(place.taps)}"))
    wrong = "00" * 32
    core.refused(lambda: tap.call("mirror-start", format="nbd", path=there.uri(wrong)), "TLS")
    core.refused(lambda: tap.call("mirror-start", format="nbd", path=f"nbd://127.0.0.1:{there.relay.port}/disk"))
    assert tap.status()["mirror"] == "none" and tap.spec()["mirror"] == "" and tap.status()["serving"] == "1"


CASES = [
    (there_and_back, "plain"), (there_and_back, "starttls"), (there_and_back, "tls-first"), (frozen, "plain"), (frozen, "tls-first"), (slow, "starttls"),
    (gone_for_good, "plain"), (killed_there, "starttls"), (killed_here, "plain"), (killed_here, "tls-first"), (nobody_else, "starttls"),
]


def main():
    for program in ("openssl", "qemu-img"):
        if shutil.which(program) is None:
            print(f"no {program}")
            return 77
    wanted = sys.argv[1:]
    for case, kind in CASES:
        if wanted and case.__name__ not in wanted and f"{case.__name__}-{kind}" not in wanted:
            continue
        T.run_case(Place(), f"{case.__name__} {kind}", case, kind)
    return 0


if __name__ == "__main__":
    sys.exit(main())
