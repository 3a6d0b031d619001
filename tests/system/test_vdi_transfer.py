#!/usr/bin/env python3
"""Disks in and out over HTTP (raw, VHD, deltas, as the known clients ask for them) and over NBD with TLS, between real
daemons; checked with qemu-img, curl and libnbd's tools, then hostile and broken requests."""
import base64
import contextlib
import http.client
import json
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import pool as P  # noqa: E402

SIZE = 9 * P.MIB + 512  # no whole number of VHD blocks
UNKNOWN_LENGTH = 1 << 50
SILENCE_S = 5
STALL_SIZE = 32 * P.MIB  # more than the sockets between two processes hold


def contents(seed, size=SIZE):
    """Runs of noise, written zeros and nothing."""
    rng, out = random.Random(seed), bytearray(size)
    for at in range(0, size - 65536, 65536):
        if rng.random() < 0.5:
            out[at:at + 65536] = rng.randbytes(65536)
    out[-512:] = rng.randbytes(512)
    return bytes(out)


class World:
    def __init__(self, pool):
        self.pool, self.api, self.dir = pool, pool.api, os.path.join(pool.dir, "work")
        os.makedirs(self.dir)
        self.sr = pool.make_shared_sr()
        self.address = pool.hosts[0].address

    def make(self, size=SIZE, kind="vhd", sr=None):
        return self.api("VDI.create", {"name_label": "disk", "SR": sr or self.sr, "virtual_size": str(size), "type": "user", "sm_config": {"type": kind}})

    def request(self, method, path, body=None, headers=None, host=None, **query):
        query = dict({"session_id": self.api.session}, **query)
        query = {k: v for k, v in query.items() if v is not None}
        c = http.client.HTTPConnection(host or self.address, self.pool.http_port, timeout=120)
        c.request(method, path + "?" + urllib.parse.urlencode(query), body, headers or {})
        r = c.getresponse()
        data = r.read()
        c.close()
        return r, data

    def put(self, vdi, data, **query):
        r, body = self.request("PUT", "/import_raw_vdi", data, vdi=vdi, **query)
        assert r.status == 200, (r.status, body)

    def get(self, vdi, **query):
        r, body = self.request("GET", "/export_raw_vdi", vdi=vdi, **query)
        assert r.status == 200, (r.status, body)
        assert int(r.headers["Content-Length"]) == len(body)
        return body

    def file(self, name, data=None):
        path = os.path.join(self.dir, name)
        if data is not None:
            with open(path, "wb") as f:
                f.write(data)
        return path

    def idle(self):
        """No transfer has left anything attached."""
        for host in self.pool.hosts:
            P.wait_until("no tapd", lambda: json.loads(host.ctl("tapd", "json")) == [], 20)


def raw(w):
    for kind in ("vhd", "raw"):
        vdi, data = w.make(kind=kind), contents(kind)
        assert w.get(vdi) == bytes(SIZE)
        w.put(vdi, data)
        assert w.get(vdi) == data
        assert w.get(w.api("VDI.get_uuid", vdi)) == data
        w.put(vdi, b"x" * 700)  # shorter: the rest stays
        assert w.get(vdi) == b"x" * 700 + bytes(324) + data[1024:]
        assert 0 < int(w.api("VDI.get_physical_utilisation", vdi)) < 2 * SIZE
        w.api("VDI.destroy", vdi)
    w.idle()


def vhd(w):
    vdi, data = w.make(), contents("vhd")
    w.put(vdi, data)
    path = w.file("export.vhd", w.get(vdi, format="vhd"))
    subprocess.run(["qemu-img", "compare", "-f", "vpc", "-F", "raw", path, w.file("raw", data)], check=True, stdout=subprocess.DEVNULL)
    again = w.make()
    w.put(again, open(path, "rb").read(), format="vhd")
    assert w.get(again) == data
    for options in (["-o", "subformat=dynamic,force_size=on"], ["-o", "subformat=fixed,force_size=on"]):
        other = contents(str(options))
        made = w.file("made.vhd")
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "vpc", *options, w.file("raw", other), made], check=True)
        target = w.make()
        w.put(target, open(made, "rb").read(), format="vhd")
        assert w.get(target) == other, options
        w.api("VDI.destroy", target)
    for ref in (vdi, again):
        w.api("VDI.destroy", ref)
    w.idle()


def delta(w):
    vdi, data = w.make(), bytearray(contents("delta"))
    w.put(vdi, bytes(data))
    base = w.api("VDI.snapshot", vdi, {})
    copy = w.make()
    w.put(copy, w.get(base, format="vhd"), format="vhd")
    for at in (0, 3 * P.MIB + 4096, SIZE - 512):
        data[at:at + 512] = os.urandom(512)
    data[5 * P.MIB:6 * P.MIB] = bytes(P.MIB)
    w.put(vdi, bytes(data))
    image = w.get(vdi, format="vhd", base=w.api("VDI.get_uuid", base))
    assert len(image) < 8 * P.MIB + 65536 and struct.unpack(">I", image[60:64])[0] == 4, len(image)
    w.put(copy, image, format="vhd")
    assert w.get(copy) == bytes(data)
    for ref in (base, vdi, copy):
        w.api("VDI.destroy", ref)
    w.idle()


def tasks(w):
    vdi, data = w.make(), contents("tasks")
    task = w.api("task.create", "import", "")
    w.put(vdi, data, task_id=task)
    P.wait_until("the task", lambda: w.api("task.get_status", task) == "success", 20)
    task = w.api("task.create", "bad", "")
    r, _ = w.request("PUT", "/import_raw_vdi", b"no image at all" * 100, vdi=vdi, format="vhd", task_id=task)
    assert r.status == 500 and w.api("task.get_status", task) == "failure", r.status
    task = w.api("task.create", "missing", "")
    r, _ = w.request("GET", "/export_raw_vdi", vdi="OpaqueRef:nowhere", task_id=task)
    assert r.status == 404 and w.api("task.get_status", task) == "failure" and w.api("task.get_error_info", task)[0] == "HANDLE_INVALID"
    task = w.api("task.create", "upload", "")
    r, body = w.request("PUT", "/import_raw_vdi/", data, sr_id=w.sr, task_id=task)
    assert r.status == 200, body
    made = w.api("task.get_result", task).split(">")[-2].split("<")[0]
    assert w.get(made)[:SIZE] == data
    w.api("VDI.destroy", made)
    w.api("VDI.destroy", vdi)
    w.idle()


def known_clients(w):
    """xe waits for the answer before it sends; Xen Orchestra sends a length that never comes; curl uses a password."""
    vdi, data = w.make(), contents("clients")
    task = w.api("task.create", "xe", "")
    s = socket.create_connection((w.address, w.pool.http_port), 60)
    s.sendall(f"PUT /import_raw_vdi?session_id={w.api.session}&vdi={vdi}&task_id={task} HTTP/1.0\r\nContent-length: {SIZE}\r\n\r\n".encode())
    assert b" 200 " in s.recv(4096)
    s.sendall(data)
    P.wait_until("the task", lambda: w.api("task.get_status", task) == "success", 20)
    s.close()
    assert w.get(vdi) == data
    other, task = contents("orchestra"), w.api("task.create", "xo", "")
    s = socket.create_connection((w.address, w.pool.http_port), 60)
    s.sendall(f"PUT /import_raw_vdi/?session_id={w.api.session}&vdi={vdi}&task_id={task} HTTP/1.1\r\nHost: x\r\nContent-Length: {UNKNOWN_LENGTH}\r\n\r\n".encode())
    s.sendall(other)
    s.shutdown(socket.SHUT_WR)
    P.wait_until("the task", lambda: w.api("task.get_status", task) == "success", 20)
    s.close()
    url = f"https://{w.address}:{w.pool.https_port}/export_raw_vdi?vdi={vdi}"
    out = w.file("curl")
    subprocess.run(["curl", "-ksSf", "-u", f"root:{P.PASSWORD}", "-o", out, url], check=True)
    assert open(out, "rb").read() == other
    subprocess.run(["curl", "-ksSf", "-u", f"root:{P.PASSWORD}", "-T", w.file("raw", data), url.replace("export", "import")], check=True)
    assert w.get(vdi) == data
    w.api("VDI.destroy", vdi)
    w.idle()


def refused(w):
    vdi = w.make()
    for expected, session, query in ((401, "OpaqueRef:nobody", {}), (401, None, {}), (404, w.api.session, {"vdi": "x"}),
                                     (400, w.api.session, {"format": "tar.zst"}), (400, w.api.session, {"vdi": None})):
        r, _ = w.request("GET", "/export_raw_vdi", **dict({"vdi": vdi, "session_id": session}, **query))
        assert r.status == expected, (expected, r.status, query)
    r, _ = w.request("GET", "/export_raw_vdi", vdi=vdi, session_id=None, headers={"Authorization": "Basic " + base64.b64encode(b"root:wrong").decode()})
    assert r.status == 401
    r, _ = w.request("PUT", "/import_raw_vdi", bytes(SIZE + 512), vdi=vdi)
    assert r.status == 500
    s = socket.create_connection((w.address, w.pool.http_port), 60)  # half an image
    s.sendall(f"PUT /import_raw_vdi?session_id={w.api.session}&vdi={vdi} HTTP/1.1\r\nHost: x\r\nContent-Length: {SIZE}\r\n\r\n".encode() + bytes(70000))
    s.close()
    P.wait_until("the disk to be free", lambda: w.api("VDI.get_current_operations", vdi) == {}, 20)
    vm = w.pool.make_vm("user")
    vbd = w.api("VBD.create", {"VM": vm, "VDI": vdi, "userdevice": "0", "bootable": False, "mode": "RW", "type": "Disk", "empty": False})
    w.api("VM.start", vm, False, False)
    for method, path in (("GET", "/export_raw_vdi"), ("PUT", "/import_raw_vdi")):
        r, body = w.request(method, path, b"" if method == "PUT" else None, vdi=vdi)
        assert r.status == 500 and body.startswith(b"VDI_IN_USE"), (r.status, body)
    w.api("VM.hard_shutdown", vm)
    w.api("VBD.destroy", vbd)
    w.api("VM.destroy", vm)
    w.api("VDI.destroy", vdi)
    w.idle()


def elsewhere(w):
    """A disk that only the other host has: the coordinator sends the client there, and the member does it."""
    path, two = os.path.join(w.pool.dir, "far"), w.pool.host_ref(2)
    os.makedirs(path)
    sr = w.api("SR.create", two, {"location": path}, "0", "far", "", "file", "user", False, {})
    vdi, data = w.make(sr=sr), contents("far")
    r, _ = w.request("PUT", "/import_raw_vdi", b"", vdi=vdi)
    assert r.status == 302, r.status
    target = urllib.parse.urlparse(r.headers["Location"])
    assert target.hostname == w.pool.hosts[1].address and target.port == w.pool.http_port, target
    r, body = w.request("PUT", "/import_raw_vdi", data, host=target.hostname, vdi=vdi)
    assert r.status == 200, body
    r, body = w.request("GET", "/export_raw_vdi", host=target.hostname, vdi=vdi)
    assert r.status == 200 and body == data
    w.api("VDI.destroy", vdi)
    w.idle()


def nbd(w):
    vdi, data = w.make(), contents("nbd")
    w.put(vdi, data)
    assert w.api("VDI.get_nbd_info", vdi) == []
    network = w.api("PIF.get_network", w.api("host.get_management_interface", w.pool.host_ref(1)))
    w.api("network.add_purpose", network, "nbd")
    try:
        w.api("network.add_purpose", network, "insecure_nbd")
        raise AssertionError("insecure_nbd beside nbd")
    except P.Failure as e:
        assert (e.code, e.params) == ("NETWORK_INCOMPATIBLE_PURPOSES", ["insecure_nbd", "nbd"]), e
    infos = w.api("VDI.get_nbd_info", vdi)
    assert {i["address"] for i in infos} == {h.address for h in w.pool.hosts}, infos
    for info in infos:
        certificates = os.path.join(w.dir, "pki-" + info["address"])
        os.makedirs(certificates)
        with open(os.path.join(certificates, "ca-cert.pem"), "w") as f:
            f.write(info["cert"])
        name = urllib.parse.quote(info["exportname"], safe="")
        uri = f"nbds://{info['address']}:{info['port']}/{name}?tls-certificates={certificates}"
        shown = subprocess.run(["nbdinfo", "--size", uri], check=True, stdout=subprocess.PIPE, text=True).stdout
        assert int(shown) == SIZE, shown
        out = w.file("nbd.raw", b"")
        subprocess.run(["nbdcopy", uri, out], check=True)
        assert open(out, "rb").read() == data
        for bad in (uri.replace("OpaqueRef", "OpaqueRoof"), uri.replace(name, "x"), uri.replace("nbds://", "nbd://")):
            assert subprocess.run(["nbdinfo", "--size", bad], capture_output=True).returncode != 0, bad
        for junk in (b"\0" * 100, b"GET / HTTP/1.0\r\n\r\n", struct.pack(">IQII", 3, 0x49484156454f5054, 7, 0xffffffff)):
            s = socket.create_connection((info["address"], int(info["port"])), 20)
            s.recv(18)
            s.sendall(junk)
            s.settimeout(20)
            with contextlib.suppress(ConnectionResetError):
                while s.recv(4096):
                    pass
            s.close()
    w.api("VDI.destroy", vdi)
    w.idle()


class Stalled:
    """A client that stops in the middle: of an upload it sends a part, of a download it reads nothing."""

    def __init__(self, w, method):
        self.w, self.vdi = w, w.make(STALL_SIZE)
        self.task = w.api("task.create", "stalled", "")
        path = f"/{'import' if method == 'PUT' else 'export'}_raw_vdi?session_id={w.api.session}&vdi={self.vdi}&task_id={self.task}"
        length = f"Content-Length: {STALL_SIZE}\r\n" if method == "PUT" else ""
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect((w.address, w.pool.http_port))
        self.socket.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{length}\r\n".encode())
        if method == "PUT":
            self.socket.sendall(bytes(3 * P.MIB))
        P.wait_until("the transfer to begin", lambda: w.api("VDI.get_current_operations", self.vdi) != {}, 20)

    def ends(self, status):
        P.wait_until("the task to end as " + status, lambda: self.w.api("task.get_status", self.task) == status, 30)
        self.free()
        return self.w.api("task.get_error_info", self.task)

    def free(self):
        P.wait_until("the disk to be free", lambda: self.w.api("VDI.get_current_operations", self.vdi) == {}, 20)
        self.socket.close()
        self.w.api("VDI.destroy", self.vdi)


def stalled(w):
    silent = [Stalled(w, "PUT"), Stalled(w, "GET")]
    for client in [Stalled(w, "PUT"), Stalled(w, "GET")]:
        w.api("task.cancel", client.task)
        client.ends("cancelled")
    for client in silent:
        info = client.ends("failure")
        assert info[0] == "INTERNAL_ERROR" and f"moved no byte for {SILENCE_S} s" in info[1], info
    w.idle()


def stop_with_stalled(w):
    """The daemon does not wait for clients that do nothing."""
    clients = [Stalled(w, "PUT"), Stalled(w, "GET")]
    host = w.pool.hosts[0]
    assert host.stop() == 0
    host.start()
    w.pool.api = w.api = P.Api(host.url).login()
    P.wait_until("the pool", w.pool.all_live, 60)
    for client in clients:
        client.free()
    w.idle()


def main():
    for tool in ("qemu-img", "nbdinfo", "nbdcopy", "curl"):
        if shutil.which(tool) is None:
            print(f"skipped: {tool} is missing")
            sys.exit(77)
    prefix = f"127.{random.randint(2, 250)}.{random.randint(1, 250)}"
    with P.Pool(hosts=2, prefix=prefix, options={"nbd-port": P.free_ports(f"{prefix}.1", 1)[0], "transfer-silence-s": SILENCE_S}) as pool:
        w = World(pool)
        for case in (raw, vhd, delta, tasks, known_clients, refused, elsewhere, nbd, stalled, stop_with_stalled):
            print(case.__name__, flush=True)
            case(w)


if __name__ == "__main__":
    main()
