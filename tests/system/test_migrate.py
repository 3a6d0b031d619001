#!/usr/bin/env python3
"""VM.pool_migrate between real daemons: live and not, there and back, to the same host, refused, cancelled,
and failing at every step of the source's table: the guest runs on, verified, and nothing is left behind."""
import json
import os
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import pool as P  # noqa: E402

BEFORE_COMMIT = ["journal", "prepare", "connect", "memory", "stream", "ready", "rename", "go"]


def clean(pool, vm, where):
    """Exactly one running copy, on 'where'; no reservation, operation, task, temporary domain or open journal."""
    record = pool.api("VM.get_record", vm)
    assert record["power_state"] == "Running" and record["resident_on"] == where, (record["power_state"], record["resident_on"])
    assert record["scheduled_to_be_resident_on"] == "OpaqueRef:NULL"
    assert record["current_operations"] == {}
    for ref in pool.api("host.get_all"):
        assert pool.api("host.get_current_operations", ref) == {}
    P.wait_until("exactly one domain", lambda: [(h.index, u) for h in pool.hosts for u, _ in h.guests() if u[:8] == record["uuid"][:8]]
                 == [(pool.host_of(where).index, record["uuid"])], 20)
    P.wait_until("disks to be served where the guest is", pool.disks_settled, 20)
    for host in pool.hosts:
        P.wait_until(f"host {host.index}'s journal to be finished", lambda: all(
            m["state"] in ("DONE", "RESUMED", "RUNNING", "ABORTED") for m in json.loads(host.ctl("migrations"))), 20)


def verified(pool, vm):
    data = P.wait_until("the guest's own verdict", lambda: pool.guest_data(vm).get("sim/verify") and pool.guest_data(vm), 20)
    assert data["sim/verify"] == "ok", data
    return int(data["sim/pages_verified"])


def there_and_back(pool, vm, one, two):
    for target, options in ((two, {"live": "true"}), (one, {}), (two, {"live": "false"}), (one, {"force": "true"})):
        before = pool.api("VM.get_domid", vm)
        pool.api("VM.pool_migrate", vm, target, options)
        clean(pool, vm, target)
        assert verified(pool, vm) > 0, before
    pool.api("VM.pool_migrate", vm, one, {})  # to where it is
    clean(pool, vm, one)


def watch_events(pool, vm, one, two):
    """An Async call as clients follow it: progress only grows, both hosts and the VM have events."""
    other = pool.api.another()
    token = other("event.from", ["vm", "host"], "", 5.0)["token"]
    progress = []
    record = pool.api.async_("VM.pool_migrate", vm, two, {"live": "true"}, progress=lambda t: progress.append(t["progress"]))
    assert record["result"] == "<value></value>", record["result"]
    assert progress == sorted(progress) and progress[-1] == 1.0, progress
    touched = set()
    batch = other("event.from", ["vm", "host"], token, 5.0)
    for event in batch["events"]:
        touched.add(event["ref"])
        assert event["class"] in ("vm", "host") and event["snapshot"]["uuid"]
    assert {vm, one, two} <= touched, touched
    pool.api("VM.pool_migrate", vm, one, {})


def cancel_in_precopy(pool, vm, one, two):
    pool.api("VM.add_to_platform", vm, "ignored", "while running")
    host = pool.host_of(one)
    host.ctl("fault", "arm", "migrate.source.ready=stop")
    task = pool.api("Async.VM.pool_migrate", vm, two, {})
    P.wait_until("the operation", lambda: "pool_migrate" in pool.api("VM.get_current_operations", vm).values(), 20)
    pool.api("task.cancel", task)
    host.ctl("fault", "disarm")
    try:
        pool.api.wait_task(task)
    except P.Failure as e:
        assert e.code == "TASK_CANCELLED" and e.params == [task], (e.code, e.params)
        clean(pool, vm, one)
    else:  # it was past the point of no return: then it moved whole
        clean(pool, vm, two)
        pool.api("VM.pool_migrate", vm, one, {})


def fail_everywhere(pool, vm, one, two):
    host = pool.host_of(one)
    for step in BEFORE_COMMIT:
        host.ctl("fault", "arm", f"migrate.source.{step}=error@1")
        P.refused(lambda: pool.api("VM.pool_migrate", vm, two, {}), "INTERNAL_ERROR")
        host.ctl("fault", "disarm")
        clean(pool, vm, one)
        print("failed before", step, "- runs on at the source", flush=True)
    for fault in ("migrate.source.lose-go", "migrate.destination.lose-committed", "migrate.destination.ready"):
        at = host if "source" in fault else pool.host_of(two)
        at.ctl("fault", "arm", f"{fault}=error@1")
        try:
            pool.api("VM.pool_migrate", vm, two, {})
            moved = True
        except P.Failure:
            moved = False
        at.ctl("fault", "disarm")
        clean(pool, vm, two if moved else one)
        print(fault, "->", "moved" if moved else "stayed", flush=True)
        if moved:
            pool.api("VM.pool_migrate", vm, one, {})
    clean(pool, vm, one)
    verified(pool, vm)


def refusals(pool, vm, one, two, local_sr):
    params = P.refused(lambda: pool.api("VM.pool_migrate", "OpaqueRef:nonsense", two, {}), "HANDLE_INVALID")
    assert params == ["VM", "OpaqueRef:nonsense"], params
    halted = pool.make_vm("halted")
    params = P.refused(lambda: pool.api("VM.pool_migrate", halted, two, {}), "VM_BAD_POWER_STATE")
    assert params == [halted, "running", "halted"], params
    local = pool.make_vm("local disk", sr=local_sr)
    pool.api("VM.start_on", local, one, False, False)
    params = P.refused(lambda: pool.api("VM.pool_migrate", local, two, {}), "VM_REQUIRES_SR")
    assert params == [local, local_sr], params
    big = pool.make_vm("big", memory_mib=1500)
    pool.api("VM.start_on", big, two, False, False)
    wide = pool.make_vm("wide", memory_mib=700)
    pool.api("VM.start_on", wide, one, False, False)
    P.refused(lambda: pool.api("VM.pool_migrate", wide, two, {}), "HOST_NOT_ENOUGH_FREE_MEMORY")
    tools = pool.make_vm("no tools", platform={"sim-no-tools": "1"})
    pool.api("VM.start_on", tools, one, False, False)
    assert P.refused(lambda: pool.api("VM.pool_migrate", tools, two, {}), "VM_LACKS_FEATURE") == [tools]
    pool.api("VM.hard_shutdown", big)
    pool.api("VM.pool_migrate", tools, two, {"force": "true"})
    pool.api("host.disable", two)
    assert P.refused(lambda: pool.api("VM.pool_migrate", wide, two, {}), "HOST_DISABLED") == [two]
    pool.api("host.enable", two)


def several_at_once(pool, one, two, sr):
    vms = [pool.make_vm(f"at once {i}", sr=sr, platform={"sim-dirty-mib-s": "8"}) for i in range(4)]
    for vm in vms:
        pool.api("VM.start_on", vm, one, False, False)
    errors = []

    def move(vm):
        try:
            pool.api.another()("VM.pool_migrate", vm, two, {})
        except Exception as e:  # noqa: BLE001
            errors.append(e)

    threads = [threading.Thread(target=move, args=(vm,)) for vm in vms]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not errors, errors
    for vm in vms:
        clean(pool, vm, two)
        verified(pool, vm)


def main():
    with P.Pool(hosts=2, options={"allow-faults": "true"}) as pool:
        sr = pool.make_shared_sr()
        one, two = pool.host_ref(1), pool.host_ref(2)
        local_sr = next(ref for ref, r in pool.api("SR.get_all_records").items() if not r["shared"] and r["content_type"] != "iso" and any(
            pool.api("PBD.get_host", p) == one for p in r["PBDs"]))
        vm = pool.make_vm("mover", sr=sr, platform={"sim-dirty-mib-s": "16", "sim-disk-iops": "100"})
        pool.api("VM.start_on", vm, one, False, False)
        P.wait_until("tools to report", lambda: pool.guest_data(vm).get("feature-suspend") == "1", 20)
        for part in (lambda: there_and_back(pool, vm, one, two), lambda: watch_events(pool, vm, one, two),
                     lambda: cancel_in_precopy(pool, vm, one, two), lambda: fail_everywhere(pool, vm, one, two),
                     lambda: several_at_once(pool, one, two, sr), lambda: refusals(pool, vm, one, two, local_sr)):
            part()


if __name__ == "__main__":
    main()
