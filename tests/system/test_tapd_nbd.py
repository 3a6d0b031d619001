#!/usr/bin/env python3
"""tapd's NBD server with the field's clients: nbdinfo, nbdcopy, qemu-img, qemu-io, fio; plain, STARTTLS, read-only, and
while it is paused. What they write is in the image, what is in the image they read."""
import filecmp
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import tapd as T  # noqa: E402

MIB = 1 << 20
SIZE = 256 * MIB


def run(*args, fails=False):
    done = subprocess.run(args, capture_output=True, text=True, timeout=120)
    assert (done.returncode != 0) == fails, f"{args}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def qemu_io(uri, *commands, options=(), fails=False):
    words = [w for c in commands for w in ("-c", c)]
    out = run("qemu-io", *(options or ("-f", "raw")), *words, *([uri] if uri else []), fails=fails)
    assert fails or ("failed" not in out and "Pattern" not in out), out
    return out


class World:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="tapd-nbd-")
        self.image = self.path("image")
        self.source = self.path("source")
        for path in (self.image, self.source):
            with open(path, "wb") as f:
                f.truncate(SIZE)
        noise = random.Random(7)
        with open(self.source, "r+b") as f: # data here and there, one place with zeros that are written
            for at, n in ((0, 20 * MIB), (50 * MIB + 4096, 3 * MIB), (200 * MIB, 4096), (SIZE - 65536, 65536)):
                f.seek(at)
                f.write(noise.randbytes(n))
            f.seek(100 * MIB)
            f.write(bytes(MIB))
        self.tap = T.Tapd(self.path("tap"), key="sr/vdi", format="raw", path=self.image, read_only=0, cached=1, size=SIZE, state="active",
                          cbt="", mirror="", mirror_options="", users="u").start()
        self.uri = self.tap.uri()

    def path(self, name):
        return os.path.join(self.dir, name)

    def remove(self):
        self.tap.remove()
        shutil.rmtree(self.dir, ignore_errors=True)


def test_info(w):
    info = json.loads(run("nbdinfo", "--json", w.uri))["exports"][0]
    assert info["export-size"] == SIZE, info
    for able in ("can_flush", "can_fua", "can_multi_conn", "can_trim", "can_zero", "can_fast_zero", "can_df", "can_cache"):
        assert info[able], (able, info)
    assert not info["is_read_only"], info
    assert (info["block_size_minimum"], info["block_size_preferred"], info["block_size_maximum"]) == (512, 262144, 33554432), info
    assert {"base:allocation", "xapi:hash"} <= set(info["contexts"]), info
    assert "/any/name" in run("nbdinfo", f"nbd+unix:////any/name?socket={w.tap.path('nbd')}")
    run("nbdinfo", "--list", w.uri)


def test_copies(w):
    run("nbdcopy", "--connections=4", w.source, w.uri)
    run("nbdcopy", "--connections=4", w.uri, w.path("copy"))
    assert filecmp.cmp(w.source, w.path("copy"), shallow=False)
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", w.source, w.uri)
    extents = json.loads(run("nbdinfo", "--map", "--json", w.uri))
    assert sum(e["length"] for e in extents) == SIZE, extents
    data = sum(e["length"] for e in extents if e["type"] == 0)
    assert 20 * MIB <= data <= 40 * MIB, extents
    assert json.loads(run("qemu-img", "map", "--output=json", "-f", "raw", w.uri))
    run("qemu-img", "convert", "-f", "raw", "-O", "raw", w.uri, w.path("copy"))
    assert filecmp.cmp(w.source, w.path("copy"), shallow=False)
    qemu_io(w.uri, f"discard 0 {SIZE}", f"write -z -u 0 {SIZE}")
    assert sum(e["length"] for e in json.loads(run("nbdinfo", "--map", "--json", w.uri)) if e["type"] == 0) == 0
    run("qemu-img", "convert", "-n", "-W", "-m", "16", "-f", "raw", "-O", "raw", w.source, w.uri)
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", w.source, w.uri)
    assert filecmp.cmp(w.source, w.image, shallow=False)


def test_writes(w):
    qemu_io(w.uri, "write -P 5 1000 3000", "read -P 5 1000 3000", "write -f -P 7 16M 64k", "read -P 7 16M 64k", "write -z 16M 4k", "read -P 0 16M 4k",
            "read -P 7 16388k 60k", "write -z -u 17M 1M", "read -P 0 17M 1M", "write -P 9 20M 24M", "read -P 9 20M 24M", "flush", "discard 24M 8M",
            "read -P 9 20M 4M")
    qemu_io(w.uri, "aio_write -P 1 0 4k", "aio_write -P 2 4k 4k", "aio_write -P 3 8k 4k", "aio_flush", "read -P 1 0 4k", "read -P 2 4k 4k", "read -P 3 8k 4k")
    run("fio", "--name=v", "--ioengine=nbd", f"--uri={w.uri}", "--rw=randwrite", "--bs=4k-128k", "--iodepth=16", "--size=64m", "--verify=crc32c",
        "--do_verify=1", "--verify_fatal=1", "--verify_state_save=0")


def test_read_only(w):
    other = T.Tapd(w.path("ro"), key="sr/ro", format="raw", path=w.source, read_only=1, cached=1, size=SIZE, state="active", cbt="", mirror="",
                   mirror_options="", users="u").start()
    try:
        assert "is_read_only: true" in run("nbdinfo", other.uri())
        run("nbdcopy", other.uri(), w.path("copy"))
        assert filecmp.cmp(w.source, w.path("copy"), shallow=False)
        qemu_io(other.uri(), "write 0 4k", fails=True)
    finally:
        other.remove()


def test_tls(w):
    pki = w.path("pki")
    os.mkdir(pki)
    pem = w.path("server.pem")
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost",
        "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", pem, "-out", pki + "/ca-cert.pem")
    with open(pem, "a") as f, open(pki + "/ca-cert.pem") as cert:
        f.write(cert.read())
    port = w.tap.call("listen", address="127.0.0.1", port=0, tls=1, certificate=pem)["port"]
    run("nbdinfo", f"nbd://127.0.0.1:{port}/", fails=True) # in clear: refused
    creds = ("--object", f"tls-creds-x509,id=t,endpoint=client,dir={pki},verify-peer=on")
    target = f"driver=nbd,host=127.0.0.1,port={port},tls-creds=t"
    qemu_io(None, "write -P 33 1M 9M", "read -P 33 1M 9M", "write -z 2M 1M", "flush", options=(*creds, "--image-opts", target))
    run("qemu-img", "convert", *creds, "--image-opts", target, "-O", "raw", w.path("copy"))
    assert filecmp.cmp(w.image, w.path("copy"), shallow=False)
    uri = f"nbds://localhost:{port}/?tls-certificates={pki}"
    out = run("nbdinfo", uri)
    assert "with TLS" in out, out
    run("nbdcopy", "--connections=4", uri, w.path("copy"))
    assert filecmp.cmp(w.image, w.path("copy"), shallow=False)
    w.tap.call("unlisten")
    run("nbdinfo", uri, fails=True)


def test_adopted(w):
    """A connected socket handed over serves as well; the certificate's file is not needed for a plain one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    w.tap.call("adopt", fd=theirs.fileno(), read_only=1, tls=0)
    theirs.close()
    out = run_with_fd(ours, "qemu-io", "-r", "--image-opts", f"driver=raw,file.driver=nbd,file.server.type=fd,file.server.str={ours.fileno()}",
                      "-c", "read 0 1M")
    assert "read 1048576/1048576" in out, out
    ours.close()


def run_with_fd(sock, *args):
    done = subprocess.run(args, capture_output=True, text=True, timeout=60, pass_fds=(sock.fileno(),))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_paused(w):
    """While it is paused a client waits, also for block status, and loses nothing."""
    w.tap.call("pause")
    writer = subprocess.Popen(["qemu-io", "-f", "raw", "-c", "write -P 77 64M 1M", "-c", "read -P 77 64M 1M", w.uri], stdout=subprocess.PIPE, text=True)
    mapper = subprocess.Popen(["nbdinfo", "--map", w.uri], stdout=subprocess.PIPE, text=True)
    w.tap.wait(lambda s: int(s["clients"]) >= 2)
    time.sleep(0.2) # it may only prove that they wait, never that they do not
    assert writer.poll() is None and mapper.poll() is None
    w.tap.call("resume")
    assert "failed" not in writer.communicate(timeout=60)[0] and writer.returncode == 0
    assert mapper.communicate(timeout=60)[0] and mapper.returncode == 0


def main():
    for program in ("nbdinfo", "nbdcopy", "qemu-img", "qemu-io", "fio", "openssl"):
        if shutil.which(program) is None:
            print(f"no {program}")
            return 77
    w = World()
    try:
        for test in (test_info, test_copies, test_writes, test_read_only, test_tls, test_adopted, test_paused):
            test(w)
            print("ok", test.__name__, flush=True)
    finally:
        w.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
