#!/usr/bin/env python3
"""Hosts in network and mount namespaces of their own: nothing reaches the other side except through sockets."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import pool as P  # noqa: E402
from tests.lib.isolated import IsolatedPool, NoNamespaces  # noqa: E402


def main():
    if os.geteuid() != 0 or not os.path.exists("/proc/self/ns/net"):
        print("needs root and network namespaces")
        sys.exit(77)
    try:
        isolated = IsolatedPool(hosts=2)
    except NoNamespaces as e:
        print(f"no network namespaces can be made here: {e}")
        sys.exit(77)
    with isolated as pool:
        sr = pool.make_shared_sr()
        one, two = pool.host_ref(1), pool.host_ref(2)
        vm = pool.make_vm("isolated", sr=sr, platform={"sim-dirty-mib-s": "8"})
        pool.api("VM.start_on", vm, one, False, False)
        P.wait_until("tools to report", lambda: pool.guest_data(vm).get("feature-suspend") == "1", 30)
        for target in (two, one):
            pool.api("VM.pool_migrate", vm, target, {})
            assert pool.api("VM.get_resident_on", vm) == target
        P.wait_until("the guest's verdict", lambda: pool.guest_data(vm).get("sim/verify") == "ok", 30)


if __name__ == "__main__":
    main()
