"""The rows of the memory table that are about the stream: a paused guest's memory from one process to another."""
import os
import subprocess

from disk_rows import STUNNEL, certificate
from disk_tools import Process, free_port
from mem_qemu import Cost, send_paused
from pairs import Failed, Row, judge, middle, take_pairs

SECTIONS = {}
SECONDS = 120
GIB = 1 << 30


def section(name, about):
    def register(function):
        SECTIONS[name] = (function, about)
        return function
    return register


# --- ours, and what is made in the same way -------------------------------------------------------------------------

class End:
    """bench_memory receive or send: its words, when it says them."""

    def __init__(self, bench, *words):
        self.log = open(bench.path("bench_memory.log"), "ab")
        self.process = subprocess.Popen([bench.program("bench_memory"), *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=self.log, text=True)

    def port(self):
        words = self.process.stdout.readline().split()
        if words[:1] != ["port"]:
            raise Failed("bench_memory does not listen")
        return int(words[1])

    def result(self):
        """(seconds, cpu, bytes)"""
        try:
            out = self.process.communicate(timeout=SECONDS)[0].split()
        except subprocess.TimeoutExpired:
            raise Failed(f"bench_memory took longer than {SECONDS} s") from None
        if self.process.returncode != 0 or len(out) != 3:
            raise Failed(f"bench_memory ended with {self.process.returncode}")
        return float(out[0]), float(out[1]), int(out[2])

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()


def transfer(bench, memory, shape, *words, tls=False, through_stunnel=False, check=False):
    """What it costs to take a file's memory to another process."""
    ends, proxies = [], []
    try:
        mib = os.stat(memory).st_size >> 20
        more = ([f"tls={certificate(bench)}"] if tls else []) + ([f"check={memory}"] if check else [])
        receiver = End(bench, "receive", f"shape={shape}", f"mib={mib}", *words, *more)
        ends.append(receiver)
        port = receiver.port()
        if through_stunnel:
            outer, inner = free_port(), free_port()
            proxies += [stunnel(bench, "server", outer, port), stunnel(bench, "client", inner, outer)]
            port = inner
        sender = End(bench, "send", f"shape={shape}", f"memory={memory}", f"port={port}", *words, *(["tls=1"] if tls else []))
        ends.append(sender)
        seconds, cpu, sent = sender.result()
        cpu += receiver.result()[1]
        return Cost(seconds, cpu + sum(proxy.end() for proxy in proxies), sent)
    finally:
        for proxy in proxies:
            proxy.end(9)
        for end in ends:
            end.stop()


def stunnel(bench, kind, accept, connect):
    """That it listens is not tried out by connecting: behind it somebody waits for one connection."""
    config = bench.path(f"stunnel-{accept}.conf")
    with open(config, "w") as f:
        f.write(STUNNEL.format(log=bench.path("stunnel.log"), where="client = yes" if kind == "client" else f"cert = {certificate(bench)}",
                               accept=accept, connect=connect))
    return Process(["stunnel", config], listens_quietly(accept), log=bench.path("stunnel.out"))


def listens_quietly(port):
    line = f":{port:04X} 00000000:0000 0A "

    def ready():
        with open("/proc/net/tcp") as f:
            return any(line in row for row in f)
    return ready


# --- rows ----------------------------------------------------------------------------------------------------------

def speed_row(name, target, taken):
    row = judge(Row(name, (">=", target), ratio="speed"), taken, lambda p: p.peer.seconds / p.ours.seconds)
    row.ours, row.peer = (f"{middle(taken[0], lambda p: side(p).seconds):.2f} s" for side in (lambda p: p.ours, lambda p: p.peer))
    return row


def cpu_row(name, target, taken, gib):
    row = judge(Row(name, ("<=", target), ratio="CPU"), taken, lambda p: p.ours.cpu / p.peer.cpu)
    row.ours, row.peer = (f"{middle(taken[0], lambda p: side(p).cpu / gib):.2f} s/GiB" for side in (lambda p: p.ours, lambda p: p.peer))
    return row


def against(bench, name, ours, peer, speed, cpu):
    taken = take_pairs(bench.plan(60), ours, peer)
    gib = bench.mib * (1 << 20) / GIB
    return [cpu_row(f"{name}-cpu", cpu, taken, gib), speed_row(name, speed, taken)]


def engine(bench, *words, **how):
    """The engine's way; what arrived is compared in the first of them."""
    compared = []

    def take():
        cost = transfer(bench, bench.corpus(), "engine", *words, check=not compared, **how)
        compared.append(True)
        return cost
    return take


@section("qemu", "a paused guest's memory, plain: the engine over 2 connections and over 1 against QEMU's migration, multifd 2 and off")
def qemu(bench):
    rows = []
    for name, streams, multifd, speed, cpu in (("qemu-multifd-2", 2, 2, 1.0, 1.0), ("qemu-single", 1, 0, None, None)):
        rows += against(bench, name, engine(bench, f"streams={streams}"), lambda n=multifd: send_paused(bench, bench.corpus(), bench.mib, n), speed, cpu)
    rows[0].note = f"stretch 0.85: {'met' if rows[0].median <= 0.85 else 'not met'}"
    return rows


@section("bare", "the same against a socket copy of all the bytes into fresh memory, and the plain v3 stream's shape")
def bare(bench):
    rows = []
    for shape in ("bare", "libxc"):
        rows += against(bench, f"{shape}-copy", engine(bench), lambda s=shape: transfer(bench, bench.corpus(), s), None, None)
    return rows


@section("tls", "the engine over TLS (2 connections) against the libxc-shaped stream through a pair of stunnels")
def tls(bench):
    return against(bench, "encrypted", engine(bench, "streams=2", tls=True),
                   lambda: transfer(bench, bench.corpus(), "libxc", through_stunnel=True), 3.0, None)


@section("compress", "compression that pays for itself: auto against off on a link that needs none")
def compress(bench):
    taken = take_pairs(bench.plan(60), engine(bench, "streams=2", "compress=auto"), engine(bench, "streams=2"))
    return [speed_row("compress-auto", 0.97, taken)]


# --- bytes ----------------------------------------------------------------------------------------------------------

def libxc_part(image, stream):
    """The libxc stream inside the framing: behind the signature (15), the Xenops record and the Libxc record's head; the
    framing's End is behind it."""
    with open(image, "rb") as f:
        f.seek(15 + 8)
        state = int.from_bytes(f.read(8), "little")
        f.seek(15 + 16 + state + 16)
        left = os.stat(image).st_size - f.tell() - 16
        with open(stream, "wb") as out:
            while left > 0:
                left -= out.write(f.read(min(left, 1 << 20)))


def verifier(bench):
    """Xen's verify-stream-v2, unpacked from Debian's package; None: it cannot be had."""
    place = os.path.join(bench.build, "xen-utils")
    if not os.path.isdir(os.path.join(place, "root")):
        os.makedirs(place, exist_ok=True)
        done = subprocess.run("apt-get -q download xen-utils-4.17 && dpkg -x xen-utils-4.17_*.deb unpacking && mv unpacking root", shell=True,
                              cwd=place, capture_output=True)
        if done.returncode != 0:
            return None
    root = os.path.join(place, "root", "usr", "lib")
    xen = next(os.path.join(root, name) for name in os.listdir(root) if name.startswith("xen-") and os.path.exists(os.path.join(root, name, "bin")))
    return {"PYTHONPATH": os.path.join(xen, "lib", "python")}, os.path.join(xen, "bin", "verify-stream-v2")


@section("bytes", "what goes over the wire, against the plain v3 stream; accepted by Xen's verify-stream-v2")
def wire(bench):
    plain = transfer(bench, bench.corpus(), "libxc").bytes
    sent = transfer(bench, bench.corpus(), "engine").bytes
    row = Row("wire-bytes", ("<=", 0.52), ours=f"{sent / 1e6:.0f} MB", peer=f"{plain / 1e6:.0f} MB", ratio="bytes", median=sent / plain,
              worst=sent / plain, pairs=1)
    found = verifier(bench)
    if found is None:
        row.failure = "there is no xen-utils-4.17 to verify it with"
        return [row]
    image, stream = bench.path("image"), bench.path("stream")
    try:
        done = subprocess.run([bench.program("bench_memory"), "save", f"memory={bench.corpus()}", f"file={image}"], capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(done.stderr)
        libxc_part(image, stream)
        environment, program = found
        done = subprocess.run(["python3", "-B", program, "-f", "libxc", "-i", stream], env=dict(os.environ, **environment), capture_output=True, text=True)
        if done.returncode != 0:
            row.failure = f"verify-stream-v2: {(done.stdout + done.stderr).strip()[-200:]}"
        row.note = "accepted by verify-stream-v2" if row.failure is None else ""
    finally:
        for path in (image, stream):
            if os.path.exists(path):
                os.unlink(path)
    return [row]
