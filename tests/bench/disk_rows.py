"""The rows of the disk table that copy: each is one way of copying an image against a peer's."""
import os
import shutil
import subprocess
import time

from disk_tools import Cost, Process, copy_cost, data_of, exists, free_port, fresh, listens, same
from pairs import Failed, Row, judge, middle, take_pairs

SECTIONS = {}


def section(name, about):
    def register(function):
        SECTIONS[name] = (function, about)
        return function
    return register


# --- servers --------------------------------------------------------------------------------------------------

def tapd_serve(bench, image, port, tls=None):
    argv = [bench.tapd, "serve", "--cached", "--listen", f"127.0.0.1:{port}"] + (["--tls", tls] if tls else []) + [image]
    return lambda: Process(argv, listens(port), log=bench.path("tapd.log"))


def nbdkit(bench, image, port, *words):
    pidfile = bench.path(f"nbdkit-{port}.pid")
    argv = ["nbdkit", "-f", "-t", "16", "-P", pidfile, "-i", "127.0.0.1", "-p", str(port), *words, "file", image]

    def start():
        if os.path.exists(pidfile):
            os.unlink(pidfile)
        return Process(argv, exists(pidfile), log=bench.path("nbdkit.log"))
    return start


# --- the two ways of copying -------------------------------------------------------------------------------------

class Copies:
    """One image, ours and the peer's way of copying it; what ours made is compared once."""

    def __init__(self, bench, image):
        self.bench, self.source = bench, bench.image(image)
        self.size, self.compared = os.stat(self.source).st_size, False
        self.target = bench.path("target")

    def run(self, servers, client):
        cost = copy_cost(servers, client, self.bench.path("client.log"))
        return cost

    def ours(self, *options):
        def take():
            port = free_port()
            fresh(self.target, self.size)
            cost = self.run([tapd_serve(self.bench, f"raw:{self.target}", port)],
                            [self.bench.tapd, "copy", "--cached", *options, f"raw:{self.source}", f"nbd://127.0.0.1:{port}"])
            if not self.compared:
                same(self.source, self.target)
                self.compared = True
            return cost
        return take

    def nbdcopy(self):
        port = free_port()
        fresh(self.target, self.size)
        return self.run([nbdkit(self.bench, self.target, port)], ["nbdcopy", "-C", "4", self.source, f"nbd://127.0.0.1:{port}"])

    def nbdcopy_three(self):
        port, source = free_port(), free_port()
        fresh(self.target, self.size)
        return self.run([nbdkit(self.bench, self.source, source, "-r"), nbdkit(self.bench, self.target, port)],
                        ["nbdcopy", "-C", "4", f"nbd://127.0.0.1:{source}", f"nbd://127.0.0.1:{port}"])

    def rate(self, cost):
        return data_of(self.source) / cost.seconds / 1e6

    def shown(self, cost):
        return f"{self.rate(cost):.0f} MB/s"

    def per_gib(self, cost):
        return f"{cost.cpu / data_of(self.source) * (1 << 30):.2f} s/GiB"


def speed_row(name, target, copies, taken):
    row = judge(Row(name, (">=", target), ratio="speed"), taken, lambda p: p.peer.seconds / p.ours.seconds)
    row.ours, row.peer = (f"{middle(taken[0], lambda p: copies.rate(side(p))):.0f} MB/s" for side in (lambda p: p.ours, lambda p: p.peer))
    return row


def cpu_row(name, target, copies, taken):
    row = judge(Row(name, ("<=", target), ratio="CPU"), taken, lambda p: p.ours.cpu / p.peer.cpu)
    gib = data_of(copies.source) / (1 << 30)
    row.ours, row.peer = (f"{middle(taken[0], lambda p: side(p).cpu / gib):.2f} s/GiB" for side in (lambda p: p.ours, lambda p: p.peer))
    return row


@section("copy", "file to remote file, plain: one hop of ours against nbdcopy -C4 to nbdkit")
def copy(bench):
    rows = []
    for image in ("sparse", "dense"):
        copies = Copies(bench, image)
        for proof, limit in (("", 0.85), ("-proof", 1.2)):
            taken = take_pairs(bench.plan(60), copies.ours(*(["--proof"] if proof else [])), copies.nbdcopy)
            rows += [speed_row(f"copy-{image}{proof}", 1.0 if not proof else None, copies, taken),
                     cpu_row(f"copy-{image}{proof}-cpu", limit, copies, taken)]
    return rows


@section("copy-nbd", "our two processes against nbdcopy -C4 between two nbdkits")
def copy_nbd(bench):
    rows = []
    for image in ("sparse", "dense"):
        copies = Copies(bench, image)
        taken = take_pairs(bench.plan(60), copies.ours(), copies.nbdcopy_three)
        rows += [speed_row(f"copy-nbd-{image}", 1.5, copies, taken), cpu_row(f"copy-nbd-{image}-cpu", 0.5, copies, taken)]
    return rows


# --- TLS ---------------------------------------------------------------------------------------------------------------

STUNNEL = """foreground = yes
pid =
syslog = no
debug = 3
output = {log}
{where}
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
[nbd]
accept = 127.0.0.1:{accept}
connect = 127.0.0.1:{connect}
sslVersionMin = TLSv1.2
sslVersionMax = TLSv1.2
ciphers = ECDHE-RSA-AES256-GCM-SHA384
"""


def certificate(bench):
    pem = bench.path("certificate.pem")
    if not os.path.exists(pem):
        key, cert = bench.path("key.pem"), bench.path("cert.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=localhost", "-keyout", key, "-out", cert],
                       check=True, capture_output=True)
        with open(pem, "wb") as out:
            for part in (key, cert):
                with open(part, "rb") as f:
                    shutil.copyfileobj(f, out)
        os.chmod(pem, 0o600)
    return pem


def stunnel(bench, kind, accept, connect):
    where = "client = yes" if kind == "client" else f"cert = {certificate(bench)}"
    config = bench.path(f"stunnel-{accept}.conf")

    def start():
        with open(config, "w") as f:
            f.write(STUNNEL.format(log=bench.path("stunnel.log"), where=where, accept=accept, connect=connect))
        return Process(["stunnel", config], listens(accept), log=bench.path("stunnel.out"))
    return start


@section("copy-tls", "TLS on both sides against sequential requests of 2 MiB through a pair of stunnels")
def copy_tls(bench):
    copies = Copies(bench, "sparse")
    pem = certificate(bench)

    def ours():
        port = free_port()
        fresh(copies.target, copies.size)
        cost = copies.run([tapd_serve(bench, f"raw:{copies.target}", port, pem)],
                          [bench.tapd, "copy", "--cached", f"raw:{copies.source}", f"nbds://127.0.0.1:{port}"])
        if not copies.compared:
            same(copies.source, copies.target)
            copies.compared = True
        return cost

    def peer():
        server, outer, inner = free_port(), free_port(), free_port()
        fresh(copies.target, copies.size)
        return copies.run([nbdkit(bench, copies.target, server), stunnel(bench, "server", outer, server), stunnel(bench, "client", inner, outer)],
                          ["nbdcopy", "--synchronous", "--request-size=2097152", copies.source, f"nbd://127.0.0.1:{inner}"])

    taken = take_pairs(bench.plan(60), ours, peer)
    return [speed_row("copy-tls", 3.0, copies, taken), cpu_row("copy-tls-cpu", None, copies, taken)]


# --- VHD ----------------------------------------------------------------------------------------------------------------

def run(*argv):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise Failed(f"{' '.join(argv)}: {done.stdout.strip()[-300:]}")
    return done.stdout


@section("vhd", "writing a dynamic VHD, against qemu-img convert -W -m16 -O vpc")
def vhd(bench):
    copies = Copies(bench, "sparse")
    target = bench.path("target.vhd")

    def make():
        if os.path.exists(target):
            os.unlink(target)
        run("qemu-img", "create", "-q", "-f", "vpc", "-o", "subformat=dynamic,force_size=on", target, str(copies.size))

    def ours():
        make()
        cost = copies.run([], [bench.tapd, "copy", "--cached", f"raw:{copies.source}", f"vhd:{target}"])
        if not copies.compared:
            run("qemu-img", "compare", "-q", "-f", "raw", "-F", "vpc", copies.source, target)
            copies.compared = True
        return cost

    def peer():
        make()
        return copies.run([], ["qemu-img", "convert", "-n", "-W", "-m", "16", "-f", "raw", "-O", "vpc", copies.source, target])

    taken = take_pairs(bench.plan(60), ours, peer)
    return [speed_row("vhd-write", 5.0, copies, taken), cpu_row("vhd-write-cpu", None, copies, taken)]


# --- inside one SR ---------------------------------------------------------------------------------------------------------

@section("clone", "an image of 4 GiB inside one SR on XFS, against cp")
def clone(bench):
    disk, mount = bench.path("xfs.img"), bench.path("xfs")
    fresh(disk, 12 << 30)
    os.makedirs(mount, exist_ok=True)
    run("mkfs.xfs", "-q", "-m", "reflink=1", disk)
    run("mount", "-o", "loop", disk, mount)
    source, target = os.path.join(mount, "source"), os.path.join(mount, "target")
    try:
        run(bench.program("bench_mkdisk"), source, "sparse", "4096", "7")
        run("sync", "-f", source)

        def settled():
            if os.path.exists(target):
                os.unlink(target)
            run("sync", "-f", mount)
            time.sleep(0.3)  # XFS frees what was unlinked in the background

        def ours():
            settled()
            return Cost(float(run(bench.program("bench_clone"), source, target)) / 1000, 0)

        def peer():
            settled()
            began = time.monotonic()  # durable at the end, as ours
            run("cp", "--reflink=never", source, target)
            run("sync", "-f", target)
            return Cost(time.monotonic() - began, 0)

        ours()
        same(source, target)
        taken = take_pairs(bench.plan(60), ours, peer)
        row = judge(Row("clone-xfs", (">=", 50.0), ratio="speed"), taken, lambda p: p.peer.seconds / p.ours.seconds)
        row.ours, row.peer = (f"{middle(taken[0], lambda p: side(p).seconds) * 1000:.1f} ms" for side in (lambda p: p.ours, lambda p: p.peer))
        return [row]
    finally:
        run("umount", mount)
        os.unlink(disk)
