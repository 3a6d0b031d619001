#!/usr/bin/env python3
"""make run: a simulated pool in the foreground, with running guests on shared and local storage.

Prints one line READY url=... https=... user=root password=... when it serves. SIGTERM or SIGINT ends all of it."""
import argparse
import os
import signal
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import pool as P  # noqa: E402


def fill(pool):
    """Some guests; those of an earlier run in the same directory are started again."""
    known = {r["name_label"]: (ref, r) for ref, r in pool.api("VM.get_all_records").items() if not r["is_a_template"]}
    hosts = [pool.host_ref(h.index) for h in pool.hosts]
    for i in range(4):
        name = f"guest-{i + 1}"
        if name in known:
            ref, record = known[name]
            if record["power_state"] == "Halted":
                pool.api("VM.start", ref, False, False)
            continue
        host = hosts[i % len(hosts)]
        local = next((ref for ref, r in pool.api("SR.get_all_records").items() if not r["shared"] and r["content_type"] != "iso" and any(
            pool.api("PBD.get_host", p) == host for p in r["PBDs"])), pool.shared_sr)
        vm = pool.make_vm(name, sr=local if i == 3 else pool.shared_sr, platform={"sim-dirty-mib-s": "2", "sim-disk-iops": "10"})
        pool.api("VM.start_on", vm, host, False, False)


def shared_sr(pool):
    for ref, record in pool.api("SR.get_all_records").items():
        if record["name_label"] == "Shared storage":
            pool.shared_sr = ref
            return
    pool.make_shared_sr()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--hosts", type=int, default=3)
    parser.add_argument("--dir", required=True)
    options = parser.parse_args()
    stop = threading.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, lambda *_: stop.set())
    pool = P.Pool(hosts=options.hosts, directory=options.dir, prefix="127.0.1",
                  options={"host-heartbeat-interval-ms": 2000})
    pool.start()
    try:
        shared_sr(pool)
        fill(pool)
        address = pool.hosts[0].address
        print(f"READY url=http://{address}:{pool.http_port} https=https://{address}:{pool.https_port} user=root password={P.PASSWORD}", flush=True)
        while not stop.wait(1):
            for host in pool.hosts:
                if host.process.poll() is not None:
                    print(f"host {host.index} ended by itself:\n{host.log_tail()}", file=sys.stderr)
                    return 1
    finally:
        pool.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
