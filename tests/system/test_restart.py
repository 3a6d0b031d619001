#!/usr/bin/env python3
"""xapi killed with -9 and started again: guests run on, refs and uuids stay, what was acknowledged is there, and
a migration cut short by the death of either side ends with exactly one running, verified guest."""
import os
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import pool as P  # noqa: E402


def guests_survive(pool):
    vm = pool.make_vm("survivor", sr=pool.shared_sr, platform={"sim-dirty-mib-s": "4", "sim-disk-iops": "100"})
    pool.api("VM.start_on", vm, pool.host_ref(1), False, False)
    before = pool.hosts[0].guests()
    pool.api("VM.set_name_description", vm, "written just before the kill")
    records = pool.api("host.get_all_records")
    pool.hosts[0].kill()
    assert pool.hosts[0].guests() == before, "the guest died with the daemon"
    pool.hosts[0].start()
    pool.api = P.Api(pool.hosts[0].url).login()
    P.wait_until("the pool to be whole again", pool.all_live, 60)
    assert pool.api("VM.get_name_description", vm) == "written just before the kill"
    assert pool.api("VM.get_power_state", vm) == "Running"
    assert {r["uuid"] for r in records.values()} == {r["uuid"] for r in pool.api("host.get_all_records").values()}
    assert set(records) == set(pool.api("host.get_all"))
    P.wait_until("the guest's data", lambda: pool.guest_data(vm), 30)
    return vm


def one_copy(pool, uuid):
    return [(h.index, u) for h in pool.hosts for u, _ in h.guests() if u[:24] == uuid[:24]]


def killed_in_migration(pool, vm, victim, point):
    """'victim' dies at a fault point on the way from host 2 to host 3; then it is started again."""
    two, three = pool.host_ref(2), pool.host_ref(3)
    uuid = pool.api("VM.get_uuid", vm)
    if pool.api("VM.get_resident_on", vm) != two:
        pool.api("VM.pool_migrate", vm, two, {})
    victim.stop()
    victim.env = {"FAULTS": f"{point}=crash@1"}
    victim.start()
    P.wait_until("the pool to be whole", pool.all_live, 60)
    failed = []

    def move():
        try:
            pool.api.another()("VM.pool_migrate", vm, three, {})
        except Exception as e:  # noqa: BLE001
            failed.append(e)

    mover = threading.Thread(target=move)
    mover.start()
    P.wait_until("the daemon to die", lambda: victim.process.poll() is not None or not mover.is_alive(), 60)
    assert victim.process.poll() is not None, f"{point} was not reached: {failed}"
    victim.process, victim.env = None, {}
    victim.start()
    mover.join(90)
    assert not mover.is_alive(), "the call hangs"
    P.wait_until("exactly one copy under its own name", lambda: len(one_copy(pool, uuid)) == 1 and one_copy(pool, uuid)[0][1] == uuid, 60)
    where = one_copy(pool, uuid)[0][0]
    P.wait_until("the database to say so", lambda: pool.api("VM.get_resident_on", vm) == pool.host_ref(where)
                 and pool.api("VM.get_power_state", vm) == "Running" and not pool.api("VM.get_current_operations", vm), 60)
    P.wait_until("the pool to be whole again", pool.all_live, 60)
    print(f"{point}: the guest runs on host {where}; the call said {failed or 'success'}", flush=True)
    pool.api("VM.pool_migrate", vm, two if where == 3 else three, {})
    P.wait_until("its verdict", lambda: pool.guest_data(vm).get("sim/verify") == "ok", 30)
    P.wait_until("disks to be served where the guest is", pool.disks_settled, 30)


def stopped_in_migration(pool, vm, victim):
    """SIGTERM while memory is on its way: the daemon ends at once and cleanly, and the guest runs on at the source."""
    two, three = pool.host_ref(2), pool.host_ref(3)
    if pool.api("VM.get_resident_on", vm) != two:
        pool.api("VM.pool_migrate", vm, two, {})
    task = pool.api("Async.VM.pool_migrate", vm, three, {"bandwidth": "1"})
    P.wait_until("memory to flow", lambda: pool.api("task.get_progress", task) > 0.05, 30)
    assert victim.stop() == 0, "the daemon did not end cleanly"
    try:
        pool.api.wait_task(task, 60)
        raise AssertionError("it cannot have moved")
    except P.Failure as e:
        print("stopped", victim.index, "->", e, flush=True)
    victim.start()
    P.wait_until("the pool to be whole again", pool.all_live, 60)
    P.wait_until("the guest to be the source's again", lambda: one_copy(pool, pool.api("VM.get_uuid", vm)) == [(2, pool.api("VM.get_uuid", vm))]
                 and pool.api("VM.get_resident_on", vm) == two and pool.api("VM.get_power_state", vm) == "Running", 30)


def main():
    with P.Pool(hosts=3, options={"allow-faults": "true"}) as pool:
        pool.make_shared_sr()
        vm = guests_survive(pool)
        source, destination = pool.hosts[1], pool.hosts[2]
        for victim in (source, destination):
            stopped_in_migration(pool, vm, victim)
        for point in ("migrate.source.memory", "migrate.source.ready", "migrate.source.go", "migrate.source.running"):
            killed_in_migration(pool, vm, source, point)
        for point in ("migrate.destination.ready", "migrate.destination.lose-committed"):
            killed_in_migration(pool, vm, destination, point)


if __name__ == "__main__":
    main()
