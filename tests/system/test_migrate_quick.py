#!/usr/bin/env python3
"""One guest there and back between two daemons, sync and Async: small enough to run under sanitizers."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import pool as P  # noqa: E402


def main():
    with P.Pool(hosts=2) as pool:
        sr = pool.make_shared_sr()
        one, two = pool.host_ref(1), pool.host_ref(2)
        vm = pool.make_vm("quick", memory_mib=16, sr=sr, disk_mib=4, platform={"sim-dirty-mib-s": "2"})
        pool.api("VM.start_on", vm, one, False, False)
        P.wait_until("tools to report", lambda: pool.guest_data(vm).get("feature-suspend") == "1", 60)
        pool.api("VM.pool_migrate", vm, two, {})
        assert pool.api("VM.get_resident_on", vm) == two
        pool.api.async_("VM.pool_migrate", vm, one, {"live": "true"})
        assert pool.api("VM.get_resident_on", vm) == one
        P.wait_until("the guest's verdict", lambda: pool.guest_data(vm).get("sim/verify") == "ok", 60)
        pool.api("VM.suspend", vm)
        assert pool.api("VM.get_power_state", vm) == "Suspended"
        pool.api("VM.resume_on", vm, two, False, False)
        pool.api("VM.clean_reboot", vm)
        pool.api("VM.clean_shutdown", vm)
        assert pool.api("VM.get_power_state", vm) == "Halted"
        pool.api("VM.destroy", vm)


if __name__ == "__main__":
    main()
