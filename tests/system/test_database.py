#!/usr/bin/env python3
"""The database file from outside: a session on a copy only reads; a corrupt or newer file is refused with a
sentence that says what to do, and left as it was."""
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import pool as P  # noqa: E402


def fails(call, code):
    try:
        call()
    except P.Failure as e:
        assert e.code == code, (e.code, e.params)
        return
    raise AssertionError(f"expected {code}")


def session_on_a_file(pool, host):
    vm = pool.make_vm("in the file")
    copy = os.path.join(pool.dir, "copy.db")
    host.ctl("db", "backup", "--file", os.path.join(host.dir, "pool.db"), copy)
    pool.api("VM.set_name_label", vm, "renamed since")
    session = pool.api("session.create_from_db_file", copy)
    assert pool.api.raw("VM.get_name_label", session, vm) == "in the file"
    assert pool.api("VM.get_name_label", vm) == "renamed since"
    fails(lambda: pool.api.raw("VM.set_name_label", session, vm, "x"), "OPERATION_NOT_ALLOWED")
    fails(lambda: pool.api.raw("VM.destroy", session, vm), "OPERATION_NOT_ALLOWED")
    pool.api.raw("session.logout", session)
    assert not [f for f in os.listdir(host.dir) if f.startswith("session-")]
    fails(lambda: pool.api("session.create_from_db_file", "/etc/passwd"), "INTERNAL_ERROR")


def digest(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def refused(host, path, word):
    before = digest(path)
    run = subprocess.run([os.path.join(P.BUILD, "xapi"), "--config", os.path.join(host.dir, "xapi.conf"), "--foreground"],
                         text=True, capture_output=True, timeout=60)
    assert run.returncode != 0 and word in run.stderr, (run.returncode, run.stderr)
    assert digest(path) == before, "the file was touched"
    print(run.stderr.strip().splitlines()[-1])


def main():
    with P.Pool(hosts=1) as pool:
        host = pool.hosts[0]
        session_on_a_file(pool, host)
        host.stop()
        path = os.path.join(host.dir, "pool.db")
        good = os.path.join(pool.dir, "good.db")
        shutil.copy(path, good)
        with sqlite3.connect(path) as db:
            db.execute("pragma user_version = 9999")
        db.close()
        refused(host, path, "newer")
        with open(path, "r+b") as f:
            f.seek(4096 * 3)
            f.write(os.urandom(8192))
        refused(host, path, "xapi-ctl db restore")
        shutil.copy(good, path)
        host.start()
        assert P.Api(host.url).login()("VM.get_by_name_label", "renamed since")


if __name__ == "__main__":
    main()
