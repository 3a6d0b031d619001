#!/usr/bin/env python3
"""VM.migrate_send between real daemons: a running guest that writes its local disk goes to another host, to another pool and
back, with snapshots; so do suspended and halted VMs; copies; cancelled, paused, started, shut down in the middle, failing at
every step. Afterwards exactly one copy runs and proves its memory and disks, and nothing is left anywhere."""
import json
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import pool as P  # noqa: E402

DISK_MIB = 24
BEFORE_SWITCH = ["note", "open", "preflight", "copy", "mirror", "admit", "send"]
NULL = "OpaqueRef:NULL"


def local_sr(pool, index, more=""):
    path = os.path.join(pool.dir, f"local-{index}{more}")
    os.makedirs(path, exist_ok=True)
    return pool.api("SR.create", pool.host_ref(index), {"location": path}, "0", f"Local {index}{more}", "", "file", "user", False, {})


def management(pool, index):
    """The network of a host's management interface."""
    host = pool.host_ref(index)
    return next(r["network"] for r in pool.api("PIF.get_all_records").values() if r["host"] == host and r["management"])


def token(pool, index):
    return pool.api("host.migrate_receive", pool.host_ref(index), management(pool, index), {})


def disks(pool, vm):
    vbds = [pool.api("VBD.get_record", ref) for ref in pool.api("VM.get_VBDs", vm)]
    return [v["VDI"] for v in sorted(vbds, key=lambda v: v["userdevice"]) if v["VDI"] != NULL]


def images(pool, index):
    path = os.path.join(pool.dir, f"local-{index}")
    return sorted(n for n in os.listdir(path) if n.endswith((".vhd", ".raw", ".qcow2")))


def quiet(*pools):
    """No mark, task, reservation, journal entry, unfinished ledger row or foreign user of a disk anywhere."""
    for pool in pools:
        for ref, vm in pool.api("VM.get_all_records").items():
            assert vm["current_operations"] == {} and vm["scheduled_to_be_resident_on"] == NULL, (vm["name_label"], vm["current_operations"])
            assert "incoming" not in vm["other_config"], vm["other_config"]
        for vdi in pool.api("VDI.get_all_records").values():
            assert vdi["current_operations"] == {}, vdi
        for host in pool.hosts:
            P.wait_until("journals to be finished", lambda: all(m["state"] in ("DONE", "RESUMED", "RUNNING", "ABORTED")
                         for m in json.loads(host.ctl("migrations"))), 20)
        P.wait_until("disks to be served where the guests are", pool.disks_settled, 30)


def verified(pool, vm):
    def told():
        data = pool.guest_data(vm)
        return data if "sim/verify" in data and int(data.get("sim/pages_verified", "0")) > 0 else None
    data = P.wait_until("the guest's own verdict", told, 30)
    assert data["sim/verify"] == "ok", data


def runs(pool, vm, index, power="Running"):
    record = pool.api("VM.get_record", vm)
    assert record["power_state"] == power and record["resident_on"] == pool.host_ref(index), (record["power_state"], record["resident_on"])
    found = [(host.index, u) for host in pool.hosts for u, _ in host.guests() if u[:8] == record["uuid"][:8]]
    assert found == [(index, record["uuid"])], found
    return record


class World:
    """Two hosts in one pool and a pool of one beside it; a local SR on each."""

    def __init__(self, pool, other):
        self.pool, self.other, self.api = pool, other, pool.api
        self.srs = {1: local_sr(pool, 1), 2: local_sr(pool, 2)}
        self.far = local_sr(other, 1)
        other.api("pool.set_default_SR", other.api("pool.get_all")[0], self.far)

    def vm(self, name, start=True, **platform):
        vm = self.pool.make_vm(name, sr=self.srs[1], disk_mib=DISK_MIB, platform=dict({"sim-disk-iops": "400"}, **platform))
        if start:
            self.api("VM.start_on", vm, self.pool.host_ref(1), False, False)
        return vm

    def send(self, vm, index, sr=None, options=None, source=None, **more):
        """Within the pool."""
        vdi_map = {vdi: sr or self.srs[index] for vdi in disks(self.pool, vm)}
        return self.pool.api.async_("VM.migrate_send", vm, token(self.pool, index), True, vdi_map, {}, options or {}, **more)

    def send_far(self, vm, options=None, source=None, target=None, sr=None, vifs=None):
        source, target = source or self.pool, target or self.other
        vdi_map = {vdi: sr or self.far for vdi in disks(source, vm)}
        vif_map = {vif: management(target, 1) for vif in source.api("VM.get_VIFs", vm)}
        return source.api.async_("VM.migrate_send", vm, token(target, 1), True, vdi_map, vif_map, options or {})

    def destroy(self, pool, vm):
        if pool.api("VM.get_power_state", vm) != "Halted":
            pool.api("VM.hard_shutdown", vm)
        vdis = set(disks(pool, vm))
        for snapshot in pool.api("VM.get_snapshots", vm):
            vdis |= set(disks(pool, snapshot))
            pool.api("VM.destroy", snapshot)
        pool.api("VM.destroy", vm)
        for vdi in vdis:
            pool.api("VDI.destroy", vdi)

    def empty(self):
        P.wait_until("no image anywhere", lambda: [images(self.pool, 1), images(self.pool, 2), images(self.other, 1)] == [[], [], []], 20)
        quiet(self.pool, self.other)


def result_ref(task):
    return task["result"].replace("<value>", "").replace("</value>", "")


def refused(call, *codes):
    try:
        call()
    except P.Failure as e:
        assert e.code in codes, (e.code, e.params)
        return e
    raise AssertionError(f"expected {codes}")


def in_the_pool(w):
    """There and back with a local disk, two disks, and a snapshot."""
    vm = w.vm("local")
    extra = w.api("VDI.create", {"name_label": "second", "SR": w.srs[1], "virtual_size": str(8 * P.MIB), "type": "user"})
    vbd = w.api("VBD.create", {"VM": vm, "VDI": extra, "userdevice": "1", "bootable": False, "mode": "RW", "type": "Disk", "empty": False})
    w.api("VBD.plug", vbd)
    for index in (2, 1):
        old = disks(w.pool, vm)
        task = w.send(vm, index)
        assert result_ref(task) == vm, task["result"]
        runs(w.pool, vm, index)
        assert [w.api("VDI.get_SR", v) for v in disks(w.pool, vm)] == [w.srs[index]] * 2
        assert not set(old) & set(disks(w.pool, vm)) and not set(old) & set(w.api("VDI.get_all"))
        assert images(w.pool, 3 - index) == [] and len(images(w.pool, index)) == 2
        verified(w.pool, vm)
        quiet(w.pool)
    w.api("VM.snapshot", vm, "before")
    w.send(vm, 2)
    runs(w.pool, vm, 2)
    verified(w.pool, vm)
    assert images(w.pool, 1) == [], images(w.pool, 1)
    snapshot = w.api("VM.get_snapshots", vm)[0]
    originals = [w.api("VDI.get_snapshot_of", v) for v in disks(w.pool, snapshot)]
    assert originals == disks(w.pool, vm), (originals, disks(w.pool, vm))
    w.destroy(w.pool, vm)
    w.empty()


def between_pools(w):
    """The VM keeps what identifies it; its old record is gone; and back again."""
    vm = w.vm("traveller")
    w.api("VM.set_tags", vm, ["blue"])
    w.api("VM.add_to_other_config", vm, "mine", "yes")
    vif = w.api("VIF.create", {"device": "0", "network": management(w.pool, 1), "VM": vm, "MAC": "", "MTU": "1500", "other_config": {},
                               "qos_algorithm_type": "", "qos_algorithm_params": {}})
    mac = w.api("VIF.get_MAC", vif)
    snapshot_name = w.api("VM.get_name_label", w.api("VM.snapshot", vm, "before"))
    before = w.api("VM.get_record", vm)
    there = result_ref(w.send_far(vm))
    refused(lambda: w.api("VM.get_uuid", vm), "HANDLE_INVALID")
    record = runs(w.other, there, 1)
    for field in ("uuid", "name_label", "tags", "memory_static_max", "platform"):
        assert record[field] == before[field], (field, record[field], before[field])
    assert record["other_config"]["mine"] == "yes" and record["affinity"] == w.other.host_ref(1)
    assert [w.other.api("VIF.get_MAC", v) for v in record["VIFs"]] == [mac]
    assert [w.other.api("VM.get_name_label", s) for s in record["snapshots"]] == [snapshot_name]
    assert images(w.pool, 1) == [], images(w.pool, 1)
    verified(w.other, there)
    quiet(w.pool, w.other)
    back = result_ref(w.send_far(there, source=w.other, target=w.pool, sr=w.srs[1]))
    runs(w.pool, back, 1)
    verified(w.pool, back)
    assert images(w.other, 1) == [] and w.other.api("VM.get_all_records").keys() == {r for r, v in w.other.api("VM.get_all_records").items()
                                                                                      if v["is_a_template"] or v["is_control_domain"]}
    w.destroy(w.pool, back)
    w.empty()


def where_it_is(w):
    """To other storage of the same host: no memory is sent. And disks that no map names find their way by the pool's default SR."""
    vm, second = w.vm("settler"), local_sr(w.pool, 1, "b")
    domid = w.api("VM.get_domid", vm)
    for sr in (second, w.srs[1]):
        task = w.send(vm, 1, sr=sr)
        assert w.api("VM.get_domid", vm) == domid and w.api("VDI.get_SR", disks(w.pool, vm)[0]) == sr
        assert "migrate:blackout_us" not in task["other_config"], task["other_config"]
        quiet(w.pool)
    there = result_ref(w.api.async_("VM.migrate_send", vm, token(w.other, 1), True, {}, {}, {}))
    assert w.other.api("VDI.get_SR", disks(w.other, there)[0]) == w.far
    verified(w.other, there)
    w.destroy(w.other, there)
    w.api("PBD.unplug", w.api("SR.get_PBDs", second)[0])
    w.api("SR.forget", second)
    w.empty()


def not_running(w):
    """Halted and suspended, in the pool and to the other; a copy; the source kept."""
    vm = w.vm("sleeper", start=False)
    assert result_ref(w.send(vm, 2)) == vm
    assert w.api("VM.get_power_state", vm) == "Halted" and w.api("VDI.get_SR", disks(w.pool, vm)[0]) == w.srs[2] and images(w.pool, 1) == []
    there = result_ref(w.send_far(vm, {"copy": "true"}))
    assert w.other.api("VM.get_uuid", there) != w.api("VM.get_uuid", vm) and w.other.api("VM.get_power_state", there) == "Halted"
    w.destroy(w.other, there)
    there = result_ref(w.send_far(vm, {"keep_source": "true"}))
    assert w.other.api("VM.get_uuid", there) == w.api("VM.get_uuid", vm)
    w.destroy(w.other, there)
    there = result_ref(w.send_far(vm))
    w.other.api("VM.start", there, False, False)
    w.other.api("pool.set_suspend_image_SR", w.other.api("pool.get_all")[0], w.far)
    w.other.api("VM.suspend", there)
    back = result_ref(w.send_far(there, source=w.other, target=w.pool, sr=w.srs[1]))
    assert w.api("VM.get_power_state", back) == "Suspended" and images(w.other, 1) == [], images(w.other, 1)
    w.api("VM.resume_on", back, w.pool.host_ref(1), False, False)
    runs(w.pool, back, 1)
    verified(w.pool, back)
    w.destroy(w.pool, back)
    w.empty()


def steps_fail(w):
    """An error before each step up to the switch, in the pool and between pools: the guest stays, nothing is left."""
    vm = w.vm("stubborn")
    for far in (False, True):
        for step in BEFORE_SWITCH:
            w.pool.hosts[0].ctl("fault", "arm", f"migrate.move.{step}=error")
            refused(lambda: w.send_far(vm) if far else w.send(vm, 2), "INTERNAL_ERROR")
            w.pool.hosts[0].ctl("fault", "disarm")
            runs(w.pool, vm, 1)
            assert images(w.pool, 2) == [] and images(w.other, 1) == [], step
            quiet(w.pool, w.other)
    w.send(vm, 2)
    verified(w.pool, vm)
    w.destroy(w.pool, vm)
    w.empty()


def interrupted(w):
    """Cancelled while its disk goes over; a halted one started; a running one paused and one shut down in the middle."""
    vm = w.vm("busy")
    sr = {vdi: w.srs[2] for vdi in disks(w.pool, vm)}
    task = w.api("Async.VM.migrate_send", vm, token(w.pool, 2), True, sr, {}, {"bandwidth": "1"})
    P.wait_until("the mirror", lambda: w.api("task.get_other_config", task).get("migrate:phase") == "mirror", 30)
    w.api("task.cancel", task)
    P.wait_until("the end", lambda: w.api("task.get_status", task) == "cancelled", 30)
    runs(w.pool, vm, 1)
    assert images(w.pool, 2) == []
    quiet(w.pool)
    w.api("VM.clean_shutdown", vm)
    # the memory of a paused one is not sent live, and it stays paused
    w.api("VM.start_on", vm, w.pool.host_ref(1), False, False)
    task = w.api("Async.VM.migrate_send", vm, token(w.pool, 2), True, {v: w.srs[2] for v in disks(w.pool, vm)}, {}, {"hold": "true"})
    P.wait_until("the memory", lambda: w.api("task.get_other_config", task).get("migrate:phase") == "send", 60)
    w.pool.api.another()("VM.pause", vm)
    P.wait_until("the end", lambda: w.api("task.get_status", task) == "success", 30)
    runs(w.pool, vm, 2, "Paused")
    w.api("VM.unpause", vm)
    verified(w.pool, vm)
    # shut down while it is held before the switch: the disks arrive, the VM is halted
    task = w.api("Async.VM.migrate_send", vm, token(w.pool, 1), True, {v: w.srs[1] for v in disks(w.pool, vm)}, {}, {"hold": "true"})
    P.wait_until("the memory", lambda: w.api("task.get_other_config", task).get("migrate:phase") == "send", 60)
    w.pool.api.another()("VM.clean_shutdown", vm)
    w.api("task.add_to_other_config", task, "release", "true")  # what holds a switch holds that of the disks alone, too
    P.wait_until("the end", lambda: w.api("task.get_status", task) != "pending", 60)
    assert w.api("task.get_status", task) == "success", w.api("task.get_error_info", task)
    assert w.api("VM.get_power_state", vm) == "Halted" and w.api("VDI.get_SR", disks(w.pool, vm)[0]) == w.srs[1]
    # a halted one is started in the middle: the move gives way
    task = w.api("Async.VM.migrate_send", vm, token(w.pool, 2), True, {v: w.srs[2] for v in disks(w.pool, vm)}, {}, {"bandwidth": "1"})
    P.wait_until("the mirror", lambda: w.api("task.get_other_config", task).get("migrate:phase") == "mirror", 30)
    w.pool.api.another()("VM.start_on", vm, w.pool.host_ref(1), False, False)
    assert w.api("task.get_status", task) == "cancelled"
    runs(w.pool, vm, 1)
    w.destroy(w.pool, vm)
    w.empty()


CASES = [in_the_pool, where_it_is, between_pools, not_running, steps_fail, interrupted]


def main():
    wanted = sys.argv[1:]
    options = {"allow-faults": "true"}
    with P.Pool(hosts=2, options=options) as pool, P.second_pool(pool) as other:
        w = World(pool, other)
        for case in CASES:
            if not wanted or case.__name__ in wanted:
                began = time.monotonic()
                case(w)
                print(f"{case.__name__}: {time.monotonic() - began:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
