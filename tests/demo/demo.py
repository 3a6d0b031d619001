#!/usr/bin/env python3
"""make demo: three hosts on loopback and a pool of one beside them, guests that dirty memory and write disks, live
migrations, disks that move to other storage under their guests, guests that move with their local disks to another host and to
another pool, and a daemon that is killed in the middle; with progress, tables of what was measured, and every guest's own verdict
on its memory and disks.

Exit status 0: all moved and proved themselves intact and current. 3: a guest found a damaged or stale page
(FAULT=flip-page, FAULT=stale-page do that on purpose). 1: anything else."""
import glob
import os
import re
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import pool as P  # noqa: E402
from tests.lib.isolated import IsolatedPool  # noqa: E402

FAULT = os.environ.get("FAULT", "")
VERIFY_FAIL = re.compile(r"VERIFY FAIL (\S+) (\d+)")
GUESTS = [  # name, MiB, MiB/s dirtied, has a disk
    ("web", 64, 4, True), ("database", 96, 24, True), ("queue", 48, 12, True), ("cache", 128, 40, False), ("idle", 32, 0, True)]
MAIL = ("mail", 64, 8)  # on local storage


def numbers(task):
    """What was measured."""
    return {k.split(":", 1)[1]: int(v) for k, v in task["other_config"].items() if k.startswith("migrate:") and v.lstrip("-").isdigit()}


class Bars:
    """One line a migration, redrawn on a terminal, a line now and then elsewhere."""

    def __init__(self):
        self.lock, self.terminal, self.shown = threading.Lock(), sys.stdout.isatty(), {}

    def show(self, name, fraction):
        tenth = int(fraction * 10)
        with self.lock:
            if not self.terminal and self.shown.get(name) == tenth:
                return
            self.shown[name] = tenth
            bar = "#" * int(fraction * 30)
            text = f"  {name:10} [{bar:30}] {fraction * 100:5.1f} %"
            print("\r" + text if self.terminal else text, end="\n" if fraction >= 1 or not self.terminal else "", flush=True)


class Demo:
    def __init__(self, pool):
        self.pool, self.api, self.bars, self.rows, self.disks, self.errors = pool, pool.api, Bars(), [], [], []
        self.hosts = [pool.host_ref(i + 1) for i in range(3)]

    def host_name(self, ref):
        return self.api("host.get_name_label", ref)

    def make_guests(self):
        self.vms = {}
        for i, (name, mib, rate, disk) in enumerate(GUESTS):
            vm = self.pool.make_vm(name, memory_mib=mib, sr=self.pool.shared_sr if disk else None, disk_mib=64,
                                   platform={"sim-dirty-mib-s": str(rate), "sim-disk-iops": "50"})
            self.api("VM.start_on", vm, self.hosts[i % 3], False, False)
            self.vms[name] = vm
        time.sleep(1)  # let them write something worth moving

    def migrate(self, name, to, options):
        vm, api = self.vms[name], self.api.another()
        origin = api("VM.get_resident_on", vm)
        began = time.monotonic()
        try:
            task = api.async_("VM.pool_migrate", vm, to, options, progress=lambda t: self.bars.show(name, t["progress"]))
        except P.Failure as e:
            self.errors.append((name, e))
            print(f"\n  {name}: {e}", flush=True)
            return
        measured = numbers(task)
        self.rows.append((name, origin, to, time.monotonic() - began, measured, "live" if options.get("live") != "false" else "non-live"))

    def make_second_sr(self):
        """Where disks move to: another directory that all hosts see."""
        path = os.path.join(self.pool.dir, "fast-sr")
        os.makedirs(path, exist_ok=True)
        config = {"location": path}
        self.fast = self.api("SR.create", self.hosts[0], config, "0", "Fast storage", "", "file", "user", True, {})
        for pbd in self.api("SR.get_PBDs", self.fast):
            self.api("PBD.plug", pbd)

    def move_disk(self, name, sr, options):
        """The guest goes on writing while its disk changes its place and its format."""
        api = self.api.another()
        vbd = api("VM.get_VBDs", self.vms[name])[0]
        vdi = api("VBD.get_VDI", vbd)
        origin, began = api("VDI.get_SR", vdi), time.monotonic()
        try:
            task = api.async_("VDI.pool_migrate", vdi, sr, options, progress=lambda t: self.bars.show(name, t["progress"]))
        except P.Failure as e:
            self.errors.append((name, e))
            print(f"\n  {name}: {e}", flush=True)
            return
        measured = numbers(task)
        kind = api("VDI.get_sm_config", api("VBD.get_VDI", vbd))["type"]
        self.disks.append((name, origin, sr, time.monotonic() - began, measured, kind))

    def disk_table(self):
        print("\n  disk       from             to               format  seconds      MiB  proven MiB  repaired  pause ms  blocks verified")
        for name, origin, to, seconds, m, kind in self.disks:
            data = self.verdict(name)
            print(f"  {name:10} {self.api('SR.get_name_label', origin):16} {self.api('SR.get_name_label', to):16} {kind:6} {seconds:8.2f}"
                  f" {m.get('bytes', 0) / P.MIB:8.1f} {m.get('proven', 0) / P.MIB:11.1f} {m.get('repaired', 0):9} {m.get('pause_us', 0) / 1000:9.1f}"
                  f" {data.get('sim/blocks_verified', '0'):>16}", flush=True)

    def together(self, what, moves):
        threads = [threading.Thread(target=what, args=move) for move in moves]
        [t.start() for t in threads]
        [t.join() for t in threads]

    def verdict(self, name):
        def known():
            data = self.pool.guest_data(self.vms[name])
            return data if "sim/verify" in data else None
        return P.wait_until(f"{name}'s verdict", known, 30)

    # --- with their disks: to another host, to another pool ---
    def local_sr(self, pool, index):
        path = os.path.join(pool.dir, f"local-{index}")
        os.makedirs(path, exist_ok=True)
        return pool.api("SR.create", pool.host_ref(index), {"location": path}, "0", f"Local storage {index}", "", "file", "user", False, {})

    def make_mail(self):
        name, mib, rate = MAIL
        self.local = {2: self.local_sr(self.pool, 2), 3: self.local_sr(self.pool, 3)}
        vm = self.pool.make_vm(name, memory_mib=mib, sr=self.local[2], disk_mib=64,
                               platform={"sim-dirty-mib-s": str(rate), "sim-disk-iops": "50"})
        self.api("VM.start_on", vm, self.hosts[1], False, False)
        self.vms[name] = vm

    def send(self, source, vm, target, index, sr):
        """VM.migrate_send with all its disks; the VM's ref at the destination."""
        host = target.host_ref(index)
        network = next(r["network"] for r in target.api("PIF.get_all_records").values() if r["host"] == host and r["management"])
        token = target.api("host.migrate_receive", host, network, {})
        vdis = [source.api("VBD.get_VDI", vbd) for vbd in source.api("VM.get_VBDs", vm)]
        began = time.monotonic()
        task = source.api.async_("VM.migrate_send", vm, token, True, {vdi: sr for vdi in vdis}, {}, {},
                                 progress=lambda t: self.bars.show(MAIL[0], t["progress"]))
        self.sent.append((target, index, time.monotonic() - began, numbers(task)))
        return task["result"].replace("<value>", "").replace("</value>", "")

    def send_table(self):
        print("\n  VM         to pool     to host  seconds  blackout ms  predicted ms", flush=True)
        for pool, index, seconds, m in self.sent:
            print(f"  {MAIL[0]:10} {'its own' if pool is self.pool else 'the other':11} {index:7} {seconds:8.2f} {m.get('blackout_us', 0) / 1000:12.1f}"
                  f" {m.get('predicted_blackout_us', 0) / 1000:13.1f}", flush=True)

    def with_disks(self, other):
        self.sent = []
        self.make_mail()
        time.sleep(0.5)
        print("Migrating a guest with its local disk to another host's local storage:", flush=True)
        self.send(self.pool, self.vms["mail"], self.pool, 3, self.local[3])
        pools = [(self.pool, self.vms["mail"])]
        if other is not None:
            print("... and on to another pool, and back:", flush=True)
            far = self.local_sr(other, 1)
            there = self.send(self.pool, self.vms["mail"], other, 1, far)
            pools = [(other, there)]
            self.vms["mail"] = self.send(other, there, self.pool, 2, self.local[2])
            pools.append((self.pool, self.vms["mail"]))
        pool, vm = pools[-1]
        data = P.wait_until("the verdict", lambda: pool.guest_data(vm) if "sim/verify" in pool.guest_data(vm) else None, 30)
        if data["sim/verify"] != "ok":
            self.errors.append((MAIL[0], data["sim/verify"]))
        self.send_table()

    def killed(self, name, to):
        """The destination's daemon is killed in the middle: the guest goes on where it was, and moves when it is asked again."""
        vm, api = self.vms[name], self.api.another()
        origin = api("VM.get_resident_on", vm)
        task = api("Async.VM.pool_migrate", vm, to, {"bandwidth": "20"})
        P.wait_until("some of it to have gone over", lambda: api("task.get_progress", task) > 0.1 or api("task.get_status", task) != "pending", 60)
        host = self.pool.host_of(to)
        host.kill()
        host.start()
        P.wait_until("the outcome", lambda: api("task.get_status", task) != "pending", 120)
        still = api("VM.get_resident_on", vm) == origin and api("VM.get_power_state", vm) == "Running"
        print(f"  {name}: {api('task.get_status', task)} ({', '.join(api('task.get_error_info', task)[:1])}); the guest "
              f"{'runs on where it was' if still else 'IS NOT WHERE IT WAS'}", flush=True)
        if not still:
            self.errors.append((name, "lost by a killed daemon"))
        api("task.destroy", task)
        P.wait_until("all hosts to be back", self.pool.all_live, 60)
        self.migrate(name, to, {})

    def table(self):
        print("\n  VM         from      to        kind      seconds      MiB  rounds  blackout ms  pages verified")
        for name, origin, to, seconds, m, kind in self.rows:
            data = self.verdict(name)
            blackout = int(data.get("sim/blackout_us", m.get("blackout_us", 0))) / 1000
            print(f"  {name:10} {self.host_name(origin):9} {self.host_name(to):9} {kind:9} {seconds:7.2f} {m['bytes'] / P.MIB:8.1f}"
                  f" {m['rounds']:7} {blackout:12.1f} {data['sim/pages_verified']:>15}", flush=True)

    def all_proved(self):
        for name in {row[0] for row in self.rows + self.disks}:
            data = self.verdict(name)
            if data["sim/verify"] != "ok":
                self.errors.append((name, data["sim/verify"]))
        return not self.errors


def verify_failures(pool):
    """What the guests printed: in the daemons' logs and in the guests' own."""
    found = []
    for path in glob.glob(pool.dir + "/host*/xapi.log") + glob.glob(pool.dir + "/host*/sim/domains/*/guest.log"):
        with open(path, errors="replace") as log:
            found += [m.group(0) for m in VERIFY_FAIL.finditer(log.read())]
    return sorted(set(found))


def run(pool, other):
    demo = Demo(pool)
    print("Creating guests that dirty their memory and write their disks ...", flush=True)
    demo.make_guests()
    one, two, three = demo.hosts
    print("Migrating one guest live, then three at once, then one without staying live:", flush=True)
    demo.migrate("database", three, {"live": "true"})
    if not demo.errors:
        demo.together(demo.migrate, [("web", two, {}), ("queue", one, {}), ("cache", two, {"live": "true"})])
        demo.migrate("idle", three, {"live": "false"})
    if not demo.errors:
        print("Moving disks to other storage under their guests, then the guests again, which verify every block:", flush=True)
        demo.make_second_sr()
        demo.move_disk("database", demo.fast, {})
        demo.together(demo.move_disk, [("web", demo.fast, {"dest-img-format": "raw"}), ("queue", demo.fast, {"bandwidth": "30"})])
        demo.together(demo.migrate, [("database", one, {}), ("web", three, {}), ("queue", two, {})])
    if not demo.errors and not FAULT:
        demo.with_disks(other)
        print("Killing the destination's daemon in the middle of a migration:", flush=True)
        demo.killed("database", three)
    failures = verify_failures(pool) + [m.group(0) for _, e in demo.errors for m in VERIFY_FAIL.finditer(str(e))]
    if failures:
        print("\n".join(sorted(set(failures))), flush=True)
        still = demo.api("VM.get_power_state", demo.vms["database"])
        print(f"The damage was found before the guest ran; at the source it is {still}.", flush=True)
        return 3
    demo.table()
    demo.disk_table()
    if FAULT:
        print(f"FAULT={FAULT} was asked for, but nobody noticed it")
        return 1
    if not demo.all_proved():
        print("Not proved:", demo.errors)
        return 1
    print("\nEvery guest proved its memory and disks intact and current.", flush=True)
    return 0


def main():
    began = time.monotonic()
    options = {"allow-faults": "true"} if FAULT else {}
    isolated = os.environ.get("ISOLATED", "") not in ("", "0")
    pool = IsolatedPool(hosts=3, options=options) if isolated else P.Pool(hosts=3, prefix="127.0.1", options=options)
    for host in pool.hosts:
        host.env = {"FAULTS": f"demo={FAULT}"} if FAULT else {}
    print("Starting three hosts and joining them into a pool ...", flush=True)
    pool.start()
    other = None if isolated or FAULT else P.second_pool(pool)
    try:
        pool.make_shared_sr()
        if other is not None:
            other.start()
        status = run(pool, other)
    except BaseException:
        for host in pool.hosts:
            print(f"--- log of host {host.index} ---\n{host.log_tail()}", flush=True)
        raise
    finally:
        if other is not None:
            other.stop()
        pool.stop()
    print(f"({time.monotonic() - began:.0f} s)", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
