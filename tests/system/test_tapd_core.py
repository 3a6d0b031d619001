#!/usr/bin/env python3
"""One tapd driven by hand: every verb, real NBD clients, and kill -9 in every state. What a client was told is on the
disk must be there afterwards, clients wait and are served again, and the spec says what a restart does."""
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import tapd as T  # noqa: E402

MIB = 1 << 20
SIZE = 32 * MIB


def refused(call, *words):
    try:
        call()
    except T.Refused as e:
        text = str(e)
        assert all(w in text for w in words), text
        return text
    raise AssertionError("was not refused")


class Place:
    """A directory with images, and the tapds on them."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="tapd-core-")
        self.taps = []

    def image(self, name, size=SIZE):
        path = os.path.join(self.dir, name)
        with open(path, "wb") as f:
            f.truncate(size)
        return path

    def tap(self, path, format="raw", state="inactive", **more):
        spec = dict(key="sr/" + os.path.basename(path), format=format, path=path, read_only=0, cached=0, size=SIZE, state=state,
                    cbt="", mirror="", mirror_options="", users="u")
        spec.update(more)
        tap = T.Tapd(os.path.join(self.dir, f"t{len(self.taps)}"), **spec)
        self.taps.append(tap)
        return tap.start()

    def remove(self):
        for tap in self.taps:
            tap.remove()
        shutil.rmtree(self.dir, ignore_errors=True)


def qemu_io(tap, *commands, check=True):
    args = ["qemu-io", "-f", "raw"]
    for c in commands:
        args += ["-c", c]
    done = subprocess.run(args + [tap.uri()], capture_output=True, text=True, timeout=60)
    if check:
        assert done.returncode == 0 and "failed" not in done.stdout and "Pattern" not in done.stdout, done.stdout + done.stderr
    return done.stdout + done.stderr


class Guest:
    """Writes one 4 KiB block after the other over NBD, on a connection of its own that is made anew after each loss;
    counts what was acknowledged (xapi-guest's way, in few lines)."""

    def __init__(self, tap, blocks=256):
        self.tap, self.blocks = tap, blocks
        self.acknowledged = {}
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.failed = None
        self.thread.start()

    def connect(self):
        while not self.stop.is_set():
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(T.DEADLINE)
            try:
                s.connect(self.tap.path("nbd"))
                got = self.take(s, 18)
                assert got[:16] == b"NBDMAGICIHAVEOPT", got
                s.sendall((3).to_bytes(4, "big") + b"IHAVEOPT" + (1).to_bytes(4, "big") + (0).to_bytes(4, "big"))
                self.take(s, 10)
                return s
            except (OSError, EOFError):
                s.close()
                time.sleep(0.005)
        return None

    @staticmethod
    def take(s, n):
        got = b""
        while len(got) < n:
            more = s.recv(n - len(got))
            if not more:
                raise EOFError
            got += more
        return got

    def write(self, s, number, round):
        data = (number * 1000003 + round).to_bytes(8, "big") * 512
        head = (0x25609513).to_bytes(4, "big") + (0).to_bytes(2, "big") + (1).to_bytes(2, "big")
        s.sendall(head + round.to_bytes(8, "big") + (number * 4096).to_bytes(8, "big") + (4096).to_bytes(4, "big") + data)
        reply = self.take(s, 16)
        error = int.from_bytes(reply[4:8], "big")
        assert error == 0, f"the guest got error {error}"
        self.acknowledged[number] = data

    def run(self):
        s, round = None, 0
        try:
            while not self.stop.is_set():
                if s is None:
                    s = self.connect()
                    continue
                try:
                    self.write(s, round % self.blocks, round)
                    round += 1
                except (OSError, EOFError):
                    s.close()
                    s = None
        except BaseException as e:  # noqa: BLE001
            self.failed = e

    def end(self):
        self.stop.set()
        self.thread.join(T.DEADLINE)
        assert self.failed is None, self.failed

    def check(self, path):
        """All that was acknowledged is in the raw file."""
        assert self.acknowledged
        with open(path, "rb") as f:
            for number, data in self.acknowledged.items():
                f.seek(number * 4096)
                got = f.read(4096)
                # the write that was under way at the end may be there without having been acknowledged
                assert got == data or int.from_bytes(got[:8], "big") > int.from_bytes(data[:8], "big"), f"block {number} was lost"


def progress(guest):
    """The guest's writes go on, counted by the guest itself."""
    before = dict(guest.acknowledged)
    deadline = time.monotonic() + T.DEADLINE
    while guest.failed is None and guest.acknowledged == before:
        assert time.monotonic() < deadline, "the guest stands still\n" + guest.tap.log()
        time.sleep(0.002)
    assert guest.failed is None, guest.failed


# --- the cases ---------------------------------------------------------------------------------------------


def life(place):
    path = place.image("life")
    tap = place.tap(path)
    status = tap.status()
    assert status["state"] == "inactive" and status["serving"] == "0" and status["size"] == str(SIZE), status
    info = subprocess.run(["nbdinfo", "--size", tap.uri()], capture_output=True, text=True, timeout=60)
    assert info.stdout.strip() == str(SIZE), info.stdout + info.stderr
    assert tap.call("pause")["state"] == "inactive"
    for _ in range(2):
        assert tap.call("activate") == {"state": "active"}
    qemu_io(tap, "write -P 5 1M 64k", "flush", "read -P 5 1M 64k", "write -z 1M 32k", "read -P 0 1M 32k", "discard 2M 1M")
    for _ in range(2):
        assert tap.call("pause") == {"state": "paused"}
    assert tap.spec()["state"] == "paused"
    assert tap.call("resume") == {"state": "active"}
    status = tap.status()
    assert int(status["writes"]) >= 2 and int(status["bytes_written"]) == 65536 and status["errors"] == "0", status
    for _ in range(2):
        assert tap.call("deactivate") == {"state": "inactive"}
    tap.call("activate")
    tap.call("quit")
    assert tap.ended() == 0
    assert tap.spec()["state"] == "inactive"


def refusals(place):
    path = place.image("refusals")
    tap = place.tap(path, state="active")
    control = tap.control()
    for words in ("nonsense", "start", "shutdown"):
        refused(lambda: control.call(words), "unknown verb")
    for raw in (b"two  blanks\n", b"\n", b"VERB\n", b"status a\n", b"status a=b a=c\n"):
        control.sock.sendall(raw)
        refused(control.answer, "malformed")
    assert control.call("status")["state"] == "active"
    control.sock.sendall(b"x" * 20000)
    refused(control.answer, "too long")
    try:
        assert control.sock.recv(100) == b""
    except ConnectionResetError:
        pass  # not all of it was read
    refused(lambda: tap.call("resize", size=512))
    refused(lambda: tap.call("resize", size=SIZE + 100))
    refused(lambda: tap.call("resize", size=2 * SIZE))
    refused(lambda: tap.call("throttle", bytes=-1))
    refused(lambda: tap.call("adopt"), "descriptor")
    refused(lambda: tap.call("listen", address="127.0.0.1", port=70000))
    refused(lambda: tap.call("listen", address="127.0.0.1", port=0, tls=1))
    refused(lambda: tap.call("mirror-start", format="raw", path=place.image("small", MIB)), "too small")
    refused(lambda: tap.call("mirror-start", format="raw", path="/nowhere/at/all"))
    refused(lambda: tap.call("mirror-start", format="odd", path=path), "no such format")
    refused(lambda: tap.call("mirror-start", format="raw", path=place.image("x"), mode="sideways"), "malformed")
    refused(lambda: tap.call("mirror-start", format="raw", path=path), "in use")
    refused(lambda: tap.call("mirror-switch"))
    refused(lambda: tap.call("mirror-set", bandwidth=1))
    tap.call("mirror-end")
    tap.call("mirror-abort")
    assert tap.spec()["mirror"] == "" and tap.status()["mirror"] == "none"
    refused(lambda: place.tap(path).call("activate"), "in use")
    second = subprocess.run([T.PROGRAM, tap.dir], capture_output=True, text=True, timeout=60)
    assert second.returncode == 1 and "another tapd" in second.stderr, second.stderr
    for args in ([], ["--what"], [tap.dir, "--what"], ["serve"], ["copy", "a"], ["serve", "x", "--listen"]):
        assert subprocess.run([T.PROGRAM] + args, capture_output=True, timeout=60).returncode == 2, args
    empty = os.path.join(place.dir, "empty")
    os.makedirs(empty)
    assert subprocess.run([T.PROGRAM, empty], capture_output=True, timeout=60).returncode == 1
    assert subprocess.run([T.PROGRAM, "--version"], capture_output=True, timeout=60).returncode == 0


def in_order(place):
    """Requests sent at once on one connection are answered in order; status on another one does not wait."""
    tap = place.tap(place.image("order"))
    control = tap.control()
    for verb in ("activate", "pause", "status", "resume", "deactivate", "status", "activate", "status"):
        control.send(verb)
    answers = [control.answer() for _ in range(8)]
    assert [a["state"] for a in answers] == ["active", "paused", "paused", "active", "inactive", "inactive", "active", "active"], answers
    gone = tap.control()
    gone.send("pause")
    gone.close()  # nobody waits for the answer
    tap.wait(lambda s: s["state"] == "paused")
    tap.call("resume")


def chains(place):
    one, two = place.image("one"), place.image("two", 2 * SIZE)
    tap = place.tap(one, state="active")
    guest = Guest(tap)
    progress(guest)
    tap.call("pause")
    shutil.copyfile(one, os.path.join(place.dir, "copy"))
    guest_at_pause = dict(guest.acknowledged)
    refused(lambda: tap.call("resume", format="raw", path="/nowhere"), "/nowhere")
    assert tap.status()["state"] == "paused" and tap.spec()["path"] == one
    with open(two, "r+b") as f, open(one, "rb") as g:
        f.write(g.read())
    assert tap.call("resume", format="raw", path=two)["state"] == "active"
    progress(guest)
    guest.end()
    status = tap.status()
    assert status["path"] == two and status["size"] == str(2 * SIZE) and tap.spec()["path"] == two, status
    tap.call("deactivate")
    guest.check(two)
    with open(one, "rb") as f:  # nothing went there after the pause
        for number, data in guest_at_pause.items():
            f.seek(number * 4096)
            f.read(4096)
    tap.call("resume", format="raw", path=one)
    assert tap.status()["state"] == "inactive" and tap.spec()["path"] == one


def grown(place):
    path = place.image("grown")
    tap = place.tap(path, state="active")
    os.truncate(path, 2 * SIZE)
    tap.call("resize", size=2 * SIZE)
    qemu_io(tap, f"write -P 9 {SIZE} 64k", f"read -P 9 {SIZE} 64k")
    tap.call("pause")
    os.truncate(path, 3 * SIZE)
    tap.call("resize", size=3 * SIZE)
    tap.call("resume")
    assert tap.status()["size"] == str(3 * SIZE) and tap.spec()["size"] == str(3 * SIZE)


def throttled(place):
    tap = place.tap(place.image("slow"), state="active")
    tap.call("throttle", operations=20)
    tap.kill()
    tap.start()
    assert tap.spec()["throttle_operations"] == "20"  # kept
    began = time.monotonic()
    qemu_io(tap, *["write 0 4k"] * 30)
    assert time.monotonic() - began > 0.5, "no throttle at all"
    tap.call("throttle")
    qemu_io(tap, *["write 0 4k"] * 30)


def adopted(place):
    tap = place.tap(place.image("adopted"), state="active")
    ours, theirs = socket.socketpair()
    tap.call("adopt", fd=theirs.fileno(), read_only=1, tls=0)
    theirs.close()
    ours.settimeout(T.DEADLINE)
    assert Guest.take(ours, 18)[:8] == b"NBDMAGIC"
    assert tap.status()["clients"] == "1"
    ours.close()
    tap.wait(lambda s: s["clients"] == "0")
    port = int(tap.call("listen", address="127.0.0.1", port=0)["port"])
    assert port > 0
    subprocess.run(["nbdinfo", "--size", f"nbd://127.0.0.1:{port}/"], check=True, capture_output=True, timeout=60)
    tap.call("unlisten")
    assert subprocess.run(["nbdinfo", "--size", f"nbd://127.0.0.1:{port}/"], capture_output=True, timeout=60).returncode != 0


def faults(place):
    tap = place.tap(place.image("faults"), state="active")
    tap.call("fault-arm", spec="tapd.write=error")
    assert "error" in qemu_io(tap, "write 0 4k", check=False).lower()
    tap.call("fault-arm", spec="tapd.write=enospc,tapd.flush=error")
    refused(lambda: tap.call("pause"), "flushing")
    assert tap.status()["state"] == "active" and tap.status()["serving"] == "1"
    tap.call("fault-arm", spec="")
    qemu_io(tap, "write 0 4k", "flush")
    refused(lambda: tap.call("fault-arm", spec="what"), "malformed")
    tap.kill()
    tap.args = []
    tap.start()
    refused(lambda: tap.call("fault-arm", spec="tapd.write=error"), "not allowed")


def killed_in_every_state(place, threads=False):
    path = place.image("killed")
    tap = place.tap(path)
    if threads:
        tap.kill()
        tap.args.append("--threads")
        tap.start()
        assert tap.status()["io"] == "threads"
    guest = Guest(tap)
    for state, verb in (("inactive", None), ("active", "activate"), ("paused", "pause")):
        if verb:
            tap.call(verb)
        if state == "active":
            progress(guest)
        tap.kill()
        tap.start()
        status = tap.wait(lambda s: s["state"] == state and (state != "active" or s["serving"] == "1"))
        assert state == "active" or status["serving"] == "0", status
        if state == "active":
            progress(guest)
    assert tap.call("resume") == {"state": "active"}
    progress(guest)
    for _ in range(10):
        tap.kill()
        tap.start()
        progress(guest)
    tap.kill(signal.SIGTERM)
    assert "stays" not in tap.log() and tap.spec()["state"] == "active"
    tap.start()
    progress(guest)
    guest.end()
    tap.call("deactivate")
    guest.check(path)


def cannot_open_at_the_start(place):
    path = place.image("later")
    os.rename(path, path + ".away")
    tap = place.tap(path, state="active")
    guest = Guest(tap)
    assert tap.wait(lambda s: "cannot be served" in tap.log())["serving"] == "0"
    refused(lambda: tap.call("activate"))
    os.rename(path + ".away", path)
    tap.wait(lambda s: s["serving"] == "1")
    progress(guest)
    guest.end()


def mirrored(place, kill_at=None, with_signal=signal.SIGKILL):
    """A mirror under a writing guest; with tapd killed when it is in the state kill_at."""
    name = f"mirror-{kill_at}-{int(with_signal)}"
    source, target = place.image(name), place.image(name + "-target")
    tap = place.tap(source, state="active")
    qemu_io(tap, "write -P 3 8M 16M")
    guest = Guest(tap)
    progress(guest)
    slow = {"bandwidth": 20 * MIB} if kill_at == "copying" else {}
    tap.call("mirror-start", format="raw", path=target, proof=1, **slow)
    refused(lambda: tap.call("mirror-start", format="raw", path=target), "already")
    refused(lambda: tap.call("mirror-end"), "under way")
    refused(lambda: tap.call("resize", size=2 * SIZE), "mirror")
    refused(lambda: tap.call("resume", format="raw", path=target), "mirror")
    if kill_at == "copying":
        tap.wait(lambda s: int(s["mirror_copied"]) > 0)
        tap.kill(with_signal)
        tap.start()
        status = tap.wait(lambda s: s["serving"] == "1")
        assert status["mirror"] in ("copying", "following"), status
        tap.call("mirror-set", bandwidth=0)
    tap.wait(lambda s: s["mirror"] == "following")
    if kill_at == "following":
        tap.kill(with_signal)
        tap.start()
        tap.wait(lambda s: s["mirror"] == "following")
    tap.call("mirror-switch")
    if kill_at == "switching":
        tap.kill(with_signal)
        tap.start()
        status = tap.wait(lambda s: s["serving"] == "1")
        if status["mirror"] != "switched":
            assert status["path"] == source, status
            tap.wait(lambda s: s["mirror"] in ("following", "switched"))
            tap.call("mirror-switch")
    tap.wait(lambda s: s["mirror"] == "switched")
    assert tap.spec()["path"] == target and tap.status()["path"] == target
    progress(guest)
    if kill_at == "switched":
        tap.kill(with_signal)
        tap.start()
        status = tap.wait(lambda s: s["serving"] == "1")
        assert status["mirror"] == "switched" and status["path"] == target, status
        progress(guest)
    refused(lambda: tap.call("mirror-abort"), "switched")
    tap.call("mirror-end")
    assert tap.status()["mirror"] == "none" and tap.spec()["mirror_options"] == ""
    assert not os.path.exists(tap.path("map"))
    progress(guest)
    guest.end()
    tap.call("quit")
    tap.ended()
    guest.check(target)
    with open(target, "rb") as f:
        f.seek(8 * MIB)
        assert f.read(16 * MIB) == b"\3" * (16 * MIB)


def aborted_and_deactivated(place):
    source, target = place.image("abort"), place.image("abort-target")
    tap = place.tap(source, state="active")
    guest = Guest(tap)
    progress(guest)
    tap.call("mirror-start", format="raw", path=target, bandwidth=MIB)
    tap.call("mirror-abort")
    assert tap.status()["mirror"] == "none" and tap.spec()["mirror"] == "" and tap.status()["path"] == source
    progress(guest)
    tap.call("mirror-start", format="raw", path=target)  # the target is free again
    tap.call("deactivate")
    status = tap.status()
    assert status["mirror"] == "failed" and "deactivated" in status["mirror_error"], status
    tap.kill()
    tap.start()
    assert tap.status()["mirror"] == "failed"
    tap.call("mirror-end")
    assert tap.status()["mirror"] == "none"
    tap.call("activate")
    tap.call("mirror-start", format="raw", path=target)
    tap.kill()
    os.unlink(target)
    tap.start()
    status = tap.wait(lambda s: s["serving"] == "1")
    assert status["mirror"] == "failed" and status["mirror_error"], status
    progress(guest)
    tap.call("mirror-abort")
    guest.end()
    tap.call("deactivate")
    guest.check(source)


def copied(place):
    source, target = place.image("copy-source"), place.image("copy-target")
    tap = place.tap(source, state="active")
    qemu_io(tap, "write -P 7 3M 5M")
    tap.call("mirror-start", format="raw", path=target, mode="copy")
    tap.wait(lambda s: s["mirror"] == "done")
    refused(lambda: tap.call("mirror-switch"))
    tap.call("mirror-end")
    tap.call("mirror-start", format="raw", path=place.image("point-target"), mode="point")
    tap.wait(lambda s: s["mirror"] == "done")
    tap.call("quit")
    tap.ended()
    subprocess.run(["cmp", source, target], check=True, timeout=60)
    subprocess.run(["cmp", source, os.path.join(place.dir, "point-target")], check=True, timeout=60)
    by_hand = place.image("by-hand")
    done = subprocess.run([T.PROGRAM, "copy", "--proof", source, "raw:" + by_hand], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.startswith("total "), done.stdout + done.stderr
    subprocess.run(["cmp", source, by_hand], check=True, timeout=60)
    done = subprocess.run([T.PROGRAM, "copy", source, place.image("tiny", MIB)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "smaller" in done.stderr, done.stderr


def served(place):
    """tapd serve, over a socket and over TCP, and tapd copy from one to the other."""
    source, target = place.image("serve-source"), place.image("serve-target")
    with open(source, "r+b") as f:
        f.write(os.urandom(3 * MIB))
    sock = os.path.join(place.dir, "s")
    one = subprocess.Popen([T.PROGRAM, "serve", source, "--socket", sock, "--read-only"], stdout=subprocess.PIPE, text=True)
    two = subprocess.Popen([T.PROGRAM, "serve", "raw:" + target, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
    try:
        assert one.stdout.readline().strip() == f"socket {sock}"
        port = two.stdout.readline().split()[1]
        done = subprocess.run([T.PROGRAM, "copy", "--proof", f"nbd+unix:///?socket={sock}", f"nbd://127.0.0.1:{port}/"],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
    finally:
        for p in (one, two):
            p.terminate()
            assert p.wait(60) == 0
            p.stdout.close()
    subprocess.run(["cmp", source, target], check=True, timeout=60)


def on_a_device(place):
    """A loop device, whole and in pieces."""
    backing = place.image("backing")
    made = subprocess.run(["losetup", "--find", "--show", backing], capture_output=True, text=True)
    if made.returncode != 0:
        print("no loop devices here: not tried")
        return
    device = made.stdout.strip()
    try:
        tap = place.tap(device, state="active")
        qemu_io(tap, "write -P 1 0 1M", "write -z 64k 64k", "discard 128k 64k", "flush", "read -P 1 0 64k", "read -P 0 64k 64k")
        tap.call("quit")
        tap.ended()
        half = SIZE // 2
        tap = place.tap(f"segments:{device}@{half}+{half};{device}@0+{half}", state="active")
        qemu_io(tap, f"read -P 1 {half} 64k", f"write -P 2 {half - 4096} 8k", "flush", f"read -P 2 {half - 4096} 8k")
        tap.call("quit")
        tap.ended()
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
    with open(backing, "rb") as f:
        assert f.read(4096) == b"\2" * 4096


CASES = [
    life, refusals, in_order, chains, grown, throttled, adopted, faults, killed_in_every_state,
    lambda place: killed_in_every_state(place, threads=True),
    cannot_open_at_the_start, mirrored,
    *[lambda place, s=s: mirrored(place, s) for s in ("copying", "following", "switching", "switched")],
    lambda place: mirrored(place, "copying", signal.SIGTERM),
    aborted_and_deactivated, copied, served, on_a_device,
]


if __name__ == "__main__":
    sys.exit(T.run_cases(Place, CASES, ("nbdinfo", "qemu-io", "cmp"), sys.argv[1:]))
