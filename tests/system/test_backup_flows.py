#!/usr/bin/env python3
"""Backups as the known programs take them of a VM that runs and writes: whole images of a snapshot, differences to the
last snapshot, and changed blocks read over NBD with TLS; each restored and compared with what the snapshot holds."""
import base64
import http.client
import os
import random
import shutil
import subprocess
import sys
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import pool as P  # noqa: E402
from tests.system import test_xen_api  # noqa: E402

SIZE = 24 * P.MIB
BLOCK = 65536  # of changed block tracking


class Backup:
    def __init__(self, pool):
        self.pool, self.api, self.dir = pool, pool.api, os.path.join(pool.dir, "backup")
        os.makedirs(self.dir)
        self.host = pool.hosts[0]
        self.sr = pool.make_shared_sr()
        other = os.path.join(pool.dir, "other-sr")
        os.makedirs(other)
        self.other_sr = self.api("SR.create", pool.host_ref(1), {"location": other}, "0", "Other", "", "file", "user", False, {})
        self.network = self.api("PIF.get_network", self.api("host.get_management_interface", pool.host_ref(1)))
        self.api("network.add_purpose", self.network, "nbd")
        self.vm = pool.make_vm("server", sr=self.sr, disk_mib=SIZE // P.MIB, platform={"sim-disk-iops": "200", "sim-disk-working-set-mib": "8"})
        self.vbd = self.api("VM.get_VBDs", self.vm)[0]
        self.api("VM.start", self.vm, False, False)

    def disk(self, vm=None):
        vbds = self.api("VM.get_VBDs", vm) if vm else [self.vbd]
        return next(self.api("VBD.get_VDI", b) for b in vbds if self.api("VBD.get_type", b) == "Disk")

    def writes_on(self, blocks=40):
        seen = int(self.pool.guest_data(self.vm).get("sim/blocks_written", 0))
        P.wait_until("the guest to write", lambda: int(self.pool.guest_data(self.vm).get("sim/blocks_written", 0)) >= seen + blocks, 30)

    def healthy(self):
        data = self.pool.guest_data(self.vm)
        assert self.api("VM.get_power_state", self.vm) == "Running" and data.get("sim/disk_errors", "0") == "0", data

    # --- what the programs do -----------------------------------------------------------------------------------
    def snapshot(self, name):
        """The VM and its disk, as records."""
        result = self.api.async_("VM.snapshot", self.vm, name, [])["result"]
        vm = result.removeprefix("<value>").removesuffix("</value>")
        self.api("VM.add_to_other_config", vm, "backup:job", name)
        record, vdi = self.api("VM.get_record", vm), self.disk(vm)
        assert record["is_a_snapshot"] and record["snapshot_of"] == self.vm and record["snapshot_info"]["power-state-at-snapshot"] == "Running"
        assert vm in self.api("VM.get_snapshots", self.vm) and self.api("VM.get_parent", self.vm) == vm
        disk = self.api("VDI.get_record", vdi)
        assert disk["is_a_snapshot"] and disk["snapshot_of"] == self.disk() and disk["managed"] and vdi in self.api("VDI.get_snapshots", self.disk())
        return vm, vdi

    def remove(self, vm):
        """Snapshots are destroyed as XO does: the VM, then the disks it had."""
        vdis = [self.api("VBD.get_VDI", b) for b in self.api("VM.get_VBDs", vm)]
        self.api("VM.destroy", vm)
        for vdi in vdis:
            self.api("VDI.destroy", vdi)

    def transfer(self, method, path, body=None, **query):
        """With a task of the client's own, which says how it ended."""
        task = self.api("task.create", path, "")
        query = dict({"session_id": self.api.session, "task_id": task}, **query)
        c = http.client.HTTPConnection(self.host.address, self.pool.http_port, timeout=120)
        c.request(method, path + "?" + urllib.parse.urlencode(query), body)
        r = c.getresponse()
        data = r.read()
        c.close()
        assert r.status == 200, (r.status, data[:200])
        record = self.api.wait_task(task, 30)
        assert record["progress"] == 1.0 and record["error_info"] == [], record
        return data

    def export(self, vdi, **query):
        return self.transfer("GET", "/export_raw_vdi/", vdi=vdi, **query)

    def restore(self, image, into=None):
        vdi = into or self.api("VDI.create", {"name_label": "restored", "SR": self.sr, "virtual_size": str(SIZE), "type": "user"})
        self.transfer("PUT", "/import_raw_vdi/", image, vdi=vdi, format="vhd")
        return vdi

    def read_nbd(self, vdi):
        info = self.api("VDI.get_nbd_info", vdi)[0]
        assert set(info) == {"exportname", "address", "port", "cert", "subject"}, info
        certificates = os.path.join(self.dir, "pki")
        os.makedirs(certificates, exist_ok=True)
        with open(os.path.join(certificates, "ca-cert.pem"), "w") as f:
            f.write(info["cert"])
        out = os.path.join(self.dir, "nbd.raw")
        name = urllib.parse.quote(info["exportname"], safe="")
        subprocess.run(["nbdcopy", f"nbds://{info['address']}:{info['port']}/{name}?tls-certificates={certificates}", out], check=True)
        with open(out, "rb") as f:
            data = f.read()
        os.unlink(out)
        return data


def refused(w, code, method, *args):
    try:
        w.api(method, *args)
    except P.Failure as e:
        assert e.code == code, e
        return e.params
    raise AssertionError(f"{method} was not refused")


def whole(w):
    w.writes_on()
    vm, vdi = w.snapshot("whole")
    w.writes_on()
    raw = w.export(vdi, format="raw")
    assert len(raw) == SIZE and raw.strip(b"\0"), "the guest has written nothing"
    image = os.path.join(w.dir, "whole.vhd")
    with open(image, "wb") as f, open(image + ".raw", "wb") as g:
        f.write(w.export(vdi, format="vhd"))
        g.write(raw)
    subprocess.run(["qemu-img", "compare", "-f", "vpc", "-F", "raw", image, image + ".raw"], check=True, stdout=subprocess.DEVNULL)
    with open(image, "rb") as f:
        restored = w.restore(f.read())
    assert w.export(restored) == raw and w.export(vdi) == raw
    w.api("VDI.destroy", restored)
    w.remove(vm)
    w.healthy()


def differences(w):
    """A chain of three: the first whole, the others as differences; the older snapshot goes after each."""
    vm, vdi = w.snapshot("first")
    restored = w.restore(w.export(vdi, format="vhd"))
    for name in ("second", "third"):
        w.writes_on()
        newer, newer_vdi = w.snapshot(name)
        image = w.export(newer_vdi, format="vhd", base=vdi)
        assert image[60:64] == b"\0\0\0\4", "no differencing image"
        w.restore(image, restored)
        assert w.export(restored) == w.export(newer_vdi)
        w.remove(vm)
        vm, vdi = newer, newer_vdi
    started(w, restored)
    w.api("VDI.destroy", restored)
    w.remove(vm)
    w.healthy()


def started(w, vdi):
    """The restored disk boots."""
    vm = w.pool.make_vm("restored")
    vbd = w.api("VBD.create", {"VM": vm, "VDI": vdi, "userdevice": "0", "bootable": True, "mode": "RW", "type": "Disk", "empty": False})
    w.api("VM.start", vm, False, False)
    assert w.api("VBD.get_currently_attached", vbd)
    w.api("VM.hard_shutdown", vm)
    w.api("VM.destroy", vm)


def changed(w, older, newer):
    bits = base64.b64decode(w.api("VDI.list_changed_blocks", older, newer))
    assert len(bits) == SIZE // BLOCK // 8
    return [i for i in range(SIZE // BLOCK) if bits[i // 8] & 0x80 >> i % 8]


def tracked(w):
    """Only the blocks that are said to have changed are read; the snapshot's data goes as soon as it is backed up."""
    w.api("VDI.enable_cbt", w.disk())
    assert w.api("VDI.get_cbt_enabled", w.disk())
    vm, vdi = w.snapshot("tracked 0")
    copy = bytearray(w.read_nbd(vdi))
    assert bytes(copy) == w.export(vdi)
    for n in (1, 2):
        refused(w, "VDI_IN_USE", "VDI.data_destroy", vdi) if n == 1 else None  # its VM still names it
        w.api("VM.destroy", vm)
        w.api("VDI.data_destroy", vdi)
        record = w.api("VDI.get_record", vdi)
        assert record["type"] == "cbt_metadata" and record["cbt_enabled"] and record["physical_utilisation"] == "0", record
        assert refused(w, "VDI_INCOMPATIBLE_TYPE", "VDI.get_nbd_info", vdi) == [vdi, "cbt_metadata"]
        w.writes_on(20)
        vm, newer = w.snapshot(f"tracked {n}")
        blocks, now = changed(w, vdi, newer), w.read_nbd(newer)
        assert blocks and len(now) == SIZE
        for i in blocks:
            copy[i * BLOCK:(i + 1) * BLOCK] = now[i * BLOCK:(i + 1) * BLOCK]
        assert bytes(copy) == now == w.export(newer), "changed blocks are missing from the list"
        w.api("VDI.destroy", vdi)
        vdi = newer
    assert refused(w, "VDI_CBT_ENABLED", "VDI.pool_migrate", w.disk(), w.sr, {}) == [w.disk()]
    w.api("VDI.disable_cbt", w.disk())
    w.remove(vm)
    w.healthy()


def beside(w):
    """While a disk is exported nobody deletes, moves or writes to it: such calls wait, and are fine afterwards."""
    vm, snapshot = w.snapshot("beside")
    vdi = w.api("VDI.copy", snapshot, w.sr)
    user = w.pool.make_vm("user")
    w.api("VBD.create", {"VM": user, "VDI": vdi, "userdevice": "0", "bootable": True, "mode": "RW", "type": "Disk", "empty": False})
    c = http.client.HTTPConnection(w.host.address, w.pool.http_port, timeout=120)
    c.request("GET", "/export_raw_vdi?" + urllib.parse.urlencode({"session_id": w.api.session, "vdi": vdi}))
    r = c.getresponse()
    data = r.read(4096)
    waiting = [w.api("Async." + m, *a) for m, a in (("VDI.destroy", (vdi,)), ("VM.start", (user, False, False)))]
    for task in waiting:
        P.wait_until("the call to wait", lambda: "cancel" in w.api("task.get_allowed_operations", task), 20)
        w.api("task.cancel", task)
        try:
            w.api.wait_task(task)
            raise AssertionError("it was not cancelled")
        except P.Failure as e:
            assert e.code == "TASK_CANCELLED", e
    move = w.api("Async.VDI.pool_migrate", vdi, w.other_sr, {})
    P.wait_until("the move to wait", lambda: "cancel" in w.api("task.get_allowed_operations", move), 20)
    data += r.read()
    c.close()
    assert data == w.export(snapshot)
    w.api.wait_task(move)
    moved = w.disk(user)
    assert moved != vdi and w.api("VDI.get_SR", moved) == w.other_sr and w.export(moved) == data
    w.api("VM.start", user, False, False)
    w.api("VM.hard_shutdown", user)
    w.api("VDI.destroy", moved)
    w.api("VM.destroy", user)
    w.remove(vm)


def moved(w):
    """The disk moves between two backups, under the running guest and then while it is suspended: its snapshots stay its own."""
    vm, first = w.snapshot("before the move")
    for sr, state in ((w.other_sr, "Running"), (w.sr, "Suspended")):
        if state == "Suspended":
            w.api("VM.suspend", w.vm)
        old = w.disk()
        result = w.api.async_("VDI.pool_migrate", old, sr, {})["result"]
        assert w.api("VM.get_power_state", w.vm) == state and w.disk() != old and result == f"<value>{w.disk()}</value>", result
        assert w.api("VDI.get_SR", w.disk()) == sr and w.api("VDI.get_SR", first) == w.sr
        assert w.api("VDI.get_snapshot_of", first) == w.disk() and w.api("VDI.get_snapshots", w.disk()) == [first]
        assert refused(w, "HANDLE_INVALID", "VDI.get_uuid", old) == ["VDI", old]
    w.api("VM.resume", w.vm, False, False)
    w.writes_on()
    newer, second = w.snapshot("after the move")
    assert set(w.api("VDI.get_snapshots", w.disk())) == {first, second}
    copy = w.restore(w.export(first, format="vhd"))
    w.restore(w.export(second, format="vhd", base=first), copy)
    assert w.export(copy) == w.export(second)
    w.api("VDI.destroy", copy)
    w.remove(vm)
    w.remove(newer)
    w.healthy()


def orchestra(w):
    """The client library of Xen Orchestra brings images in as streams, moves a disk and exports it."""
    if shutil.which("node") is None:
        print("orchestra: skipped, there is no node")
        return
    raw, image, out = (os.path.join(w.dir, name) for name in ("stream.raw", "stream.vhd", "stream.out"))
    with open(raw, "wb") as f:
        f.write(os.urandom(3 * P.MIB) + bytes(5 * P.MIB))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", "force_size=on", raw, image], check=True)
    for path, kind in ((image, "vhd"), (raw, "raw")):
        vm = w.pool.make_vm("orchestra", sr=w.sr, disk_mib=8)
        vbd = w.api("VBD.get_uuid", w.api("VM.get_VBDs", vm)[0])
        subprocess.run(["node", os.path.join(P.ROOT, "tests", "system", "xen_api_disks.mjs"), w.host.url, P.PASSWORD, vbd,
                        w.api("SR.get_uuid", w.other_sr), path, kind, out], check=True, timeout=60,
                       env=dict(os.environ, NODE_PACKAGES=test_xen_api.packages(), NODE_NO_WARNINGS="1"))
        with open(raw, "rb") as f, open(out, "rb") as g:
            assert f.read() == g.read(), kind
        w.api("VDI.destroy", w.disk(vm))
        w.api("VM.destroy", vm)


def main():
    for tool in ("qemu-img", "nbdcopy"):
        if shutil.which(tool) is None:
            print(f"skipped: {tool} is missing")
            sys.exit(77)
    prefix = f"127.{random.randint(2, 250)}.{random.randint(1, 250)}"
    with P.Pool(hosts=1, prefix=prefix, options={"nbd-port": P.free_ports(f"{prefix}.1", 1)[0]}) as pool:
        w = Backup(pool)
        for case in (whole, differences, tracked, beside, moved, orchestra):
            print(case.__name__, flush=True)
            case(w)
        w.api("VM.hard_shutdown", w.vm)
        P.wait_until("no tapd", lambda: w.host.served() == {}, 20)
        left = [r["name_label"] for r in w.api("VDI.get_all_records").values() if r["managed"] and r["type"] == "user"]
        assert left == ["server disk"], left


if __name__ == "__main__":
    main()
