#!/usr/bin/env python3
"""The memory stream of a move between real daemons: several connections, compression, limits that change in flight, goals that
are kept or refused, deadlines with each of their actions, and a guest that stays paused. Whatever is asked, the guest arrives
verified or runs on where it was."""
import http.client
import json
import os
import signal
import ssl
import sys
import uuid
import xmlrpc.client

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import pool as P  # noqa: E402

LINK = str(24)  # MiB/s where a test needs time to look


def verb(host, name, args):
    """An agent's verb, asked as the coordinator does."""
    with open(os.path.join(host.dir, "ptoken")) as f:
        secret = f.read().strip()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client = http.client.HTTPSConnection(host.address, host.pool.https_port, context=context, timeout=60)
    param = {"operation": str(uuid.uuid4()), "join": False, "wait_ms": 20000, "args": args}
    client.request("POST", "/services/agent", xmlrpc.client.dumps((param,), "agent." + name),
                   {"Content-Type": "text/xml", "Cookie": "pool_secret=" + secret})
    answer = xmlrpc.client.loads(client.getresponse().read())[0][0]
    client.close()
    if answer["Status"] != "Success":
        raise P.Failure(answer["ErrorDescription"])
    return answer["Value"]["result"]


class Lab:
    def __init__(self, pool):
        self.pool, self.api = pool, pool.api
        self.hosts = [pool.host_ref(1), pool.host_ref(2)]
        self.vms = {}

    def vm(self, name, **platform):
        if name not in self.vms:
            vm = self.pool.make_vm(name, memory_mib=64, platform=platform)
            self.api("VM.start_on", vm, self.hosts[0], False, False)
            P.wait_until("tools to report", lambda: self.pool.guest_data(vm).get("feature-suspend") == "1", 20)
            self.vms[name] = vm
        return self.vms[name]

    def at(self, vm):
        return self.api("VM.get_resident_on", vm)

    def begin(self, vm, **options):
        """Moves it to the other host; the task."""
        there = next(h for h in self.hosts if h != self.at(vm))
        return self.api("Async.VM.pool_migrate", vm, there, {k: str(v) for k, v in options.items()})

    def move(self, vm, state="Running", **options):
        source, task = self.at(vm), self.begin(vm, **options)
        result = self.wait(task)
        record = self.api("VM.get_record", vm)
        assert record["resident_on"] != source and record["power_state"] == state, (record["resident_on"], record["power_state"])
        self.alone(vm)
        return result

    def wait(self, task):
        """What the engine noted of it; the failure as it was."""
        seen = {}
        self.api.wait_task(task, progress=lambda t: seen.update(t["other_config"]))
        return {k.removeprefix("migrate:"): v for k, v in seen.items() if k.startswith("migrate:")}

    def refused(self, vm, word, **options):
        source = self.at(vm)
        try:
            self.wait(self.begin(vm, **options))
        except P.Failure as e:
            assert word in " ".join([e.code] + e.params), (e.code, e.params)
        else:
            raise AssertionError(f"expected {word}")
        assert self.at(vm) == source and self.api("VM.get_power_state", vm) == "Running"
        self.alone(vm)

    def alone(self, vm):
        """One domain, where the VM is; both journals at rest."""
        record = self.api("VM.get_record", vm)
        where = self.pool.host_of(record["resident_on"]).index
        P.wait_until("one domain", lambda: [(h.index, u) for h in self.pool.hosts for u, _ in h.guests() if u[:8] == record["uuid"][:8]]
                     == [(where, record["uuid"])], 20)
        for host in self.pool.hosts:
            P.wait_until("the journal at rest", lambda: all(m["state"] in ("DONE", "RESUMED", "RUNNING", "ABORTED")
                                                            for m in json.loads(host.ctl("migrations"))), 20)

    def verified(self, vm):
        data = P.wait_until("the guest's verdict", lambda: self.pool.guest_data(vm).get("sim/verify") and self.pool.guest_data(vm), 20)
        assert data["sim/verify"] == "ok", data

    def streaming(self, vm):
        """The host that sends it and the migration's id, once pre-copy goes on."""
        host, uuid_ = self.pool.host_of(self.at(vm)), self.api("VM.get_uuid", vm)

        def look():
            return next((m["migration_id"] for m in verb(host, "migrate.list", {})
                         if m["side"] == "source" and m["state"] == "STREAMING" and m["facts"]["vm"] == uuid_), None)

        return host, P.wait_until("pre-copy", look, 20)


def connections(lab):
    vm = lab.vm("many", **{"sim-dirty-mib-s": "8"})
    for streams, compress in ((1, "false"), (1, "true"), (1, "auto"), (2, "true"), (2, "auto"), (4, "false"), (4, "true"), (0, "false")):
        result = lab.move(vm, streams=streams, compress=compress)
        if "streams" in result:
            assert result["streams"] == str(streams or min(2, os.cpu_count())), result
        lab.verified(vm)
    lab.move(vm, streams=16, compress="true")
    lab.verified(vm)
    lab.api("VM.pool_migrate", vm, lab.at(vm), {"streams": "3", "compress": "true"})  # within the host
    lab.verified(vm)


def control(lab):
    """A slow move is looked at, sped up and let go; one that is held waits for as long as it is asked."""
    vm = lab.vm("many")
    task = lab.begin(vm, bandwidth=2)
    host, mid = lab.streaming(vm)
    status = verb(host, "migrate.status", {"migration_id": mid})
    assert status["phase"] == "stream" and status["will_not_converge"] is False and 0 <= status["fraction"] < 1, status
    verb(host, "migrate.control", {"migration_id": mid, "hold": True, "bandwidth": "0"})
    P.wait_until("rounds under hold", lambda: int(verb(host, "migrate.status", {"migration_id": mid})["round"]) >= 3, 30)
    status = verb(host, "migrate.status", {"migration_id": mid})
    assert status["hold"] and status["phase"] == "stream" and float(status["link_rate"]) > 0, status
    verb(host, "migrate.control", {"migration_id": mid, "hold": False, "max_downtime_ms": "1000"})
    lab.wait(task)
    lab.alone(vm)
    lab.verified(vm)
    try:
        verb(host, "migrate.status", {"migration_id": mid})
        raise AssertionError("a status of what is over")
    except P.Failure as e:
        assert e.params == ["no such migration"], e.params


def outcome(lab):
    """Who lost the answer asks; what was never heard of is aborted for good; settled ones are forgotten."""
    vm = lab.vm("many")
    source = lab.pool.host_of(lab.at(vm))
    before = {m["migration_id"] for m in verb(source, "migrate.list", {})}
    lab.move(vm)
    left = [m for m in verb(source, "migrate.list", {}) if m["side"] == "source" and m["migration_id"] not in before]
    for m in left:
        assert verb(source, "migrate.outcome", {"migration_id": m["migration_id"]})["state"] == "committed"
        verb(source, "migrate.settled", {"migration_id": m["migration_id"]})
        verb(source, "migrate.settled", {"migration_id": m["migration_id"]})
        assert verb(source, "migrate.outcome", {"migration_id": m["migration_id"]})["state"] == "aborted"
    unknown = str(uuid.uuid4())
    for _ in range(2):
        assert verb(source, "migrate.outcome", {"migration_id": unknown})["state"] == "aborted"
    spec = {"migration_id": unknown, "vm": str(uuid.uuid4()), "spec": {}, "destination": {"address": "127.0.0.1", "port": "1"}}
    try:
        verb(source, "migrate.send", spec)
        raise AssertionError("an aborted migration was begun")
    except P.Failure as e:
        assert "known here already" in e.params[0], e.params


def prepare(host):
    """Tells a destination of a migration whose source never comes; its id."""
    mid, vm, memory = str(uuid.uuid4()), str(uuid.uuid4()), str(16 << 20)
    spec = dict({k: "" for k in ("kernel", "ramdisk", "cmdline", "on_poweroff", "on_reboot", "on_crash")}, uuid=vm, name="ghost", kind="hvm",
                memory_static_max=memory, memory_dynamic_max=memory, memory_dynamic_min=memory, vcpus_max="1", vcpus="1", platform={},
                xenstore_data={}, disks=[], nics=[])
    verb(host, "migrate.prepare", {"migration_id": mid, "vm": vm, "temp": vm[:24] + "0" * 11 + "1", "spec": spec})
    return mid


def frozen(lab):
    """A destination that takes nothing any more is given up: the guest runs on, and nothing is left there once it wakes."""
    vm = lab.vm("many")
    if lab.at(vm) != lab.hosts[0]:
        lab.move(vm)
    task = lab.begin(vm, bandwidth=LINK, max_downtime_ms=1, timeout_s=60)
    lab.streaming(vm)
    other = lab.pool.hosts[1].process
    other.send_signal(signal.SIGSTOP)
    try:
        P.wait_until("the source to give it up", lambda: "takes nothing any more" in lab.pool.hosts[0].log_tail(400), 30)
    finally:
        other.send_signal(signal.SIGCONT)
    try:
        lab.wait(task)
        raise AssertionError("it moved to a frozen host")
    except P.Failure as e:
        assert lab.at(vm) == lab.hosts[0], (e.code, e.params)
    lab.alone(vm)


def patience(lab):
    host = lab.pool.hosts[1]
    mid = prepare(host)
    P.wait_until("the destination to give it up", lambda: any(m["migration_id"] == mid and m["state"] == "ABORTED"
                                                              for m in verb(host, "migrate.list", {})), 30)


def goals(lab):
    """A guest that dirties faster than the link: refused when a downtime was declared, unless one of the ways out is allowed."""
    vm = lab.vm("busy", **{"sim-dirty-mib-s": "64"})
    limits = {"bandwidth": LINK, "max_downtime_ms": 10}
    lab.refused(vm, "VM_MIGRATE_FAILED", **limits)
    lab.refused(vm, "timeout_s", timeout_s=1, on_timeout="abort", bandwidth=LINK)
    lab.move(vm, timeout_s=1, on_timeout="suspend", **limits)
    lab.verified(vm)
    lab.move(vm, timeout_s=1, on_timeout="continue", bandwidth="200")
    lab.verified(vm)
    lab.move(vm, fallback="non-live", **limits)
    lab.verified(vm)
    lab.move(vm, auto_converge="true", fallback="non-live", **limits)
    lab.verified(vm)


def postcopy(lab):
    """A guest that would not converge runs on there before all of its memory has come."""
    vm = lab.vm("busy")
    lab.move(vm, postcopy="allowed", bandwidth=LINK, max_downtime_ms=10)
    lab.verified(vm)
    lab.move(vm, postcopy="after:0", streams=3, compress="true")
    lab.verified(vm)


def paused(lab):
    vm = lab.vm("many")
    lab.move(vm, state="Paused", paused="true", streams=2)
    lab.api("VM.unpause", vm)
    P.wait_until("it to run", lambda: lab.api("VM.get_power_state", vm) == "Running", 20)
    lab.verified(vm)


def main():
    options = {"allow-faults": "true", "incoming-patience": "2", "migration-silence-s": "2", "migration-preflight": "false"}
    with P.Pool(hosts=2, options=options) as pool:
        lab = Lab(pool)
        for part in (connections, control, outcome, goals, paused, postcopy, frozen, patience):
            part(lab)
            print(part.__name__, "ok", flush=True)


if __name__ == "__main__":
    main()
