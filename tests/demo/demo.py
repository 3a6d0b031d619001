#!/usr/bin/env python3
"""make demo: three hosts on loopback, guests that dirty memory and write disks, live migrations and a disk that
moves to other storage under its guest, with progress, tables of what was measured, and every guest's own verdict on its memory and disks.

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
        measured = {k.split(":", 1)[1]: int(v) for k, v in task["other_config"].items() if k.startswith("migrate:")}
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
        measured = {k.split(":", 1)[1]: int(v) for k, v in task["other_config"].items() if k.startswith("migrate:") and v.lstrip("-").isdigit()}
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


def run(pool):
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
    try:
        pool.make_shared_sr()
        status = run(pool)
    except BaseException:
        for host in pool.hosts:
            print(f"--- log of host {host.index} ---\n{host.log_tail()}", flush=True)
        raise
    finally:
        pool.stop()
    print(f"({time.monotonic() - began:.0f} s)", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
