#!/usr/bin/env python3
"""The ledger, the queue, the live view, /metrics, bulk moves and an operator's decisions, through real daemons."""
import base64
import csv
import http.client
import io
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import pool as P  # noqa: E402

DISK_MIB = 8
LIMIT = "storage-migrations-per-pool"


class World:
    def __init__(self, pool):
        self.pool, self.api = pool, pool.api
        self.hosts = [pool.host_ref(1), pool.host_ref(2)]
        self.srs = []
        for name in ("one", "two"):
            path = os.path.join(pool.dir, "sr-" + name)
            os.makedirs(path)
            self.srs.append(self.api("SR.create", self.hosts[0], {"location": path}, "0", name, "", "file", "user", False, {}))
        self.vms = [pool.make_vm(f"disk {i}", sr=self.srs[0], disk_mib=DISK_MIB) for i in range(4)]

    def vdi(self, vm):
        return self.api("VBD.get_VDI", self.api("VM.get_VBDs", vm)[0])

    def sr(self, vm):
        return self.api("VDI.get_SR", self.vdi(vm))

    def other(self, vm):
        return self.srs[1 - self.srs.index(self.sr(vm))]

    def move(self, vm, **options):
        return self.api("Async.VDI.pool_migrate", self.vdi(vm), self.other(vm), options)

    def history(self, *words):
        return json.loads(self.pool.hosts[0].ctl("migrations", "--history", "--json", *words))

    def of_vm(self, vm):
        return self.history("--vm", self.api("VM.get_uuid", vm))

    def limit(self, n):
        pool = self.api("pool.get_all")[0]
        self.api("pool.remove_from_other_config", pool, LIMIT)
        if n is not None:
            self.api("pool.add_to_other_config", pool, LIMIT, str(n))

    def note(self, task, key):
        return self.api("task.get_other_config", task).get("migrate:" + key, "")

    def await_note(self, task, key, value):
        P.wait_until(f"{key} to be {value}", lambda: self.note(task, key) == value, 60)

    def ctl_fails(self, index, *words):
        host = self.pool.hosts[index]
        done = subprocess.run([os.path.join(P.BUILD, "xapi-ctl"), "--config", os.path.join(host.dir, "xapi.conf"), *words], text=True,
                              capture_output=True, timeout=60)
        assert done.returncode != 0, done.stdout
        return done.returncode, done.stderr


def rows(w):
    vm = w.vms[0]
    uuid = w.api("VM.get_uuid", vm)
    w.api.wait_task(w.move(vm))
    (row,) = w.of_vm(vm)
    assert (row["kind"], row["outcome"], row["stage"], row["vm_name"]) == ("VDI.pool_migrate", "success", "done", "disk 0"), row
    assert row["user"] == "root" and row["ended_ms"] >= row["began_ms"] > 0 and "note" not in row and "key" not in row, row
    assert int(row["facts"]["bytes"]) >= 0 and row["facts"]["sr_to"] == w.api("SR.get_uuid", w.sr(vm)), row
    assert w.history("--outcome", "failed") == [] and w.history("--since", "2100-01-01") == []
    assert len(w.history("--outcome", "success", "--since", "2020-01-01T00:00:00Z", "--limit", "1")) == 1
    (line,) = csv.DictReader(io.StringIO(w.pool.hosts[0].ctl("migrations", "--history", "--csv")))
    assert (line["id"], line["vm_uuid"], line["outcome"]) == (row["id"], uuid, "success"), line
    assert row["id"] in w.pool.hosts[0].ctl("migrations", "show", row["id"])
    assert "no migration" in w.ctl_fails(0, "migrations", "show", "nothing")[1]
    assert "coordinator" in w.ctl_fails(1, "migrations", "--history")[1]


def cancelled(w):
    vm = w.vms[0]
    task = w.move(vm, hold="true")
    w.await_note(task, "waiting_for", "release")
    w.api("task.cancel", task)
    P.refused(lambda: w.api.wait_task(task), "TASK_CANCELLED")
    assert w.of_vm(vm)[0]["outcome"] == "cancelled", w.of_vm(vm)
    assert len(w.of_vm(vm)) == 2


def held(w):
    """The mirror follows until somebody says that the switch may happen."""
    vm, before = w.vms[0], w.sr(w.vms[0])
    task = w.move(vm, hold="true")
    w.await_note(task, "waiting_for", "release")
    assert w.sr(vm) == before
    w.api("task.add_to_other_config", task, "release", "true")
    w.api.wait_task(task)
    assert w.sr(vm) != before
    P.refused(lambda: w.api.wait_task(w.move(vm, window="25:00-26:00")), "INVALID_VALUE")


def queued(w):
    a, b, c, d = w.vms
    w.limit(1)
    running = w.move(a, hold="true")
    w.await_note(running, "waiting_for", "release")
    second = w.move(b)
    w.await_note(second, "queue_position", "1")
    urgent = w.move(c, priority="5")
    w.await_note(urgent, "queue_position", "1")
    w.await_note(second, "queue_position", "2")
    assert w.note(second, "phase") == "queued" and w.api("task.get_progress", second) == 0
    assert P.refused(lambda: w.api.wait_task(w.move(d, queue="refuse")), "TOO_MANY_STORAGE_MIGRATES") == ["1"]
    assert {r["stage"] for r in json.loads(w.pool.hosts[0].ctl("migrations", "--history", "--json"))} == {"done", "queued", "send"}
    assert 'xapi_migration_queue_length 2\n' in metrics_text(w)
    w.api("task.cancel", second)
    P.refused(lambda: w.api.wait_task(second), "TASK_CANCELLED")
    assert w.of_vm(b)[0]["outcome"] == "cancelled"
    w.api("task.add_to_other_config", running, "release", "true")
    for task in (running, urgent):
        w.api.wait_task(task)
    assert "queued_ms" in w.of_vm(c)[0]["facts"], w.of_vm(c)
    w.limit(None)


def restarted(w):
    """kill -9 of the coordinator with one under way and two in the queue: the queue goes on by itself."""
    a, b, c, d = w.vms
    before = {vm: w.sr(vm) for vm in w.vms}
    w.limit(1)
    running = w.move(a, hold="true")
    w.await_note(running, "waiting_for", "release")
    for position, vm in enumerate((b, c, d), 1):
        w.await_note(w.move(vm), "queue_position", str(position))
    w.api("VBD.destroy", w.api("VM.get_VBDs", d)[0])
    ids = {vm: w.of_vm(vm)[0]["id"] for vm in (b, c, d)}
    w.pool.hosts[0].kill()
    w.pool.hosts[0].start()
    w.api.login()
    for vm in (b, c):
        P.wait_until("a queued move to be done by itself", lambda: w.of_vm(vm)[0]["outcome"] == "success", 90)
        assert w.sr(vm) != before[vm]
    assert w.of_vm(b)[0]["ended_ms"] <= w.of_vm(c)[0]["began_ms"] + 1000
    gone = P.wait_until("the lost one to be ended", lambda: next((r for r in w.of_vm(d) if r["id"] == ids[d] and r["outcome"]), None), 60)
    assert gone["outcome"] == "failed" and "VDI_NEEDS_VM_FOR_MIGRATE" in gone["cause"] and gone["recovery"], gone
    assert [t for t in w.api("task.get_all_records").values() if t["name_label"] == "Async.VDI.pool_migrate" and t["status"] == "success"]
    P.wait_until("the one under way to be ended", lambda: w.of_vm(a)[0]["outcome"] == "failed" and w.of_vm(a)[0]["recovery"], 90)
    assert w.sr(a) == before[a]
    w.limit(None)


def get(host, path, headers=None):
    connection = http.client.HTTPConnection(host.address, host.pool.http_port, timeout=30)
    connection.request("GET", path, headers=headers or {})
    answer = connection.getresponse()
    return answer.status, answer.getheader("Content-Type"), answer.getheader("Location"), answer.read().decode()


def metrics_text(w):
    secret = base64.b64encode(f"root:{P.PASSWORD}".encode()).decode()
    status, kind, _, text = get(w.pool.hosts[0], "/metrics", {"Authorization": "Basic " + secret})
    assert status == 200 and kind.startswith("text/plain; version=0.0.4"), (status, kind)
    return text


def metrics(w):
    text = metrics_text(w)
    done = sum(r["kind"] == "VDI.pool_migrate" and r["outcome"] == "success" for r in w.history("--limit", "1000"))
    assert f'xapi_migrations_total{{kind="VDI.pool_migrate",outcome="success",direction="out"}} {done}\n' in text, text
    assert f'xapi_migration_duration_seconds_bucket{{le="+Inf"}} {done}\n' in text
    for line in text.splitlines():
        assert line.startswith("# ") or len(line.rsplit(" ", 1)) == 2 and float(line.rsplit(" ", 1)[1]) >= 0, line
    assert get(w.pool.hosts[0], "/metrics")[0] == 401
    assert get(w.pool.hosts[0], "/metrics", {"Authorization": "Basic " + base64.b64encode(b"root:wrong").decode()})[0] == 401
    assert get(w.pool.hosts[0], "/metrics?session_id=" + w.api.session)[0] == 200
    status, _, location, _ = get(w.pool.hosts[1], "/metrics")
    assert status == 302 and location.startswith("http://" + w.pool.hosts[0].address + ":"), (status, location)


def memory(w):
    """A running VM's move: phases and what was measured, in the task while it runs and in the ledger for good."""
    vm = w.pool.make_vm("runner")
    w.api("VM.start_on", vm, w.hosts[0], False, False)
    phases = set()
    task = w.api("Async.VM.pool_migrate", vm, w.hosts[1], {})
    w.api.wait_task(task, progress=lambda t: phases.add(t["other_config"].get("migrate:phase", "")))
    (row,) = w.of_vm(vm)
    assert (row["kind"], row["outcome"], row["from_host"], row["to_host"]) == (
        "pool_migrate", "success", w.api("host.get_uuid", w.hosts[0]), w.api("host.get_uuid", w.hosts[1])), row
    for fact in ("bytes", "rounds", "blackout_us", "phase.send_ms", "phase.send_at_ms"):
        assert int(row["facts"][fact]) >= 0, (fact, row)
    assert phases - {""}, phases
    return vm


def watched(w, vm):
    """How far it is, once a second, by event.from; faster when the task is told so; held before the switch."""
    task, token, seen = w.api("Async.VM.pool_migrate", vm, w.hosts[0], {"bandwidth": "1", "hold": "true", "compress": "false"}), "", []
    while len({s["migrate:bytes"] for s in seen}) < 3:
        answer = w.api("event.from", ["task/" + task], token, 5.0)
        token = answer["token"]
        seen += [e["snapshot"]["other_config"] for e in answer["events"] if "migrate:bytes" in e["snapshot"]["other_config"]]
        assert w.api("task.get_status", task) == "pending"
    assert seen == sorted(seen, key=lambda s: int(s["migrate:bytes"])), seen
    for key in ("round", "pages_sent", "dirty_rate", "link_rate", "eta_ms", "streams", "phase"):
        assert "migrate:" + key in seen[-1], (key, seen[-1])
    w.api("task.add_to_other_config", task, "bandwidth", "unlimited")
    w.await_note(task, "waiting_for", "release")
    assert w.api("VM.get_resident_on", vm) == w.hosts[1]
    w.api("task.add_to_other_config", task, "release", "true")
    w.api.wait_task(task)
    assert w.api("VM.get_resident_on", vm) == w.hosts[0] and w.of_vm(vm)[0]["outcome"] == "success"
    w.api.async_("VM.pool_migrate", vm, w.hosts[1], {})


def bulk(w, moved):
    free = w.pool.make_vm("free")
    halted = w.pool.make_vm("halted")
    node = w.pool.make_vm("node")
    pinned = w.pool.make_vm("pinned")
    for vm in (free, node, pinned):
        w.api("VM.start_on", vm, w.hosts[1], False, False)
    w.api("VM.add_tags", node, "k8s-node")
    w.api("VM.add_to_blocked_operations", pinned, "pool_migrate", "PINNED")
    result = w.api.async_("pool.migrate_vms", [moved, free, halted, node, pinned, "OpaqueRef:gone"], w.hosts[0], {})["result"]
    again = w.api("pool.migrate_vms", [moved, free], w.hosts[0], {})
    assert again == {moved: "", free: ""}, again
    for vm in (moved, free):
        assert w.api("VM.get_resident_on", vm) == w.hosts[0]
    assert w.api("VM.get_resident_on", node) == w.hosts[1] and w.api("VM.get_resident_on", pinned) == w.hosts[1]
    for word in ("VM_BAD_POWER_STATE", "OPERATION_NOT_ALLOWED", "OPERATION_BLOCKED", "HANDLE_INVALID"):
        assert word in result, (word, result)
    for vm in (node, pinned):
        w.api("VM.hard_shutdown", vm)
    return free


def bulk_with_disks(w, free):
    """What the other host cannot see goes with its disks; a cancelled bulk cancels what it started."""
    for name in ("one", "two"):
        path = os.path.join(w.pool.dir, "far-" + name)
        os.makedirs(path)
        w.api("SR.create", w.hosts[1], {"location": path}, "0", name, "", "file", "user", False, {})
    vm = w.vms[0]
    w.api("VM.start_on", vm, w.hosts[0], False, False)
    assert w.api("pool.migrate_vms", [vm], w.hosts[1], {}) == {vm: ""}
    assert w.api("VM.get_resident_on", vm) == w.hosts[1] and w.of_vm(vm)[0]["kind"] == "migrate_send"
    w.api("VM.hard_shutdown", vm)
    task = w.api("Async.pool.migrate_vms", [free], w.hosts[1], {"hold": "true"})
    (part,) = P.wait_until("it to begin", lambda: w.api("task.get_subtasks", task), 30)
    w.await_note(part, "waiting_for", "release")
    w.api("task.cancel", task)
    P.refused(lambda: w.api.wait_task(task), "TASK_CANCELLED")
    P.refused(lambda: w.api.wait_task(part), "TASK_CANCELLED")
    assert w.api("VM.get_resident_on", free) == w.hosts[0] and w.of_vm(free)[0]["outcome"] == "cancelled"


def lost(w, vm, fault, armed_on, decision):
    """Host 2 is lost where host 1 cannot know whether it has committed: an operator says so."""
    source, destination = w.pool.hosts
    armed_on.ctl("fault", "arm", fault)
    task = w.api("Async.VM.pool_migrate", vm, w.hosts[1], {})
    name = P.wait_until("the source to have sent GO", lambda: next((m["migration_id"] for m in json.loads(source.ctl("migrations"))
                        if m["side"] == "source" and m["state"] == "GO-SENT"), None), 60)
    if armed_on is source:
        destination.kill()
        source.ctl("fault", "disarm", fault.split("=")[0])
    else:
        destination.process.wait(30)
    assert w.ctl_fails(0, "migrations", "decide", name, "abort")[0] == 2  # it does not say that it knows
    source.ctl("migrations", "decide", name, decision, *(["--i-know-it-does-not-run-there"] if decision == "abort" else []))
    return task


def one_copy(w, vm, index):
    uuid = w.api("VM.get_uuid", vm)
    def found():
        return [(host.index, u) for host in w.pool.hosts for u, _ in host.guests() if u[:8] == uuid[:8]]
    P.wait_until(f"one copy, on host {index}", lambda: found() == [(index, uuid)], 60)
    P.wait_until("the row to say so", lambda: w.api("VM.get_resident_on", vm) == w.hosts[index - 1], 60)
    assert w.api("VM.get_power_state", vm) == "Running"


def decided(w, vm):
    code, text = w.ctl_fails(0, "migrations", "decide", "11111111-2222-4333-8444-555555555555", "commit")
    assert code == 1 and "sends no migration" in text, text
    source, destination = w.pool.hosts
    for fault, armed_on, decision, index in (("migrate.source.lose-go=stop", source, "abort", 1),
                                             ("migrate.destination.lose-committed=crash", destination, "commit", 2)):
        task = lost(w, vm, fault, armed_on, decision)
        if decision == "abort":
            P.refused(lambda: w.api.wait_task(task), "VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED")
        else:
            w.api.wait_task(task)
        destination.start()
        P.wait_until("host 2 to be live", w.pool.all_live, 60)
        one_copy(w, vm, index)


def main():
    with P.Pool(hosts=2, directory=os.environ.get("KEEP"), options={"allow-faults": "true"}) as pool:
        w = World(pool)
        for case in (rows, cancelled, held, queued, restarted, metrics):
            print(case.__name__, flush=True)
            case(w)
        print("memory, watched, bulk, decided", flush=True)
        moved = memory(w)
        watched(w, moved)
        free = bulk(w, moved)
        bulk_with_disks(w, free)
        decided(w, free)


if __name__ == "__main__":
    main()
