#!/usr/bin/env python3
"""VDI.pool_migrate with real daemons, tapds and guests that write: other SR, other format, halted, several at once,
throttled, cancelled, refused, failing and killed at every step. Afterwards the guest proves every block it was told
was written, exactly one image is left, and no note, user or row of the move."""
import json
import os
import shutil
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import pool as P  # noqa: E402

STEPS = ["make", "attach", "mirror", "follow", "switch"]
AFTER = ["commit", "clean"]
DISK_MIB = 24


def images(path):
    return sorted(n for n in os.listdir(path) if n.endswith((".vhd", ".raw", ".qcow2")))


class World:
    def __init__(self, pool):
        self.pool, self.api = pool, pool.api
        self.host = pool.host_ref(1)
        self.dirs, self.srs = [], []
        for name in ("one", "two"):
            path = os.path.join(pool.dir, "sr-" + name)
            os.makedirs(path)
            self.dirs.append(path)
            self.srs.append(self.api("SR.create", self.host, {"location": path}, "0", name, "", "file", "user", False, {}))
        self.vm = pool.make_vm("writer", sr=self.srs[0], disk_mib=DISK_MIB, platform={"sim-disk-iops": "400"})
        self.api("VM.start", self.vm, False, False)
        self.vbd = self.api("VM.get_VBDs", self.vm)[0]

    def vdi(self, vbd=None):
        return self.api("VBD.get_VDI", vbd or self.vbd)

    def where(self, vbd=None):
        return self.srs.index(self.api("VDI.get_SR", self.vdi(vbd)))

    def other(self):
        return self.srs[1 - self.where()]

    def taps(self):
        """What the host's tapds say of themselves."""
        return json.loads(self.pool.hosts[0].ctl("tapd", "json"))

    def verified(self):
        """The guest reads back what it was told was written: it does so after a move of its memory."""
        self.api("VM.pool_migrate", self.vm, self.host, {"live": "true"})
        def told():
            data = self.pool.guest_data(self.vm)
            return data if "sim/verify" in data and (data["sim/verify"] != "ok" or int(data["sim/blocks_verified"]) > 0) else None
        data = P.wait_until("the guest's own verdict", told, 30)
        assert data["sim/verify"] == "ok", data

    def clean(self, here):
        """Running, its disk in SR number 'here', exactly one image, and no trace of a move."""
        record = self.api("VM.get_record", self.vm)
        assert record["power_state"] == "Running" and record["current_operations"] == {}, record
        vdi = self.api("VDI.get_record", self.vdi())
        assert vdi["SR"] == self.srs[here], (vdi["SR"], self.srs)
        assert "move" not in vdi["sm_config"] and vdi["current_operations"] == {}, vdi
        rows = [r for r in self.api("VDI.get_all_records").values() if r["SR"] in self.srs and r["type"] == "user"]
        assert len(rows) == len(record["VBDs"]), [(r["name_label"], r["SR"], r["sm_config"]) for r in rows]
        P.wait_until("no users of the move", lambda: not any(u.startswith("move-") for t in self.taps() for u in t["users"]), 20)
        P.wait_until("one image", lambda: (len(images(self.dirs[here])), images(self.dirs[1 - here])) == (len(record["VBDs"]), []), 20)
        self.verified()

    def move(self, sr=None, **options):
        return self.api.async_("VDI.pool_migrate", self.vdi(), sr or self.other(), options)


def there_and_back(w):
    for options in ({}, {"bandwidth": "unlimited"}, {"dest-img-format": "raw"}, {"dest-img-format": "vhd"}):
        old = w.vdi()
        uuid, name = w.api("VDI.get_uuid", old), w.api("VDI.get_name_label", old)
        target = 1 - w.where()
        task = w.move(**options)
        assert w.vdi() != old and w.api("VDI.get_uuid", w.vdi()) != uuid and w.api("VDI.get_name_label", w.vdi()) == name
        P.refused(lambda: w.api("VDI.get_uuid", old), "HANDLE_INVALID")
        assert int(task["other_config"]["migrate:proven"]) >= 0 and int(task["other_config"]["migrate:bytes"]) > 0, task
        assert w.vdi() in task["result"]
        if "dest-img-format" in options:
            assert w.api("VDI.get_sm_config", w.vdi())["type"] == options["dest-img-format"]
        w.clean(target)


def qcow2(w):
    if shutil.which("qemu-storage-daemon") is None:
        print("qcow2: skipped, there is no qemu-storage-daemon")
        return
    for word, kind in (("intelligent", "qcow2"), ("high-speed", "raw")):
        target = 1 - w.where()
        w.move(**{"dest-img-format": word})
        assert w.api("VDI.get_sm_config", w.vdi())["type"] == kind
        w.clean(target)


def refusals(w):
    lonely = w.api("VDI.create", {"name_label": "lonely", "SR": w.srs[0], "virtual_size": str(P.MIB), "type": "user"})
    assert P.refused(lambda: w.api("VDI.pool_migrate", lonely, w.srs[1], {}), "VDI_NEEDS_VM_FOR_MIGRATE") == [lonely]
    w.api("VDI.destroy", lonely)
    here = w.srs[w.where()]
    assert P.refused(lambda: w.api("VDI.pool_migrate", w.vdi(), here, {"bandwidth": "fast"}), "VALUE_NOT_SUPPORTED")[0] == "bandwidth"
    assert P.refused(lambda: w.move(bandwidth="warp"), "VALUE_NOT_SUPPORTED")[0] == "bandwidth"
    assert P.refused(lambda: w.move(**{"dest-img-format": "vmdk"}), "VALUE_NOT_SUPPORTED")[0] == "dest-img-format"
    assert w.api("VDI.pool_migrate", w.vdi(), here, {}) == w.vdi()
    w.api("VM.pause", w.vm)
    assert P.refused(lambda: w.move(), "VM_BAD_POWER_STATE")[1:] == ["halted, suspended, running", "paused"]
    w.api("VM.unpause", w.vm)
    w.clean(w.where())


def cancelled(w):
    here, old = w.where(), w.vdi()
    task = w.api("Async.VDI.pool_migrate", old, w.other(), {"bandwidth": "1"})
    P.wait_until("progress", lambda: w.api("task.get_progress", task) > 0.05, 60)
    w.api("task.cancel", task)
    P.refused(lambda: w.api.wait_task(task), "TASK_CANCELLED")
    assert w.vdi() == old
    w.clean(here)


def sped_up(w):
    """Slow at first, then let go by the task's other_config; progress never goes back."""
    target, seen = 1 - w.where(), []
    task = w.api("Async.VDI.pool_migrate", w.vdi(), w.other(), {"bandwidth": "1"})
    P.wait_until("progress", lambda: w.api("task.get_progress", task) > 0.03, 60)
    w.api("task.add_to_other_config", task, "bandwidth", "unlimited")
    w.api.wait_task(task, progress=lambda t: seen.append(t["progress"]))
    assert seen == sorted(seen), seen
    w.clean(target)


def several_at_once(w):
    """A second disk of the same VM moves beside the first."""
    sr = w.srs[w.where()]
    vdi = w.api("VDI.create", {"name_label": "second", "SR": sr, "virtual_size": str(DISK_MIB * P.MIB), "type": "user"})
    vbd = w.api("VBD.create", {"VM": w.vm, "VDI": vdi, "userdevice": "1", "bootable": False, "mode": "RW", "type": "Disk", "empty": False})
    w.api("VBD.plug", vbd)
    target, overlap = 1 - w.where(), []
    tasks = [w.api("Async.VDI.pool_migrate", w.vdi(b), w.other(), {"bandwidth": "8"}) for b in (w.vbd, vbd)]
    P.wait_until("both to move", lambda: list(w.api("VM.get_current_operations", w.vm).values()) == ["migrate_send"] * 2, 30)
    for task in tasks:
        w.api.wait_task(task, progress=lambda t: overlap.append(t["progress"]))
    assert w.where(vbd) == target and w.where() == target
    w.api("VBD.unplug", vbd)
    second = w.vdi(vbd)
    w.api("VBD.destroy", vbd)
    w.api("VDI.destroy", second)
    w.clean(target)


def halted(w):
    w.api("VM.hard_shutdown", w.vm)
    target = 1 - w.where()
    w.move()
    assert w.where() == target and images(w.dirs[1 - target]) == []
    w.api("VM.start", w.vm, False, False)
    w.clean(target)


def quarantined(w):
    target, old = 1 - w.where(), w.vdi()
    w.move(quarantine_s="3600")
    assert int(w.api("VDI.get_other_config", old)["quarantine_until"]) > 0 and w.api("VDI.get_VBDs", old) == []
    w.api("VDI.destroy", old)
    w.clean(target)


def failing_steps(w):
    for step in STEPS:
        here = w.where()
        w.pool.hosts[0].ctl("fault", "arm", f"disk.move.{step}=error")
        P.refused(lambda: w.move(), "INTERNAL_ERROR")
        w.pool.hosts[0].ctl("fault", "disarm")
        w.clean(here)


def daemon_killed(w):
    """kill -9 of the daemon at every step; what it left is settled when it is back."""
    host = w.pool.hosts[0]
    for step in STEPS + AFTER:
        here = w.where()
        host.ctl("fault", "arm", f"disk.move.{step}=crash")
        try:
            w.api("Async.VDI.pool_migrate", w.vdi(), w.other(), {})
            P.wait_until("the daemon's death", lambda: host.process.poll() is not None, 60)
        finally:
            host.stop()
        host.start()
        w.api.login()
        P.wait_until("the move to be settled", lambda: not any(
            "move" in r["sm_config"] for r in w.api("VDI.get_all_records").values()), 60)
        w.clean(1 - here if step in AFTER else here)


def killed_in_mid_mirror(w):
    host, here = w.pool.hosts[0], w.where()
    task = w.api("Async.VDI.pool_migrate", w.vdi(), w.other(), {"bandwidth": "2"})
    P.wait_until("progress", lambda: w.api("task.get_progress", task) > 0.05, 60)
    host.kill()
    host.start()
    w.api.login()
    P.wait_until("the move to be settled", lambda: not any("move" in r["sm_config"] for r in w.api("VDI.get_all_records").values()), 60)
    w.clean(here)


def tapd_killed(w):
    """kill -9 of the tapd in mid-mirror: it comes back, goes on from its map, and the move completes."""
    target = 1 - w.where()
    task = w.api("Async.VDI.pool_migrate", w.vdi(), w.other(), {"bandwidth": "4"})
    for fraction in (0.1, 0.4):
        P.wait_until("progress", lambda: w.api("task.get_progress", task) > fraction, 60)
        tap = next(t for t in w.taps() if any(u.startswith("move-") for u in t["users"]))
        os.kill(int(tap["pid"]), signal.SIGKILL)
    w.api("task.add_to_other_config", task, "bandwidth", "unlimited")
    w.api.wait_task(task)
    w.clean(target)


def main():
    with P.Pool(hosts=1, directory=os.environ.get("KEEP"), options=dict({"allow-faults": "true"}, **({"tapd-program": os.environ["TAPD"]} if "TAPD" in os.environ else {}))) as pool:
        w = World(pool)
        for case in (there_and_back, qcow2, refusals, cancelled, sped_up, several_at_once, halted, quarantined, failing_steps, daemon_killed,
                     killed_in_mid_mirror, tapd_killed):
            print(case.__name__, flush=True)
            case(w)


if __name__ == "__main__":
    main()
