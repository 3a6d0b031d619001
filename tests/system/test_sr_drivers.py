#!/usr/bin/env python3
"""Every kind of SR under a guest that writes all the time, with a real daemon and real tapds: created, probed, plugged;
the guest's disk is snapshot, cloned, resized, reverted and coalesced, and every block it was told is written is there.
ext4, xfs and a volume group on loop devices, a bind mount for NFS. Needs root and loop devices."""
import hashlib
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import pool as P  # noqa: E402

BUSY = {"sim-disk-iops": "300", "sim-dirty-mib-s": "1", "sim-disk-working-set-mib": "4"}
MIB = 1 << 20


def skip(why):
    print(f"skipped: {why}")
    sys.exit(77)


class Devices:
    """Loop devices over sparse files; gone when the test ends."""

    def __init__(self, directory):
        self.directory, self.names = directory, []

    def make(self, size):
        path = os.path.join(self.directory, f"device{len(self.names)}")
        with open(path, "wb") as f:
            f.truncate(size)
        made = subprocess.run(["losetup", "-f", "--show", path], capture_output=True, text=True)
        if made.returncode != 0:
            raise RuntimeError("no loop device to be had: " + made.stderr.strip())
        self.names.append(made.stdout.strip())
        return self.names[-1]

    def remove(self):
        for name in self.names:
            subprocess.run(["losetup", "-d", name])


class Case:
    def __init__(self, pool, kind, config, shared=False):
        self.pool, self.api, self.kind, self.config = pool, pool.api, kind, config
        self.sr = self.api("SR.create", pool.host_ref(1), config, "0", kind, "", kind, "user", shared, {})
        self.uuid = self.api("SR.get_uuid", self.sr)

    def disk(self, vm):
        return self.api("VBD.get_VDI", self.api("VM.get_VBDs", vm)[0])

    def written(self, vm):
        return int(self.pool.guest_data(vm).get("sim/blocks_written", 0))

    def goes_on(self, vm, blocks=60):
        before = self.written(vm)
        P.wait_until("the guest to write", lambda: self.written(vm) > before + blocks, 60)
        assert self.pool.guest_data(vm)["sim/disk_errors"] == "0", self.pool.guest_data(vm)

    def proves_its_blocks(self, vm):
        """A suspend and a resume make it read back everything it was told is written."""
        P.wait_until("the guest's drivers", lambda: "suspend" in self.api("VM.get_allowed_operations", vm), 60)
        self.api("VM.suspend", vm)
        self.api("VM.resume", vm, False, False)
        P.wait_until("its verdict", lambda: self.pool.guest_data(vm).get("sim/verify"), 60)
        assert self.pool.guest_data(vm)["sim/verify"] == "ok", self.pool.guest_data(vm)

    def content(self, vdi):
        """Of a disk not in use: a copy of it as a raw file of the plain SR is read."""
        copy = self.api.async_("VDI.copy", vdi, self.pool.plain)["result"].replace("<value>", "").replace("</value>", "")
        with open(os.path.join(self.pool.plain_dir, self.api("VDI.get_location", copy) + ".raw"), "rb") as f:
            digest = hashlib.sha256(f.read()).hexdigest()
        self.api("VDI.destroy", copy)
        return digest

    def images(self, hidden):
        self.api("SR.scan", self.sr)
        return [r for r in self.api("VDI.get_all_records").values() if r["SR"] == self.sr and r["managed"] != hidden]


def sizes_are_true(case):
    record = case.api("SR.get_record", case.sr)
    assert int(record["physical_size"]) > 100 * MIB, record
    assert 0 <= int(record["physical_utilisation"]) <= int(record["physical_size"]), record


def advertised(case):
    sm = next(r for r in case.api("SM.get_all_records").values() if r["type"] == case.kind)
    assert set(sm["features"]) == set(sm["capabilities"]), sm
    assert ("VDI_MIRROR" in sm["capabilities"]) == (case.kind != "gfs2"), sm
    for feature in ("VDI_CREATE", "VDI_DELETE", "VDI_ATTACH", "VDI_DETACH", "VDI_SNAPSHOT", "VDI_CLONE", "VDI_RESIZE", "SR_PROBE"):
        assert feature in sm["capabilities"], (feature, sm)


def under_a_guest(case):
    vm = case.pool.make_vm(case.kind, sr=case.sr, disk_mib=16, platform=BUSY)
    case.api("VM.start", vm, False, False)
    case.goes_on(vm)
    snapshot = case.api("VM.snapshot", vm, "first", [])
    first = case.content(case.disk(snapshot))
    case.goes_on(vm)
    assert case.content(case.disk(snapshot)) == first, "the snapshot has changed"
    assert case.api("VDI.get_is_a_snapshot", case.disk(snapshot))
    clone = case.api("VDI.clone", case.disk(snapshot))
    assert case.content(clone) == first
    case.proves_its_blocks(vm)
    case.api("VM.revert", snapshot)
    assert case.content(case.disk(vm)) == first, "reverted to something else"
    case.api("VM.start", vm, False, False)
    case.goes_on(vm)
    assert case.content(case.disk(snapshot)) == first
    case.api("VDI.destroy", clone)
    return vm, snapshot


def coalesced(case, vm, snapshot):
    if not case.images(hidden=True):
        return
    at_rest = case.config.get("image-format") == "qcow2"  # its chains are left alone while they are in use
    if at_rest:
        case.api("VM.hard_shutdown", vm)
    disk = case.disk(snapshot)
    case.api("VM.destroy", snapshot)
    if disk in case.api("VDI.get_all"):
        case.api("VDI.destroy", disk)
    P.wait_until("the chain to become one image", lambda: not case.images(hidden=True), 90, 0.5)
    if at_rest:
        case.api("VM.start", vm, False, False)
    case.goes_on(vm)
    case.proves_its_blocks(vm)
    print(f"{case.kind}: coalesced " + ("at rest" if at_rest else "under the guest"), flush=True)


def grows_live(case, vm):
    """A disk the guest only reads: its size changes under it."""
    extra = case.api("VDI.create", {"name_label": "extra", "SR": case.sr, "virtual_size": str(8 * MIB), "type": "user"})
    vbd = case.api("VBD.create", {"VM": vm, "VDI": extra, "userdevice": "1", "bootable": False, "mode": "RO", "type": "Disk", "empty": False})
    case.api("VBD.plug", vbd)
    case.api("VDI.resize_online", extra, str(40 * MIB))
    assert int(case.api("VDI.get_virtual_size", extra)) == 40 * MIB
    case.goes_on(vm)
    case.api("VBD.unplug", vbd)
    case.api("VBD.destroy", vbd)
    case.api("VDI.destroy", extra)


def revived(case):
    host = case.pool.hosts[0]
    host.process.wait(60)
    host.process = None
    host.start()
    case.pool.api = case.api = P.Api(host.url).login()
    P.wait_until("the pool to be whole", case.pool.all_live, 60)


def deaths(case):
    """The daemon dies in the middle of a snapshot and of the coalescing after it; the guest's blocks are all there."""
    vm = case.pool.make_vm("dying", sr=case.sr, disk_mib=16, platform=BUSY)
    case.api("VM.start", vm, False, False)
    for step in ("pause", "commit", "publish", "resume", "hide"):
        case.goes_on(vm, 20)
        vdis = len(case.images(hidden=False))
        case.pool.hosts[0].ctl("fault", "arm", f"sr.file.snapshot.{step}=crash")
        try:
            case.api("VM.snapshot", vm, "x", [])
            raise AssertionError(f"{step} was not reached")
        except (OSError, P.http.client.HTTPException):
            pass
        revived(case)
        case.goes_on(vm, 20)
        P.wait_until("the unfinished snapshot to go", lambda: len(case.images(hidden=False)) == vdis, 60, 0.5)
    case.proves_its_blocks(vm)
    print("killed at each step of a snapshot: the guest found all its blocks", flush=True)
    for point in ("sr.merge.following", "sr.merge.paused", "sr.file.adopt.link", "sr.file.fold.journal", "sr.file.fold.commit", "sr.file.fold.show"):
        snapshots = []
        for _ in range(2):
            snapshots.append(case.api("VM.snapshot", vm, "x", []))
            case.goes_on(vm, 20)
        case.pool.hosts[0].ctl("fault", "arm", f"{point}=crash")
        try:
            for snapshot in snapshots:
                disk = case.disk(snapshot)
                case.api("VM.destroy", snapshot)
                case.api("VDI.destroy", disk)
        except (OSError, P.http.client.HTTPException):
            pass
        revived(case)
        for snapshot in (s for s, r in case.api("VM.get_all_records").items() if r["is_a_snapshot"]):
            case.api("VM.destroy", snapshot)
        for ref, record in case.api("VDI.get_all_records").items():
            if record["SR"] == case.sr and record["is_a_snapshot"] and record["managed"]:
                case.api("VDI.destroy", ref)
        case.goes_on(vm, 20)
        P.wait_until("the chain to become one image", lambda: not case.images(hidden=True), 90, 0.5)
        case.goes_on(vm, 20)
        case.proves_its_blocks(vm)
        print(f"killed at {point}: coalesced all the same, the guest found all its blocks", flush=True)
    case.api("VM.hard_shutdown", vm)


def found_again(case):
    """Forgotten, probed, introduced, scanned: the disks are there."""
    before = {r["uuid"] for r in case.images(hidden=False)}
    for pbd in case.api("SR.get_PBDs", case.sr):
        case.api("PBD.unplug", pbd)
    host = case.pool.host_ref(1)
    probed = case.api("SR.probe", host, case.config, case.kind, {})
    if case.kind in ("ext", "nfs", "lvm"):
        assert case.uuid in probed, probed
    case.api("SR.forget", case.sr)
    case.sr = case.api("SR.introduce", case.uuid, case.kind, "", case.kind, "user", False, {})
    pbd = case.api("PBD.create", {"host": host, "SR": case.sr, "device_config": case.config, "other_config": {}})
    case.api("PBD.plug", pbd)
    assert {r["uuid"] for r in case.images(hidden=False)} == before


def run(case):
    sizes_are_true(case)
    advertised(case)
    vm, snapshot = under_a_guest(case)
    print(f"{case.kind}: snapshots, clone and revert hold what they should", flush=True)
    if case.config.get("image-format") != "qcow2":
        grows_live(case, vm)
    coalesced(case, vm, snapshot)
    case.api("VM.hard_shutdown", vm)
    disk = case.disk(vm)
    size = int(case.api("VDI.get_virtual_size", disk))
    case.api("VDI.resize", disk, str(size + 8 * MIB))
    assert int(case.api("VDI.get_virtual_size", disk)) == size + 8 * MIB
    if case.kind != "dummy":
        found_again(case)
    for record in [r for r in case.api("VM.get_all_records").values() if not r["is_control_domain"] and not r["is_default_template"]]:
        case.api("VM.destroy", next(ref for ref, r in case.api("VM.get_all_records").items() if r["uuid"] == record["uuid"]))
    for ref, record in case.api("VDI.get_all_records").items():
        if record["SR"] == case.sr and record["managed"]:
            case.api("VDI.destroy", ref)
    for pbd in case.api("SR.get_PBDs", case.sr):
        case.api("PBD.unplug", pbd)
    case.api("SR.destroy", case.sr)
    print(f"{case.kind}: gone", flush=True)


def mounts():
    with open("/proc/self/mounts") as f:
        return [line.split()[1] for line in f]


def main():
    if os.geteuid() != 0:
        skip("needs root")
    with P.Pool(hosts=1, options={"allow-faults": "true"}) as pool:
        devices = Devices(pool.dir)
        pool.plain_dir = os.path.join(pool.dir, "plain")
        os.makedirs(pool.plain_dir)
        config = {"location": pool.plain_dir, "image-format": "raw"}
        pool.plain = pool.api("SR.create", pool.host_ref(1), config, "0", "plain", "", "file", "user", False, {})
        pool.api("pool.set_suspend_image_SR", pool.api("pool.get_all")[0], pool.plain)
        export = os.path.join(pool.dir, "export")
        os.makedirs(export)
        try:
            cases = (
                ("ext", {"device": devices.make(600 * MIB)}),
                ("ext", {"device": devices.make(600 * MIB), "filesystem": "xfs", "image-format": "raw"}),
                ("nfs", {"server": "none", "serverpath": export, "options": "bind"}),
                ("lvm", {"device": devices.make(400 * MIB)}),
                ("file", {"location": os.path.join(pool.dir, "file")}),
                ("gfs2", {"location": os.path.join(pool.dir, "gfs2"), "image-format": "qcow2"}),
                ("dummy", {}),
            )
            for kind, config in cases:
                if len(sys.argv) < 2 or kind in sys.argv[1:]:
                    run(Case(pool, kind, config))
            if len(sys.argv) < 2 or "deaths" in sys.argv[1:]:
                deaths(Case(pool, "file", {"location": os.path.join(pool.dir, "dying")}))
            assert not [m for m in mounts() if m.startswith(pool.dir)], mounts()
        except RuntimeError as e:
            if "loop device" not in str(e):
                raise
            skip(str(e))
        finally:
            for mount in [m for m in mounts() if m.startswith(pool.dir)]:
                subprocess.run(["umount", "-l", mount])
            devices.remove()


main()
