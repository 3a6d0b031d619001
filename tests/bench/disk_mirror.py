"""The rows of the disk table that mirror a disk under a writing guest, against qemu-storage-daemon's blockdev-mirror.

The guest is fio over NBD; the link to the target is 200 MB/s on both sides: the peer's by nbdkit's rate filter, ours by
our own bandwidth option, with the proof on. Time to converge is judged by a fluid model of link and writer."""
import functools
import json
import math
import os
import shutil
import signal
import socket
import time
import urllib.parse

from disk_rows import section, tapd_serve
from disk_tools import Process, exists, free_port, fresh
from pairs import Failed, Row, judge, middle, take_pairs

LINK = 200e6       # bytes a second
BEFORE, AFTER = 2.0, 1.0  # seconds of writing before the mirror begins, and after it has converged
LIMIT = 20.0       # seconds to converge
WORKLOADS = {      # name: (block size, bytes a second)
    "4k-8": (4096, 0.08 * LINK), "4k-24": (4096, 0.24 * LINK), "64k-90": (65536, 0.90 * LINK), "64k-150": (65536, 1.50 * LINK),
}


def fluid(size, writes, link=LINK, left=0.0):
    """Seconds until a mirror of 'size' bytes under random writes has 'left' bytes dirty; None: never. During the first
    pass a part gets dirty behind the head, then d' = (w(1 - d) - L) / S."""
    ratio = writes / link
    now = size / link
    dirty = size * (1 - (1 - math.exp(-ratio)) / ratio)
    step = 0.0005
    while dirty > left:
        slope = writes * (1 - dirty / size) - link
        if slope >= 0:
            return None
        dirty += slope * step
        now += step
        if now > 1000:
            return None
    return now


# --- the guest ------------------------------------------------------------------------------------------------------

class Guest:
    """fio that writes all the time; its latencies with the time of day they ended at. Each write goes to any place, as in the
    model (with its map of places fio would come to each once, then to all of them again in the same order)."""

    def __init__(self, bench, uri, workload, size, seconds):
        block, rate = WORKLOADS[workload]
        self.dir = bench.path("fio")
        shutil.rmtree(self.dir, ignore_errors=True)
        os.makedirs(self.dir)
        self.process = Process(["fio", "--name=guest", "--ioengine=nbd", f"--uri={uri}", "--rw=randwrite", "--norandommap", f"--bs={block}", "--iodepth=8",
                                f"--size={size}", "--time_based", f"--runtime={seconds}", f"--rate={int(rate)}", "--randrepeat=1", "--randseed=7",
                                "--write_lat_log=guest", "--log_unix_epoch=1", "--output=out"], log=bench.path("fio.log"), cwd=self.dir)

    def stop(self):
        """[(end, microseconds)] of all its writes."""
        self.process.process.send_signal(signal.SIGINT) if self.process.status is None else None
        self.process.wait(60)
        writes = []
        with open(os.path.join(self.dir, "guest_lat.1.log")) as log:
            for line in log:
                at, took = line.split(",")[:2]
                writes.append((int(at) / 1000, int(took) / 1000))
        return writes

    def kill(self):
        self.process.end(signal.SIGKILL)


def percentile(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, int(part * len(values)))] if values else 0.0


class Outcome:
    """What one mirror under one guest gave. Times in seconds since it began; latencies in microseconds."""

    def __init__(self, converged, switch, told, began, writes, switched, pause_us=None):
        self.converged, self.told, self.pause_us = converged, told, pause_us
        during = [us for end, us in writes if began <= end <= began + (converged or LIMIT)]
        around = [us for end, us in writes if switch and switch - 0.01 <= end <= switched + 0.3]
        before = [us for end, us in writes if began - 1.5 <= end < began]
        self.p99, self.p99_before = percentile(during, 0.99), percentile(before, 0.99)
        self.worst_at_switch = max(around, default=0.0)
        self.written = len(during)


# --- ours --------------------------------------------------------------------------------------------------------------

class Tapd:
    """A tapd with a directory, and its control socket."""

    def __init__(self, bench, image):
        self.dir = bench.path("tap")
        shutil.rmtree(self.dir, ignore_errors=True)
        os.makedirs(self.dir)
        spec = {"key": "bench/disk", "format": "raw", "path": image, "read_only": "0", "cached": "1", "size": str(os.stat(image).st_size),
                "state": "active", "cbt": "", "mirror": "", "mirror_options": "", "users": "bench"}
        with open(os.path.join(self.dir, "spec"), "w") as f:
            f.write(self.line("spec", spec))
        self.process = Process([bench.tapd, self.dir], exists(os.path.join(self.dir, "control")), log=bench.path("tap.log"))
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        try:
            self.process.wait_for(lambda: self.socket.connect_ex(os.path.join(self.dir, "control")) in (0, 106))
        except BaseException:
            self.process.end(signal.SIGKILL)
            raise
        self.answers = self.socket.makefile("r")

    @staticmethod
    def line(verb, words):
        return " ".join([verb] + [f"{k}={urllib.parse.quote(str(v), safe='/:.;,+@')}" for k, v in words.items()]) + "\n"

    def call(self, verb, **words):
        self.socket.sendall(self.line(verb, words).encode())
        answer = self.answers.readline().split()
        if not answer or answer[0] != "ok":
            raise Failed(f"tapd: {verb}: {urllib.parse.unquote(' '.join(answer))}")
        return {k: urllib.parse.unquote(v) for k, _, v in (word.partition("=") for word in answer[1:])}

    def uri(self):
        return f"nbd+unix:///?socket={self.dir}/nbd"

    def stop(self):
        self.socket.close()
        self.process.end()
        self.process.end(signal.SIGKILL)


def ours(bench, workload, switch=True):
    """The mirror of ours: until it has converged (or says that it will not), then the switch."""
    image, target, port = bench.image("mirror"), bench.path("mirror-target"), free_port()
    disk = bench.path("mirror-source")
    shutil.copyfile(image, disk)
    size = os.stat(disk).st_size
    server = tapd_serve(bench, f"raw:{fresh(target, size)}", port)()
    tapd = guest = None
    try:
        tapd = Tapd(bench, disk)
        guest = Guest(bench, tapd.uri(), workload, size, int(BEFORE + LIMIT + 10))
        time.sleep(BEFORE)
        began, converged, told, switched, asked, pause = time.time(), None, None, None, None, None
        tapd.call("mirror-start", format="nbd", path=f"nbd://127.0.0.1:{port}", bandwidth=int(LINK), proof=1)
        while time.time() - began < LIMIT and converged is None and (told is None or switch):
            status = tapd.call("status")
            if status["mirror"] == "failed":
                raise Failed(f"mirror: {status['mirror_error']}")
            now = time.time() - began
            if status["mirror"] == "following":
                converged = now
            if told is None and status["mirror_eta_ms"] == "-1":
                told = now
            time.sleep(0.01)
        if converged is not None and switch:
            time.sleep(AFTER)
            asked = time.time()
            tapd.call("mirror-switch")
            while switched is None and time.time() - asked < 10:
                status = tapd.call("status")
                if status["mirror"] == "failed":
                    raise Failed(f"switch: {status['mirror_error']}")
                if status["mirror"] == "switched":
                    switched, pause = time.time(), int(status["mirror_pause_us"])
                time.sleep(0.005)
            if switched is None:
                raise Failed(f"no switch within 10 s: {status['mirror']}")
            time.sleep(0.5)
        return Outcome(converged, asked, told, began, guest.stop(), switched, pause)
    finally:
        for thing, how in ((guest, "kill"), (tapd, "stop"), (server, "end")):
            if thing is not None:
                getattr(thing, how)()


# --- the peer --------------------------------------------------------------------------------------------------------------

class Qmp:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(path)
        self.lines, self.events = self.socket.makefile("r"), []
        self.lines.readline()
        self.call("qmp_capabilities")

    def call(self, command, **arguments):
        self.socket.sendall((json.dumps({"execute": command, "arguments": arguments}) + "\n").encode())
        while True:
            answer = json.loads(self.lines.readline())
            if "event" in answer:
                self.events.append(answer["event"])
            elif "error" in answer:
                raise Failed(f"{command}: {answer['error']['desc']}")
            else:
                return answer["return"]

    def saw(self, event):
        self.call("query-block-jobs")
        return event in self.events


def theirs(bench, workload):
    """blockdev-mirror in the background, with our granularity: with its own it does not converge at all."""
    image, target, port = bench.image("mirror"), bench.path("mirror-target"), free_port()
    disk, qmp_path, nbd, pidfile = (bench.path(name) for name in ("mirror-source", "qsd.qmp", "qsd.nbd", "nbdkit-rate.pid"))
    shutil.copyfile(image, disk)
    size = os.stat(disk).st_size
    fresh(target, size)
    for path in (qmp_path, nbd, pidfile):
        if os.path.exists(path):
            os.unlink(path)
    server = Process(["nbdkit", "-f", "-t", "16", "-P", pidfile, "-i", "127.0.0.1", "-p", str(port), "--filter=rate", "file", target,
                      f"rate={int(LINK * 8)}", "burstiness=0.1"], exists(pidfile), log=bench.path("nbdkit.log"))
    daemon = guest = None
    try:
        daemon = Process(["qemu-storage-daemon", "--blockdev", f"driver=file,node-name=disk,filename={disk}", "--nbd-server", f"addr.type=unix,addr.path={nbd}",
                          "--export", "type=nbd,id=e,node-name=disk,name=disk,writable=on", "--chardev", f"socket,path={qmp_path},server=on,wait=off,id=c",
                          "--monitor", "chardev=c"], lambda: os.path.exists(nbd) and os.path.exists(qmp_path), log=bench.path("qsd.log"))
        qmp = Qmp(qmp_path)
        guest = Guest(bench, f"nbd+unix:///disk?socket={nbd}", workload, size, int(BEFORE + LIMIT + 10))
        time.sleep(BEFORE)
        began, converged = time.time(), None
        qmp.call("blockdev-add", **{"driver": "nbd", "node-name": "target", "export": "", "server": {"type": "inet", "host": "127.0.0.1", "port": str(port)}})
        qmp.call("blockdev-mirror", **{"job-id": "mirror", "device": "disk", "target": "target", "sync": "full", "copy-mode": "background", "granularity": 4096})
        while time.time() - began < LIMIT and converged is None:
            if qmp.saw("BLOCK_JOB_READY"):
                converged = time.time() - began
            time.sleep(0.01)
        switch = switched = None
        if converged is not None:
            time.sleep(AFTER)
            switch = time.time()
            qmp.call("job-complete", id="mirror")
            while not qmp.saw("BLOCK_JOB_COMPLETED") and time.time() - switch < 10:
                time.sleep(0.005)
            switched = time.time()
            time.sleep(0.5)
        return Outcome(converged, switch, None, began, guest.stop(), switched)
    finally:
        for thing, how in ((guest, "kill"), (daemon, "end"), (server, "end")):
            if thing is not None:
                getattr(thing, how)()


# --- rows ------------------------------------------------------------------------------------------------------------------------

def all_converged(name, taken):
    lost = [p for p in taken[0] if p.ours.converged is None]
    if lost:
        raise Failed(f"{name}: converged {len(taken[0]) - len(lost)} of {len(taken[0])} within {LIMIT:.0f} s")


def mirror_rows(bench, workload):
    name, size = f"mirror-{workload}", os.stat(bench.image("mirror")).st_size
    model = fluid(size, WORKLOADS[workload][1])
    taken = take_pairs(bench.plan(90, bench.mirror_pairs), lambda: ours(bench, workload), lambda: theirs(bench, workload))
    all_converged(name, taken)
    pairs, n = taken[0], len(taken[0])

    def peer_time(pair):
        return pair.peer.converged or LIMIT
    rows = [judge(Row(name, ("<=", 1.1), ratio="time/model"), taken, lambda p: p.ours.converged / model),
            judge(Row(f"{name}-p99", ("<=", 0.5), ratio="p99"), taken, lambda p: p.ours.p99 / max(p.peer.p99, 1)),
            judge(Row(f"{name}-switch", ("<=", 10.0), ratio="worst ms"), taken, lambda p: p.ours.worst_at_switch / 1000)]
    rows[0].ours, rows[0].peer = f"{middle(pairs, lambda p: p.ours.converged):.2f} s", f"{middle(pairs, peer_time):.2f} s"
    rows[0].note = (f"model {model:.2f} s; converged {n} of {n} against {sum(p.peer.converged is not None for p in pairs)} of {n}; "
                    f"false alarms {sum(p.ours.told is not None for p in pairs)}")
    rows[1].ours, rows[1].peer = (f"{middle(pairs, lambda p: side(p).p99) / 1000:.2f} ms" for side in (lambda p: p.ours, lambda p: p.peer))
    rows[1].note = "before the mirror: " + " against ".join(f"{middle(pairs, lambda p: side(p).p99_before) / 1000:.2f} ms" for side in (lambda p: p.ours, lambda p: p.peer))
    rows[2].ours, rows[2].peer = (f"{middle(pairs, lambda p: side(p).worst_at_switch) / 1000:.1f} ms" for side in (lambda p: p.ours, lambda p: p.peer))
    rows[2].note = f"held {middle(pairs, lambda p: p.ours.pause_us) / 1000:.1f} ms"
    return rows


for _workload in ("4k-8", "4k-24", "64k-90"):
    section(f"mirror-{_workload}", "a disk under a writing guest to a link of 200 MB/s, against qemu-storage-daemon's blockdev-mirror")(
        functools.partial(mirror_rows, workload=_workload))


@section("mirror-diverges", "a guest that writes faster than the link: seconds until it is told that it will not converge")
def diverges(bench):
    row = Row("mirror-diverges", ("<=", 3.0), ratio="seconds")
    taken = take_pairs(bench.plan(60, bench.mirror_pairs), lambda: ours(bench, "64k-150", switch=False), lambda: None)
    judge(row, taken, lambda p: p.ours.told if p.ours.told is not None else LIMIT)
    row.ours = f"{row.median:.2f} s"
    return [row]
