#!/usr/bin/env python3
"""Every fault at every step of a migration: of memory inside a pool, of memory and disk inside a pool, of a VM to another pool.

The steps are the engine's own fault points (tests/sweep/migrate_points.py reads them from its tables); a first pass of each
operation tells which it goes through, and a point that none passes fails the sweep. While the operation stands at the step,
something is done to it; afterwards everything is brought back, and exactly one copy of the guest runs, proves its memory and
its disk, and nothing is left over: no domain, disk, image, snapshot, task, mark, reservation, tapd, journal or ledger entry.
The second sweep reboots a host instead: its daemon, its guests and its tapds are gone at once, and so is what was not synced
to its state directory and to its local storage.

  migrate_sweep.py                 all cells        --list        only prints them
  migrate_sweep.py --sample N      N of them, always the same; with --seconds S: as many as fit
  migrate_sweep.py --operation O   only this operation (may be given again)
  migrate_sweep.py WORD...         the cells whose name has all these words"""
import argparse
import os
import shutil
import signal
import sys
import time
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import pool as P  # noqa: E402
from tests.sweep import migrate_points as points  # noqa: E402
from tests.sweep.disk_sweep import NEVER, sample  # noqa: E402
from tests.sweep.migrate_lab import Doing, Lab, NoMounts  # noqa: E402

OPERATIONS = {
    "memory": "VM.pool_migrate, its disk on shared storage",
    "with-disk": "VM.migrate_send in the pool, its disk on local storage",
    "pool-to-pool": "VM.migrate_send to another pool, its disk on local storage",
}
ARMED_AT_ONCE = 20

# While the operation stands at the step. False: there was nothing to do that to.
BETWEEN = {
    "kill-source": lambda lab: lab.kill(lab.source),
    "kill-destination": lambda lab: lab.kill(lab.destination),
    "kill-coordinator": lambda lab: lab.kill(lab.coordinator),
    "kill-coordinators": lambda lab: lab.target_pool is not lab.pool and lab.kill(lab.coordinator) and lab.kill(lab.target_pool.hosts[0]),
    "kill-all": lambda lab: all([lab.kill(host) for host in lab.hosts()]),
    "kill-saver": lambda lab: lab.kill_guest(lab.source),
    "kill-receiver": lambda lab: lab.kill_guest(lab.destination),
    "kill-source-tapd": lambda lab: lab.kill_tapds(lab.source),
    "kill-destination-tapd": lambda lab: lab.kill_tapds(lab.destination),
    "cut": lambda lab: cut(lab),
    "freeze": lambda lab: freeze(lab),
    "full": lambda lab: lab.operation != "memory" and lab.fill(lab.destination),
    "stale-page": lambda lab: lie(lab, lab.source, "stale-page"),
    "flipped-page": lambda lab: lie(lab, lab.destination, "flip-page"),
    "reboot-source": lambda lab: lab.reboot(lab.source),
    "reboot-destination": lambda lab: lab.reboot(lab.destination),
}
REBOOTS = ("reboot-source", "reboot-destination")
FAULTS = ("error", *BETWEEN)
MAY_HALT = ("kill-saver", "kill-receiver", *REBOOTS) # the guest itself was killed, or might be the one


def cut(lab):
    lab.relay.cut()
    return True


def freeze(lab):
    lab.relay.freeze()
    return True


def lie(lab, host, how):
    if lab.dead(host):
        return False
    host.ctl("fault", "arm", f"demo={how}")
    return True


# --- which steps an operation has -----------------------------------------------------------------------------


def discover(lab, operation):
    """The points that it passes."""
    lab.make(operation)
    lab.look(operation)
    names = sorted(points.daemon_points())
    for i in range(0, len(names), ARMED_AT_ONCE):
        lab.arm(",".join(f"{name}=never@{NEVER}" for name in names[i:i + ARMED_AT_ONCE]))
    doing = Doing(lab, lambda lab: lab.move(operation))
    doing.wait(120)
    assert doing.error is None, doing.error
    passed = lab.visited()
    lab.settle()
    return sorted(passed)


def matrix(lab, operations):
    cells, passed = [], set()
    for operation in operations:
        try:
            found = discover(lab, operation)
        except P.Failure as e:
            if e.code not in ("MESSAGE_METHOD_UNKNOWN", "NOT_IMPLEMENTED"):
                raise
            print(f"{operation}: {e}: not there yet", flush=True)
            continue
        passed |= set(found)
        cells += [(operation, p, f) for p in found if not points.elsewhere(p) for f in FAULTS if applies(operation, f)]
    missed = [p for p in sorted(points.daemon_points()) if p not in passed and not points.elsewhere(p)]
    return cells, missed


def applies(operation, fault):
    return not (fault == "full" and operation == "memory") and not (fault == "kill-coordinators" and operation != "pool-to-pool")


# --- one cell ---------------------------------------------------------------------------------------------------


class Void(Exception):
    """The fault cannot be at this step: there is nothing yet that could suffer it."""


def after_fault(lab, doing, fault):
    """Lets the operation end: a frozen one is cancelled, one that waits for a daemon gets it back."""
    if fault == "freeze":
        time.sleep(1)
        lab.cancel()
    doing.thread.join(3)
    if not doing.done():
        lab.revive()
        doing.wait(120)


def at_step(lab, operation, point, fault):
    lab.arm(f"{point}=error@1" if fault == "error" else f"{point}=stop")
    doing = Doing(lab, lambda lab: lab.move(operation))
    if fault == "error":
        doing.wait(120)
        assert point in lab.visited(), f"{point} was not visited: {doing.error}"
        return doing
    P.wait_until(f"{point} to be visited", lambda: point in lab.visited() or doing.done(), 60)
    assert not doing.done(), f"it ended before {point}: {doing.error}"
    there = BETWEEN[fault](lab)
    if fault not in ("stale-page", "flipped-page"):
        lab.disarm()
    else:
        for host in lab.living():
            host.ctl("fault", "disarm", point)
    after_fault(lab, doing, fault)
    if not there:
        raise Void
    return doing


def run_cell(lab, operation, point, fault):
    lab.operation = operation
    lab.look(operation)
    try:
        doing = at_step(lab, operation, point, fault)
        said, void = "done" if doing.error is None else str(doing.error)[:100].replace("\n", " "), False
    except Void:
        said, void = "nothing to suffer it", True
    state = lab.settle()
    assert state == "Running" or fault in MAY_HALT, f"the VM was {state}"
    if fault == "error":
        assert state == "Running", f"the VM was {state}"
    return said, void


# --- all of them --------------------------------------------------------------------------------------------------


def keep_logs(lab, name):
    to = os.path.join(os.environ.get("SWEEP_LOGS", os.path.join(P.BUILD, "sweep-logs")), name.replace("/", "_"))
    shutil.rmtree(to, ignore_errors=True)
    os.makedirs(to)
    for pool in lab.pools:
        for host in pool.hosts:
            shutil.copy(os.path.join(host.dir, "xapi.log"), os.path.join(to, f"{os.path.basename(pool.dir)}-{host.index}.log"))
    return to


def sweep(cells, until):
    """Runs them, one operation after the other; a lab that a cell has ruined is made anew. (run, void, failed)"""
    lab, run, void, failed, current = None, 0, 0, [], None
    try:
        for operation, point, fault in cells:
            name, began = f"{operation}/{point}/{fault}", time.monotonic()
            if until is not None and began > until:
                break
            try:
                lab = lab or Lab()
                if current != operation:
                    lab.make(operation)
                    current = operation
                said, nothing_there = run_cell(lab, operation, point, fault)
                run, void = run + 1, void + nothing_there
                print(f"{name}: {said} ({time.monotonic() - began:.1f} s)", flush=True)
            except BaseException as e:  # noqa: BLE001
                if isinstance(e, (KeyboardInterrupt, SystemExit)):
                    raise
                failed.append(name)
                logs = keep_logs(lab, name) if lab is not None else "none"
                print(f"{name}: FAILED ({time.monotonic() - began:.1f} s)\n{traceback.format_exc()}logs: {logs}", flush=True)
                try:
                    if lab is not None:
                        lab.remove()
                except RuntimeError as e2:
                    print(e2, flush=True)
                lab = current = None
    finally:
        if lab is not None:
            lab.remove()
    return run, void, failed


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--seconds", type=float, help="begin no cell after this")
    parser.add_argument("--operation", action="append", choices=OPERATIONS)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--shard", default="0/1", help="i/n: every nth cell from the ith on")
    parser.add_argument("words", nargs="*")
    args = parser.parse_args()
    until = time.monotonic() + args.seconds if args.seconds else None
    try:
        lab = Lab()
    except NoMounts as e:
        print("cannot mount:", e)
        return 77
    try:
        cells, missed = matrix(lab, args.operation or list(OPERATIONS))
    finally:
        lab.remove()
    n_steps, n_faults, n_reboots = len({c[:2] for c in cells}), len({c[2] for c in cells}), sum(c[2] in REBOOTS for c in cells)
    print(f"{n_steps} steps x {n_faults} faults = {len(cells)} cells, {n_reboots} of them reboots", flush=True)
    if args.sample:
        cells = sorted(sample(cells, args.sample), key=lambda c: list(OPERATIONS).index(c[0]))
    i, n = map(int, args.shard.split("/"))
    cells = [c for c in cells if all(w in "/".join(c) for w in args.words)][i::n]
    if args.list:
        print("\n".join("/".join(c) for c in cells))
    run, void, failed = sweep(cells, until) if not args.list else (0, 0, [])
    missing = [] if args.operation else missed
    print(f"{run} of {len(cells)} cells run, {void} of them with nothing to suffer the fault, {len(failed)} failed")
    for point in missing:
        print(f"no operation passes {point}")
    for name in failed:
        print(f"failed: {name}")
    unrun = run + len(failed) < len(cells) and not args.list and until is None
    return 1 if failed or missing or unrun else 0


if __name__ == "__main__":
    sys.exit(main())
