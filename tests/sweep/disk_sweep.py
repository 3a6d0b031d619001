#!/usr/bin/env python3
"""Every fault at every step of what is done with a guest's disk: attach, detach, snapshot, coalesce, mirror and switch.

The steps are the code's own fault points: a first pass of each operation tells which it passes, and a point that none
passes fails the sweep unless tests/sweep/points.py says why. Afterwards the VM runs, its guest proves every block it was
told is written, the images hold what is served, and no image, journal, row, user or process is left over.

  disk_sweep.py                 all cells        --list        only prints them
  disk_sweep.py --sample N      N of them, always the same
  disk_sweep.py WORD...         the cells whose name has all these words"""
import argparse
import os
import shutil
import signal
import sys
import time
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import pool as P  # noqa: E402
from tests.sweep import points  # noqa: E402
from tests.sweep.disk_lab import Doing, Lab, NoMounts  # noqa: E402

NEVER = "999999999"

# --- operations ------------------------------------------------------------------------------------------


def nothing(lab):
    pass


def suspended(lab):
    lab.api("VM.suspend", lab.vm)


def resume(lab):
    lab.api.another()("VM.resume", lab.vm, False, False)


def suspend(lab):
    lab.api.another()("VM.suspend", lab.vm)


def snapshot(number):
    return lambda lab: lab.api.another()("VDI.snapshot", lab.vdi(number))


def two_snapshots(lab):
    for _ in range(2):
        lab.api("VDI.snapshot", lab.vdi())
        lab.writes(10)


def coalesce(lab):
    """Destroys the snapshots; the rest is the daemon's own doing."""
    api, mine = lab.api.another(), lab.srs.index(lab.api("VDI.get_SR", lab.vdi()))
    for ref, r in lab.vdi_rows().items():
        if r["is_a_snapshot"]:
            api("VDI.destroy", ref)
    P.wait_until("one image", lambda: lab.dead() or lab.filled or len(lab.images(mine)) == 1, 60)


def move(lab):
    api = lab.api.another()
    api.async_("VDI.pool_migrate", lab.vdi(), lab.srs[1 - lab.where()], {})


def respawn(lab):
    lab.kill_tapds()
    lab.writes()


# name: (prepare, run, the disk it is about, faults between the daemon's steps)
OPERATIONS = {
    "attach": (suspended, resume, 0, ("error", "xapi", "tapd", "both", "full-source")),
    "detach": (nothing, suspend, 0, ("error", "xapi", "tapd", "both", "full-source", "slow-source", "io-source")),
    "snapshot": (nothing, snapshot(0), 0, ("error", "xapi", "tapd", "both", "full-source", "slow-source", "io-source")),
    "snapshot-raw": (nothing, snapshot(1), 1, ("error", "xapi", "tapd", "both", "full-raw", "slow-source", "slow-target", "io-source", "io-target")),
    "coalesce": (two_snapshots, coalesce, 0, ("error", "xapi", "tapd", "both", "full-source", "slow-source", "slow-target", "io-source", "io-target")),
    "move": (nothing, move, 0, ("error", "xapi", "tapd", "both", "full-source", "full-target", "slow-source", "slow-target", "io-source", "io-target")),
    "respawn": (nothing, respawn, 0, ("error", "xapi")),
}
INSIDE = ("error", "tapd") # at a step inside the tapd: it fails, or the process dies there

SLOW = "{0}.read=delay-8,{0}.write=delay-8,{0}.flush=delay-8"

# While the operation stands at the step. False: there was nothing to do that to.
BETWEEN = {
    "tapd": lambda lab: lab.kill_tapds(),
    "both": lambda lab: lab.kill_all(),
    "full-source": lambda lab: lab.fill(lab.where()),
    "full-target": lambda lab: lab.fill(1 - lab.where()),
    "full-raw": lambda lab: lab.fill(2),
    "slow-source": lambda lab: lab.arm_tapds(SLOW.format("tapd")),
    "slow-target": lambda lab: lab.arm_tapds(SLOW.format("target")),
    "io-source": lambda lab: lab.arm_tapds("tapd.read=error@1,tapd.write=error@1,tapd.flush=error@1"),
    "io-target": lambda lab: lab.arm_tapds("target.write=error@1,target.read=error@2"),
}

# --- which steps an operation has ---------------------------------------------------------------------------


def armed_never(names):
    return ",".join(f"{name}=never@{NEVER}" for name in sorted(names))


def discover(lab, operation):
    """(points of the daemon, points of the tapd) that it passes."""
    prepare, run, number, _ = OPERATIONS[operation]
    prepare(lab)
    names = sorted(points.daemon_points())
    for i in range(0, len(names), 20):
        lab.arm(armed_never(names[i:i + 20]))
    served = [] if operation in ("attach", "respawn") else [lab.tapd_of(number)]
    for directory in served:
        lab.arm_tapd(directory, armed_never(points.tapd_points()))
    doing = Doing(lab, run)
    doing.wait()
    assert doing.error is None, doing.error
    daemon = lab.visited()
    inside = {p for d in served for p, visits in (lab.arm_tapd(d, "") or {}).items() if visits > 0}
    lab.settle()
    if operation != "coalesce": # what clears up after the operation before
        daemon = {p for p in daemon if not points.clearing_up(p)}
    return sorted(daemon), sorted(inside) if operation in ("snapshot-raw", "coalesce", "move") else []


def matrix(lab):
    cells, passed = [], set()
    for operation, (_, _, _, faults) in OPERATIONS.items():
        daemon, inside = discover(lab, operation)
        passed |= set(daemon) | set(inside)
        cells += [(operation, p, f) for p in daemon if not points.elsewhere(p) for f in faults]
        cells += [(operation, p, "tapd:" + f) for p in inside for f in INSIDE]
    missed = [p for p in sorted(points.daemon_points() | points.tapd_points()) if p not in passed and not points.elsewhere(p)]
    return cells, missed


# --- one cell ------------------------------------------------------------------------------------------------


class Void(Exception):
    """The fault cannot be at this step: there is nothing yet that could suffer it."""


def inside_tapd(lab, run, number, point, fault):
    directory = lab.tapd_of(number)
    pid = dict(lab.host.tapds())[directory]
    lab.arm_tapd(directory, f"{point}={'crash' if fault == 'tapd' else 'error'}@1")
    doing = Doing(lab, run)
    doing.wait()
    was = lab.arm_tapd(directory, "") or {}
    died = dict(lab.host.tapds()).get(directory) != pid
    assert died if fault == "tapd" else was.get(point, 0) > 0 or died, f"{point} was not visited: {was}"
    return doing


def at_step(lab, run, point, fault):
    word = {"error": "error@1", "xapi": "crash@1"}.get(fault, "stop")
    lab.arm(f"{point}={word}")
    doing = Doing(lab, run)
    if fault == "xapi":
        P.wait_until("the daemon to die", lab.dead, 60)
        doing.wait()
        return doing
    if fault != "error":
        P.wait_until(f"{point} to be visited", lambda: point in lab.visited(), 60)
        there = BETWEEN[fault](lab)
        if not lab.dead():
            lab.host.ctl("fault", "disarm")
        doing.wait()
        if not there:
            raise Void
        return doing
    doing.wait()
    assert point in lab.visited(), f"{point} was not visited"
    return doing


def may_reach_guest(point, fault):
    """Whether the guest may get an error: it waits out everything but what its own disk says."""
    return fault in ("io-source", "io-target", "full-source", "full-raw") or (fault == "tapd:error" and point.startswith(("tapd.", "target.")))


def run_cell(lab, operation, point, fault):
    prepare, run, number, _ = OPERATIONS[operation]
    prepare(lab)
    errors = lab.errors()
    try:
        if fault.startswith("tapd:"):
            doing = inside_tapd(lab, run, number, point, fault.removeprefix("tapd:"))
        else:
            doing = at_step(lab, run, point, fault)
        said = "done" if doing.error is None else str(doing.error)[:100].replace("\n", " ")
        void = False
    except Void:
        said, void = "nothing to suffer it", True
    lab.settle()
    assert lab.errors() <= errors or may_reach_guest(point, fault), f"the guest got {lab.errors() - errors} errors"
    return said, void


def known_full(lab):
    """What can be known before is said before: SR_FULL, and nothing was made."""
    target = 1 - lab.where()
    lab.fill(target)
    with open(os.path.join(lab.places[target], ".filler"), "r+b") as f:
        f.truncate(os.path.getsize(f.name) - (64 << 10)) # some room, too little for the disk
    for code, call in (("SR_FULL", lambda: lab.api("VDI.pool_migrate", lab.vdi(), lab.srs[target], {})),):
        try:
            call()
            raise AssertionError("there was no room")
        except P.Failure as e:
            assert e.code == code, (e.code, e.params)
        assert lab.images(target) == [".filler"], lab.images(target)
    lab.free()
    lab.fill(2)
    try:
        lab.api("VDI.snapshot", lab.vdi(1))
        raise AssertionError("there was no room")
    except P.Failure as e:
        assert e.code == "SR_FULL", (e.code, e.params)
    assert len(lab.images(2)) == 2, lab.images(2)
    lab.settle()


# --- all of them ------------------------------------------------------------------------------------------------


def sample(cells, n):
    """Spread evenly, and every operation and every fault is among them if n allows."""
    chosen, seen = [], set()
    for c in sorted(cells, key=lambda c: (hash_of(c), c)):
        news = {("operation", c[0]), ("fault", c[2])} - seen
        if news:
            chosen.append(c)
            seen |= news
    rest = [c for c in sorted(cells, key=hash_of) if c not in chosen]
    return (chosen + rest)[:n]


def hash_of(cell):
    h = 0
    for b in "/".join(cell).encode():
        h = (h * 131 + b) & 0xFFFFFFFF
    return h * 2654435761 & 0xFFFFFFFF


def keep_logs(lab, name):
    to = os.path.join(os.environ.get("SWEEP_LOGS", os.path.join(P.BUILD, "sweep-logs")), name.replace("/", "_"))
    shutil.rmtree(to, ignore_errors=True)
    os.makedirs(to)
    shutil.copy(os.path.join(lab.host.dir, "xapi.log"), to)
    for directory in lab.tapds():
        shutil.copytree(directory, os.path.join(to, os.path.basename(directory)), ignore=lambda d, names: [n for n in names if n in ("control", "nbd")])
    return to


def sweep(cells):
    """Runs them; a lab that a cell has ruined is made anew. (run, void, failed)"""
    lab, run, void, failed = Lab(), 0, 0, []
    try:
        for operation, point, fault in cells:
            name, began = f"{operation}/{point}/{fault}", time.monotonic()
            try:
                said, nothing_there = run_cell(lab, operation, point, fault)
                run, void = run + 1, void + nothing_there
                print(f"{name}: {said} ({time.monotonic() - began:.1f} s)", flush=True)
            except BaseException as e:  # noqa: BLE001
                if isinstance(e, (KeyboardInterrupt, SystemExit)):
                    raise
                failed.append(name)
                print(f"{name}: FAILED ({time.monotonic() - began:.1f} s)\n{traceback.format_exc()}logs: {keep_logs(lab, name)}", flush=True)
                try:
                    lab.remove()
                except RuntimeError as e2:
                    print(e2, flush=True)
                lab = Lab()
    finally:
        lab.remove()
    return run, void, failed


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    parser = argparse.ArgumentParser()
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--shard", default="0/1", help="i/n: every nth cell from the ith on")
    parser.add_argument("words", nargs="*")
    args = parser.parse_args()
    if shutil.which("qemu-img") is None:
        print("no qemu-img")
        return 77
    try:
        lab = Lab()
    except NoMounts as e:
        print("cannot mount:", e)
        return 77
    try:
        cells, missed = matrix(lab)
        known_full(lab)
    finally:
        lab.remove()
    n_steps, n_faults = len({c[:2] for c in cells}), len({c[2] for c in cells})
    if args.sample:
        cells = sample(cells, args.sample)
    i, n = map(int, args.shard.split("/"))
    cells = [c for c in cells if all(w in "/".join(c) for w in args.words)][i::n]
    if args.list:
        print("\n".join("/".join(c) for c in cells))
    run, void, failed = sweep(cells) if not args.list else (0, 0, [])
    print(f"{n_steps} steps x {n_faults} faults: {run} of {len(cells)} cells run, {void} of them with nothing to suffer the fault, {len(failed)} failed")
    for point in missed:
        print(f"no operation passes {point}")
    for name in failed:
        print(f"failed: {name}")
    return 1 if failed or missed or (run < len(cells) and not args.list) else 0


if __name__ == "__main__":
    sys.exit(main())
