#!/usr/bin/env python3
"""The genuine npm xen-api client, over JSON-RPC and over XML-RPC, plain and TLS: it watches the pool and
migrates a running VM there and back."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import pool as P  # noqa: E402


def packages():
    """node_modules with xen-api, fetched once into the build directory."""
    where = os.path.join(P.BUILD, "npm")
    if not os.path.isdir(os.path.join(where, "node_modules", "xen-api")):
        os.makedirs(where, exist_ok=True)
        source = os.path.join(P.ROOT, "tests", "system", "package.json")
        with open(source) as f, open(os.path.join(where, "package.json"), "w") as g:
            g.write(f.read())
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=where, check=True)
    return where


def main():
    where = packages()
    with P.Pool(hosts=2) as pool:
        sr = pool.make_shared_sr()
        vm = pool.make_vm("xen-api", sr=sr, platform={"sim-dirty-mib-s": "8"})
        pool.api("VM.start", vm, False, False)
        P.wait_until("some memory to be written", lambda: int(pool.guest_data(vm).get("sim/pages_written", 0)) > 3000, 30)
        uuid = pool.api("VM.get_uuid", vm)
        first = pool.hosts[0]
        ways = [(f"http://{first.address}:{pool.http_port}", "json-rpc"), (f"http://{first.address}:{pool.http_port}", "xml-rpc"),
                (f"https://{first.address}:{pool.https_port}", "auto")]
        for url, transport in ways:
            resident = pool.api("VM.get_resident_on", vm)
            other = next(h for h in pool.api("host.get_all") if h != resident)
            print(f"--- {transport} on {url}", flush=True)
            subprocess.run(["node", os.path.join(P.ROOT, "tests", "system", "xen_api.mjs"), url, transport, P.PASSWORD, uuid,
                            pool.api("host.get_uuid", other)], check=True, timeout=120,
                           env=dict(os.environ, NODE_PACKAGES=where, NODE_TLS_REJECT_UNAUTHORIZED="0"))
        assert pool.guest_data(vm).get("sim/verify") == "ok", pool.guest_data(vm)


if __name__ == "__main__":
    main()
