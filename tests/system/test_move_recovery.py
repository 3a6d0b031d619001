#!/usr/bin/env python3
"""The coordinator (also the source host) is killed before every step of a VM's move with its disk, within the pool and to another
pool. When it is back everything settles by itself: the guest runs where it was, or where it was going, never twice, and proves
itself; no disk, mark, record or note is left."""
import http.client
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import pool as P  # noqa: E402
import test_migrate_send as T  # noqa: E402

with open(os.path.join(P.ROOT, "xapi", "migrate", "move.c")) as source:
    STEPS = re.findall(r'\{ "(\w+)", step_', source.read())
AFTER = ("commit", "clean")


def one(w, step, far):
    name = f"{step}-{'far' if far else 'near'}"
    vm = w.vm(name)
    host = w.pool.hosts[0]
    host.ctl("fault", "arm", f"migrate.move.{step}=crash")
    try:
        w.send_far(vm) if far else w.send(vm, 2)
        raise AssertionError("the coordinator outlived its kill")
    except (OSError, http.client.HTTPException):
        pass
    host.process.wait(30)
    host.start()
    w.pool.api = w.api = P.Api(host.url).login()
    P.wait_until("the pool to be back", w.pool.all_live, 60)
    P.wait_until("the move to be settled", lambda: not any(r["current_operations"] for p in (w.pool, w.other)
                 for r in p.api("VM.get_all_records").values()), 60)
    found = [(pool, ref) for pool in (w.pool, w.other) for ref, r in pool.api("VM.get_all_records").items() if r["name_label"] == name]
    assert len(found) == 1, found
    pool, ref = found[0]
    assert (pool is w.other) == (far and step in AFTER), (step, far)
    T.runs(pool, ref, 2 if not far and step in AFTER else 1)
    if step in AFTER:
        T.verified(pool, ref)
    T.quiet(w.pool, w.other)
    w.destroy(pool, ref)
    w.empty()


def main():
    assert len(STEPS) >= 9, STEPS
    with P.Pool(hosts=2, options={"allow-faults": "true"}) as pool, P.second_pool(pool) as other:
        w = T.World(pool, other)
        for far in (False, True):
            for step in STEPS:
                one(w, step, far)
                print(f"killed before {step}, {'to another pool' if far else 'in the pool'}: settled", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
