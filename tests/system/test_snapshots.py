#!/usr/bin/env python3
"""Snapshots, clones, checkpoints and reverts of a guest that writes all the time, with real daemons: what a snapshot
holds never changes, what is reverted to is what was, the guest finds every block it was told is written, and a daemon
killed at any step leaves the guest and its disks whole and nothing else behind."""
import hashlib
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import pool as P  # noqa: E402

NULL = "OpaqueRef:NULL"
BUSY = {"sim-disk-iops": "300", "sim-dirty-mib-s": "4", "sim-disk-working-set-mib": "4"}


class Lab:
    def __init__(self, pool):
        self.pool = pool
        self.sr = pool.make_shared_sr()
        raw = os.path.join(pool.dir, "raw-sr")
        os.makedirs(raw, exist_ok=True)
        self.raw_dir = raw
        self.raw = pool.api("SR.create", pool.host_ref(1), {"location": raw, "image-format": "raw"}, "0", "raw", "", "file", "user", False, {})

    @property
    def api(self):
        return self.pool.api

    def disk(self, vm, device="0"):
        return next(r["VDI"] for r in (self.api("VBD.get_record", b) for b in self.api("VM.get_VBDs", vm)) if r["userdevice"] == device)

    def content(self, vdi):
        """A hash of what the disk holds: copied to a raw file and read there; of one that counts as in use (its VM is
        suspended, or a checkpoint) a clone is."""
        try:
            return self.content_of_unused(vdi)
        except P.Failure as e:
            assert e.code == "VDI_IN_USE", e
        clone = self.api("VDI.clone", vdi)
        digest = self.content_of_unused(clone)
        self.api("VDI.destroy", clone)
        return digest

    def content_of_unused(self, vdi):
        copy = self.api.async_("VDI.copy", vdi, self.raw)["result"]
        copy = copy.replace("<value>", "").replace("</value>", "")
        path = os.path.join(self.raw_dir, self.api("VDI.get_location", copy) + ".raw")
        with open(path, "rb") as f:
            digest = hashlib.sha256(f.read()).hexdigest()
        self.api("VDI.destroy", copy)
        return digest

    def written(self, vm):
        return int(self.pool.guest_data(vm).get("sim/blocks_written", "0"))

    def write_on(self, vm, blocks=60):
        before = self.written(vm)
        P.wait_until("the guest to write", lambda: self.written(vm) >= before + blocks, 60)

    def suspendable(self, vm):
        P.wait_until("the guest's drivers", lambda: "suspend" in self.api("VM.get_allowed_operations", vm), 60)

    def verified(self, vm):
        """The guest looked at all its pages and blocks when it was restored."""
        P.wait_until("its verdict", lambda: self.pool.guest_data(vm).get("sim/verify"), 60)
        assert self.pool.guest_data(vm)["sim/verify"] == "ok", self.pool.guest_data(vm)

    def sleep_and_wake(self, vm):
        self.suspendable(vm)
        self.api("VM.suspend", vm)
        self.api("VM.resume", vm, False, False)
        self.verified(vm)

    def managed(self):
        return {r["uuid"] for r in self.api("VDI.get_all_records").values() if r["managed"]}


def snapshots(lab, vm):
    first = lab.api("VM.snapshot", vm, "first", [])
    one = lab.content(lab.disk(first))
    lab.write_on(vm)
    second = lab.api("VM.snapshot", vm, "second", [])
    two = lab.content(lab.disk(second))
    lab.write_on(vm)
    assert one != two, "the guest wrote nothing between two snapshots"
    assert (one, two) == (lab.content(lab.disk(first)), lab.content(lab.disk(second))), "a snapshot has changed"
    lab.sleep_and_wake(vm)  # every block it was told is written is there
    record = lab.api("VDI.get_record", lab.disk(first))
    assert record["is_a_snapshot"] and record["snapshot_of"] == lab.disk(vm)
    hidden = [r for r in lab.api("VDI.get_all_records").values() if r["SR"] == lab.sr and not r["managed"]]
    assert hidden and all(r["name_label"] == "base copy" and r["read_only"] for r in hidden), hidden
    print("two snapshots of a writing guest hold what they held; the guest found all its blocks", flush=True)
    return first, one, second, two


def reverts(lab, vm, first, one, second, two):
    mac = [lab.api("VIF.get_MAC", v) for v in lab.api("VM.get_VIFs", vm)]
    for snapshot, digest in ((first, one), (second, two), (first, one)):
        lab.api("VM.revert", snapshot)
        assert lab.api("VM.get_power_state", vm) == "Halted"
        assert lab.content(lab.disk(vm)) == digest, "reverted to something else"
        assert lab.api("VDI.get_snapshot_of", lab.disk(snapshot)) == lab.disk(vm)
        lab.api("VM.start", vm, False, False)
        lab.write_on(vm)
        assert lab.content(lab.disk(snapshot)) == digest, "the reverted guest writes into its snapshot"
    assert mac == [lab.api("VIF.get_MAC", v) for v in lab.api("VM.get_VIFs", vm)]
    clone = lab.api("VM.clone", first, "clone")
    assert lab.content(lab.disk(clone)) == one
    lab.api("VM.set_is_a_template", clone, False)
    lab.api("VM.start", clone, False, False)
    lab.write_on(clone)
    assert lab.content(lab.disk(first)) == one
    lab.api("VM.hard_shutdown", clone)
    print("reverts and a clone of a snapshot hold what it holds", flush=True)


def checkpoints(lab, vm):
    lab.suspendable(vm)
    mark = lab.api("VM.checkpoint", vm, "mark")
    assert lab.api("VM.get_power_state", vm) == "Running" and lab.api("VM.get_power_state", mark) == "Suspended"
    lab.verified(vm)
    digest = lab.content(lab.disk(mark))
    for _ in range(2):
        lab.write_on(vm)
        lab.api("VM.revert", mark)
        assert lab.api("VM.get_power_state", vm) == "Suspended"
        assert lab.content(lab.disk(vm)) == digest
        lab.api("VM.resume", vm, False, False)
        lab.verified(vm)
    lab.sleep_and_wake(vm)
    print("a checkpoint was gone back to twice", flush=True)
    image, disk = lab.api("VM.get_suspend_VDI", mark), lab.disk(mark)
    lab.api("VM.destroy", mark)
    lab.api("VDI.destroy", disk)
    assert image not in lab.api("VDI.get_all")


def deaths(lab, vm, first, one):
    """The daemon dies at a step; the next one finds the guest, and takes away what was not finished."""
    host, pool = lab.pool.hosts[0], lab.pool
    cases = (("sr.vdi_snapshot", "VM.snapshot", (vm, "x", [])), ("sr.vdi_clone", "VM.revert", (first,)),
             ("vm.snapshot.disk", "VM.snapshot", (vm, "x", [])), ("vm.snapshot.rows", "VM.snapshot", (vm, "x", [])),
             ("vm.clone.rows", "VM.clone", (first, "x")), ("vm.revert.shutdown", "VM.revert", (first,)),
             ("vm.revert.rows", "VM.revert", (first,)), ("sr.file.snapshot.commit", "VM.snapshot", (vm, "x", [])),
             ("sr.file.snapshot.pause", "VM.snapshot", (vm, "x", [])),
             ("vm.checkpoint.resume", "VM.checkpoint", (vm, "x")))
    for point, method, args in cases:
        if lab.api("VM.get_power_state", vm) == "Halted":
            lab.api("VM.start", vm, False, False)
        lab.suspendable(vm)
        lab.write_on(vm, 20)
        disk_before, vms, vdis = lab.disk(vm), set(lab.api("VM.get_all")), lab.managed()
        host.ctl("fault", "arm", f"{point}=crash")
        try:
            lab.api(method, *args)
            raise AssertionError(f"{point} was not reached")
        except (OSError, P.http.client.HTTPException):
            pass
        host.process.wait(30)
        host.process = None
        host.start()
        pool.api = P.Api(host.url).login()
        P.wait_until("the pool to be whole", pool.all_live, 60)
        if point == "vm.checkpoint.resume":  # it was complete but for the guest, which is woken
            P.wait_until("the guest to be woken", lambda: lab.api("VM.get_power_state", vm) == "Running", 60)
            lab.verified(vm)
            print(f"{point}: the guest was woken and is whole", flush=True)
            continue
        P.wait_until("the unfinished disks to go", lambda: not any("provisional" in r["sm_config"] for r in lab.api("VDI.get_all_records").values()), 60)
        assert set(lab.api("VM.get_all")) == vms and lab.managed() == vdis, point
        assert lab.disk(vm) == disk_before, point
        if lab.api("VM.get_power_state", vm) == "Running":
            lab.sleep_and_wake(vm)
        assert lab.content(lab.disk(first)) == one, point
        print(f"{point}: nothing is left, the guest is {lab.api('VM.get_power_state', vm)}", flush=True)


def on_a_member(pool):
    """The guest runs on one host, the coordinator is another: verbs go to where its disk is in use."""
    lab = Lab(pool)
    vm = pool.make_vm("member's", sr=lab.sr, disk_mib=16, platform=BUSY)
    still = pool.api("VDI.create", {"name_label": "read only", "SR": lab.sr, "virtual_size": str(8 << 20), "type": "user"})
    pool.api("VBD.create", {"VM": vm, "VDI": still, "userdevice": "1", "bootable": False, "mode": "RO", "type": "Disk", "empty": False})
    pool.api("VM.start_on", vm, pool.host_ref(2), False, False)
    lab.write_on(vm)
    first = pool.api("VM.snapshot", vm, "first", [])
    one = lab.content(lab.disk(first))
    lab.write_on(vm)
    pool.api("VDI.resize_online", still, str(32 << 20))  # not the one it writes to: its blocks lie by the disk's size
    assert pool.api("VDI.get_virtual_size", still) == str(32 << 20)
    lab.suspendable(vm)
    mark = pool.api("VM.checkpoint", vm, "mark")
    assert pool.api("VM.get_resident_on", vm) == pool.host_ref(2)
    lab.verified(vm)
    lab.write_on(vm)
    pool.api("VM.revert", mark)
    pool.api("VM.resume", vm, False, False)
    lab.verified(vm)
    assert lab.content(lab.disk(first)) == one
    pool.api("VM.revert", first)
    assert lab.content(lab.disk(vm)) == one
    assert pool.api("VDI.get_virtual_size", lab.disk(vm, "1")) == str(8 << 20)
    local = pool.api("SR.create", pool.host_ref(2), {"location": os.path.join(pool.dir, "local2")}, "0", "local", "", "file", "user", False, {})
    copy = pool.api("VDI.copy", lab.disk(first), local)
    try:
        pool.api("VDI.copy", copy, lab.raw)  # host 2's to host 1's
        raise AssertionError("no host has both")
    except P.Failure as e:
        assert e.code == "NO_HOSTS_AVAILABLE", e
    assert lab.content(pool.api("VDI.copy", copy, lab.sr)) == one
    print("snapshots, checkpoints and reverts of a guest on another host than the coordinator", flush=True)


def main():
    options = {"allow-faults": "true", "sr-watch-interval-ms": 200, "sr-refresh-interval-ms": 1000}
    with P.Pool(hosts=2, options=options) as pool:
        on_a_member(pool)
    with P.Pool(hosts=1, options=options) as pool:
        lab = Lab(pool)
        vm = pool.make_vm("writer", sr=lab.sr, disk_mib=16, platform=BUSY)
        pool.api("VM.start", vm, False, False)
        lab.write_on(vm)
        first, one, second, two = snapshots(lab, vm)
        reverts(lab, vm, first, one, second, two)
        checkpoints(lab, vm)
        deaths(lab, vm, first, one)


if __name__ == "__main__":
    main()
