#!/usr/bin/env python3
"""Debian's fence_xenapi: list, status, off, on."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import pool as P  # noqa: E402


def fence(pool, *words):
    answer = subprocess.run(["fence_xenapi", "-s", pool.hosts[0].url, "-l", "root", "-p", P.PASSWORD, *words],
                            text=True, capture_output=True, timeout=60)
    print(" ".join(words), "->", answer.returncode, answer.stdout.strip(), answer.stderr.strip(), flush=True)
    return answer


def main():
    with P.Pool(hosts=1) as pool:
        vm = pool.make_vm("fenced")
        uuid = pool.api("VM.get_uuid", vm)
        pool.api("VM.start", vm, False, False)
        assert uuid in fence(pool, "-o", "list").stdout
        assert "Status: ON" in fence(pool, "-o", "status", "-n", uuid).stdout
        assert fence(pool, "-o", "off", "-n", uuid).returncode == 0
        assert pool.api("VM.get_power_state", vm) == "Halted"
        assert "Status: OFF" in fence(pool, "-o", "status", "-n", uuid).stdout
        assert fence(pool, "-o", "on", "-n", uuid).returncode == 0
        assert pool.api("VM.get_power_state", vm) == "Running"
        assert fence(pool, "-o", "reboot", "-n", "fenced").returncode == 0
        assert fence(pool, "-o", "status", "-n", "no-such-vm").returncode != 0


if __name__ == "__main__":
    main()
