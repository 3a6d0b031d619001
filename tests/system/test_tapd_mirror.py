#!/usr/bin/env python3
"""Mirrors to a target over NBD under a writing guest: either end killed with -9, a target that is silent, answers errors
or holds something else. What the guest was told is on the disk in the end, and nothing switches that is not equal."""
import os
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import tapd as T  # noqa: E402
from tests.system.test_tapd_core import MIB, SIZE, Guest, Place, progress, qemu_io  # noqa: E402


class Pair:
    """A source with a guest, and the tapd that serves the target."""

    def __init__(self, place, name, **options):
        self.source, self.target = place.image(name), place.image(name + "-target")
        self.tap, self.far = place.tap(self.source, state="active"), place.tap(self.target, state="active")
        qemu_io(self.tap, "write -P 3 8M 16M")
        self.guest = Guest(self.tap)
        progress(self.guest)
        self.tap.call("mirror-start", format="nbd", path=self.far.uri(), proof=1, **options)

    def copied(self, n):
        self.tap.wait(lambda s: int(s["mirror_sent"]) >= n)

    def switch(self):
        self.tap.wait(lambda s: s["mirror"] == "following")
        self.tap.call("mirror-switch")
        return self.tap.wait(lambda s: s["mirror"] in ("switched", "failed"))

    def end(self, at_target=True):
        progress(self.guest)
        self.guest.end()
        for tap in (self.tap, self.far):
            tap.call("quit")
            tap.ended()
        self.guest.check(self.target if at_target else self.source)


def equal_but_for_the_guest(pair):
    with open(pair.source, "rb") as a, open(pair.target, "rb") as b:
        a.seek(8 * MIB), b.seek(8 * MIB)
        assert a.read() == b.read(), "the part nobody wrote to differs"


def plain(place):
    pair = Pair(place, "plain")
    status = pair.switch()
    assert status["mirror"] == "switched" and status["mirror_repaired"] == "0", status
    pair.end()
    equal_but_for_the_guest(pair)


def far_end_killed(place):
    pair = Pair(place, "far", bandwidth=8 * MIB)
    pair.copied(4 * MIB)
    pair.far.kill()
    status = pair.tap.wait(lambda s: s["mirror_error"] != "")
    assert status["mirror"] == "copying" and "lost" in status["mirror_error"], status
    assert int(status["mirror_lost_us"]) <= 100000, status
    progress(pair.guest)
    pair.far.start()
    pair.tap.wait(lambda s: s["mirror_error"] == "")
    pair.tap.call("mirror-set", bandwidth=0)
    status = pair.switch()
    assert status["mirror"] == "switched", status
    pair.end()
    equal_but_for_the_guest(pair)


def far_end_killed_after_the_switch(place):
    pair = Pair(place, "after")
    pair.switch()
    for _ in range(3):
        pair.far.kill()
        time.sleep(0.05)  # some of the guest's requests find nobody
        pair.far.start()
        progress(pair.guest)
    pair.end()


def near_end_killed(place):
    pair = Pair(place, "near", bandwidth=8 * MIB)
    pair.copied(4 * MIB)
    pair.tap.kill()
    pair.tap.start()
    pair.tap.wait(lambda s: s["serving"] == "1")
    pair.tap.call("mirror-set", bandwidth=0)
    status = pair.switch()
    assert status["mirror"] == "switched", status
    assert int(status["mirror_sent"]) <= 15 * MIB, status  # 16 MiB in all, of which 4 had been sent
    pair.end()
    equal_but_for_the_guest(pair)


def far_end_silent(place):
    pair = Pair(place, "silent", bandwidth=8 * MIB, silence_ms=300)
    pair.copied(2 * MIB)
    pair.far.process.send_signal(signal.SIGSTOP)
    status = pair.tap.wait(lambda s: s["mirror_error"] != "")
    assert "lost" in status["mirror_error"] and int(status["mirror_lost_us"]) >= 300000, status
    progress(pair.guest)
    pair.far.process.send_signal(signal.SIGCONT)
    pair.tap.wait(lambda s: s["mirror_error"] == "")
    pair.tap.call("mirror-set", bandwidth=0)
    assert pair.switch()["mirror"] == "switched"
    pair.end()
    equal_but_for_the_guest(pair)


def wrong_byte(place):
    source, target = place.image("wrong"), place.image("wrong-target")
    tap, far = place.tap(source, state="active"), place.tap(target, state="active")
    qemu_io(tap, "write -P 3 8M 16M")
    tap.call("fault-arm", spec="mirror.corrupt-target=flip@5")
    tap.call("mirror-start", format="nbd", path=far.uri(), proof=1)
    tap.wait(lambda s: s["mirror"] == "following")
    tap.call("mirror-switch")
    status = tap.wait(lambda s: s["mirror"] == "switched")
    assert status["mirror_repaired"] == "1", status
    for t in (tap, far):
        t.call("quit")
        t.ended()
    subprocess.run(["cmp", source, target], check=True)


def far_end_fails(place, error, text):
    """nbdkit answers the error from some moment on."""
    source = place.image("fails")
    tap = place.tap(source, state="active")
    qemu_io(tap, "write -P 3 8M 16M")
    guest = Guest(tap)
    progress(guest)
    sock, trigger = os.path.join(place.dir, "kit"), os.path.join(place.dir, "trigger")
    kit = subprocess.Popen(["nbdkit", "-f", "-U", sock, "--filter=error", "memory", str(SIZE),
                            f"error-pwrite={error}", "error-pwrite-rate=100%", f"error-pwrite-file={trigger}"])
    try:
        T.wait_listening(sock)
        tap.call("mirror-start", format="nbd", path=f"nbd+unix:///?socket={sock}", proof=1, bandwidth=8 * MIB)
        tap.wait(lambda s: int(s["mirror_sent"]) > MIB)
        open(trigger, "w").close()
        status = tap.wait(lambda s: s["mirror"] == "failed")
        assert text in status["mirror_error"] and int(status["mirror_lost_us"]) <= 100000, status
        progress(guest)
        tap.call("mirror-end")
        assert tap.spec()["path"] == source
        progress(guest)
    finally:
        kit.terminate()
        kit.wait(T.DEADLINE)
    guest.end()
    tap.call("quit")
    tap.ended()
    guest.check(source)


def point(place):
    """The target is the disk of the moment the mirror was started, whatever the guest does then."""
    source, target, moment = place.image("point"), place.image("point-target"), os.path.join(place.dir, "moment")
    tap = place.tap(source, state="active")
    qemu_io(tap, "write -P 3 0 16M", "flush")
    shutil.copyfile(source, moment)
    tap.call("mirror-start", format="raw", path=target, proof=1, mode="point", bandwidth=16 * MIB)
    guest = Guest(tap, blocks=4000)
    progress(guest)
    tap.wait(lambda s: s["mirror"] == "done")
    progress(guest)
    guest.end()
    tap.call("mirror-end")
    tap.call("quit")
    tap.ended()
    guest.check(source)
    subprocess.run(["cmp", moment, target], check=True)


def far_end_says_eio(place):
    far_end_fails(place, "EIO", "Input/output error")


def far_end_is_full(place):
    far_end_fails(place, "ENOSPC", "No space left")


CASES = [
    plain, far_end_killed, far_end_killed_after_the_switch, near_end_killed, far_end_silent, wrong_byte,
    far_end_says_eio, far_end_is_full, point,
]


if __name__ == "__main__":
    sys.exit(T.run_cases(Place, CASES, ("qemu-io", "nbdkit", "cmp"), sys.argv[1:]))
