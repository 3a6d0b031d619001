#!/usr/bin/env python3
"""A disk on its way between the daemons of two hosts: who is let in, and a mirror through the receiving host's front under a
guest that writes, with the connection cut and frozen, and either tapd and the receiving daemon killed. Asks the verbs as
the coordinator does."""
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.parse
import uuid

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", ".."), HERE]
from tests.lib import pool as P  # noqa: E402
from tests.lib.relay import Relay  # noqa: E402
import test_preflight as preflight  # noqa: E402
import test_tapd_core as core  # noqa: E402

MIB = 1 << 20
SIZE = 32 * MIB
IN_FLIGHT = 6 * MIB  # the most a mirror has under way
NBD = b"Transfer-encoding: nbd"


class Writer(core.Guest):
    """Slow enough that what it rewrites is little."""

    def write(self, s, number, round):
        super().write(s, number, round)
        time.sleep(0.004)


class Socket:
    """What core.Guest wants of a tapd."""

    def __init__(self, uri):
        self.nbd = urllib.parse.parse_qs(urllib.parse.urlsplit(uri).query)["socket"][0]

    def path(self, name):
        return os.path.join(os.path.dirname(self.nbd), name)


class Disk:
    """A VDI of a host's own SR, served there."""

    def __init__(self, pool, index, user):
        self.host, self.user = pool.hosts[index - 1], user
        path = os.path.join(pool.dir, f"sr-{index}")
        os.makedirs(path)
        sr = pool.api("SR.create", pool.host_ref(index), {"location": path}, "0", f"sr{index}", "", "file", "user", False, {})
        vdi = pool.api("VDI.create", {"name_label": user, "SR": sr, "virtual_size": str(SIZE), "type": "user"})
        self.sr, self.location = pool.api("SR.get_uuid", sr), pool.api("VDI.get_location", vdi)
        self.attach()

    def verb(self, name, **more):
        return preflight.verb(self.host, "vdi." + name, dict(more, sr=self.sr, location=self.location))

    def attach(self):
        self.uri = self.verb("attach", user=self.user, activate=True)["path"]

    def status(self):
        return self.verb("mirror_status")

    def wait(self, until):
        return P.wait_until(f"the mirror, which is {self.status()}", lambda: (lambda s: s if until(s) else None)(self.status()), 60)

    def tap_pid(self):
        key = f"{self.sr}/{self.location}"
        return next(int(t["pid"]) for t in json.loads(self.host.ctl("tapd", "json")) if t["key"] == key)

    def path(self):
        return "/services/SM/nbd/" + "/".join(urllib.parse.quote(p, safe="") for p in (str(uuid.uuid4()), self.sr, self.location, "incoming"))


def secret(host):
    with open(os.path.join(host.dir, "ptoken")) as f:
        return f.read().strip()


def put(host, path, cookie, tls=True, more=""):
    """The head of the answer, and what comes right behind it."""
    port = host.pool.https_port if tls else host.pool.http_port
    with socket.create_connection((host.address, port), 20) as s:
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            s = context.wrap_socket(s)
        with s:
            s.sendall(f"PUT {path} HTTP/1.1\r\nHost: {host.address}\r\nCookie: {cookie}\r\n{more}\r\n".encode())
            got = b""
            while b"\r\n\r\n" not in got or (NBD in got and len(got.split(b"\r\n\r\n", 1)[1]) < 18):
                try:
                    data = s.recv(4096)
                except ConnectionResetError:
                    break
                if not data:
                    break
                got += data
            return got


def admission(pool, target):
    host, good = target.host, "pool_secret=" + secret(target.host)
    session = "session_id=" + pool.api.session

    def status(*args, **more):
        return put(host, *args, **more).split(b"\r\n", 1)[0].decode()

    for cookie in (good, session, "a=b; " + good):
        answer = put(host, target.path(), cookie)
        assert answer.startswith(b"HTTP/1.1 200 ") and NBD in answer and b"NBDMAGICIHAVEOPT" in answer, answer
    for path in (target.path().replace("/nbd/", "/nbdproxy/"), target.path().replace("/nbd/", "/nbdproxy/import/")):
        assert b"NBDMAGICIHAVEOPT" in put(host, path, good)
    for cookie in ("pool_secret=wrong", "migration_key=" + str(uuid.uuid4()), "migration_key=x", "session_id=OpaqueRef:none", "a=b"):
        assert " 401 " in status(target.path(), cookie) + " ", (cookie, status(target.path(), cookie))
    for path in ("/services/SM/nbd/", "/services/SM/nbd/a/b", "/services/SM/other/a/b/c/d", target.path().replace(target.location, "elsewhere"),
                 target.path().replace(target.sr, str(uuid.uuid4()))):
        assert " 404 " in status(path, good), (path, status(path, good))
    assert " 403 " in status(target.path(), good, tls=False)
    assert " 200 " not in status(target.path(), good, more="X-Huge: " + "y" * 40000 + "\r\n") # the front's own limits


def moving(pool, source, target):
    host = target.host
    relay = Relay(lambda: socket.create_connection((host.address, host.pool.https_port), 5))
    pem = subprocess.run(["openssl", "x509", "-in", os.path.join(host.dir, "xapi.pem"), "-noout", "-fingerprint", "-sha256"],
                         check=True, capture_output=True, text=True).stdout.strip().split("=")[1].replace(":", "")
    cookie = urllib.parse.quote("pool_secret=" + secret(host), safe="")
    uri = (f"nbds://127.0.0.1:{relay.port}/?tls=first&fingerprint={pem}&put={urllib.parse.quote(target.path(), safe='')}&cookie={cookie}")
    try:
        carried(pool, source, target, relay, uri)
    finally:
        relay.stop()


def lost_and_found(source, relay, how):
    accepted = relay.accepted
    how()
    P.wait_until("a new connection", lambda: relay.accepted > accepted)
    return source.wait(lambda s: s["mirror"] in ("copying", "following") and s["mirror_error"] == "")


def killed(pid):
    os.kill(pid, signal.SIGKILL)
    P.wait_until("the end of a tapd", lambda: not P.alive(pid))


def carried(pool, source, target, relay, uri):
    noise = os.urandom(MIB)
    core_socket = Socket(source.uri)
    subprocess.run(["qemu-img", "--version"], check=True, capture_output=True)
    noise_path = os.path.join(pool.dir, "noise")
    with open(noise_path, "wb") as f:
        for _ in range(SIZE // MIB):
            f.write(noise)
    subprocess.run(["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", noise_path, source.uri], check=True, timeout=60)
    guest = Writer(core_socket)
    core.progress(guest)
    try:
        preflight.verb(source.host, "vdi.mirror_start", {"sr": source.sr, "location": source.location, "uri": uri.replace(uri[-3:], "000")})
        raise AssertionError("a wrong secret is let in")
    except P.Failure as e:
        assert e.code == "SR_BACKEND_FAILURE" and "401" in str(e) and secret(target.host)[:-3] not in str(e), e
    source.verb("mirror_start", uri=uri, bandwidth=10 * MIB, silence_us=500000, streams=2)
    source.verb("mirror_start", uri=uri, bandwidth=10 * MIB, silence_us=500000, streams=2) # repeated
    source.wait(lambda s: int(s["mirror_copied"]) > SIZE // 8)
    lost_and_found(source, relay, relay.cut)
    relay_frozen(source, relay)
    before = int(source.status()["mirror_sent"])
    killed(target.tap_pid())
    target_back(target)
    source.wait(lambda s: s["mirror"] in ("copying", "following") and s["mirror_error"] == "")
    lost_and_found(source, relay, lambda: restarted(pool, target.host)) # its front carries the bytes
    source.wait(lambda s: s["mirror_error"] == "")
    core.progress(guest)
    source.verb("mirror_set", bandwidth=0, budget_us=-1)
    status = source.wait(lambda s: s["mirror"] == "following")
    assert int(status["mirror_sent"]) <= SIZE + 4 * IN_FLIGHT + 2 * 4096 * len(guest.acknowledged) * 8, (before, status)
    killed(source.tap_pid())
    source.wait(lambda s: s["mirror"] == "following" and s["mirror_error"] == "")
    core.progress(guest)
    handed_over(source, target, guest)
    no_secret(pool, target)


def relay_frozen(source, relay):
    accepted = relay.accepted
    relay.freeze()
    source.wait(lambda s: s["mirror_error"] != "")
    relay.freeze(False)
    P.wait_until("a new connection", lambda: relay.accepted > accepted)
    source.wait(lambda s: s["mirror"] in ("copying", "following") and s["mirror_error"] == "")


def restarted(pool, host):
    host.kill()
    host.start()
    P.wait_until("the host to be back", pool.all_live, 60)


def target_back(target):
    P.wait_until("the target's tapd", lambda: [t for t in json.loads(target.host.ctl("tapd", "json")) if P.alive(int(t["pid"]))])


def handed_over(source, target, guest):
    guest.end()
    source.verb("hand_over")
    source.verb("hand_over")
    status = source.status()
    assert status["mirror"] == "done" and int(status["mirror_proven"]) == SIZE and int(status["mirror_pause_us"]) > 0, status
    source.verb("deactivate")
    assert source.status()["mirror"] == "done"
    source.verb("activate") # the way back
    assert source.status()["mirror"] == "none"
    done = subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "raw", source.uri, target.uri], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    more = Writer(Socket(source.uri))
    core.progress(more)
    more.end()
    source.verb("mirror_abort")


# --- driven by the coordinator -----------------------------------------------------------------------------------


def token(pool, index):
    host = pool.host_ref(index)
    network = next(r["network"] for r in pool.api("PIF.get_all_records").values() if r["host"] == host and r["management"])
    return pool.api("host.migrate_receive", host, network, {})


def driven(pool):
    """The bandwidth is the task's to change; progress never goes back; a lost host is MIRROR_FAILED with its cause."""
    api, srs = pool.api, {r["name_label"]: ref for ref, r in pool.api("SR.get_all_records").items()}
    vm = pool.make_vm("sent", sr=srs["sr1"], disk_mib=24, platform={"sim-disk-iops": "200"})
    vdi = api("VBD.get_VDI", api("VM.get_VBDs", vm)[0])
    api("VM.start_on", vm, pool.host_ref(1), False, False)
    target, seen, changed = pool.hosts[1], [0.0], []

    def begin():
        return api("Async.VM.migrate_send", vm, token(pool, 2), True, {vdi: srs["sr2"]}, {}, {"bandwidth": "1"})

    def mirrors(task):
        P.wait_until("the mirror", lambda: int(api("task.get_other_config", task).get("migrate:eta_ms", "0")) > 0, 30)

    task = begin()
    mirrors(task)
    target.kill()
    try:
        api.wait_task(task, 60)
        raise AssertionError("it did not fail")
    except P.Failure as e:
        assert e.code == "MIRROR_FAILED" and e.params == [vdi], (e.code, e.params)
    assert api("VM.get_power_state", vm) == "Running" and api("VM.get_resident_on", vm) == pool.host_ref(1)
    target.start()
    P.wait_until("the host to be back", pool.all_live, 60)
    P.wait_until("what was sent to be away", lambda: len(api("SR.get_VDIs", srs["sr2"])) == 1, 30)
    P.wait_until("disks to be settled", lambda: not any("send-" + vm in u for h in pool.hosts for _, us in h.served().values() for u in us), 10)

    def watch(record):
        assert record["progress"] >= seen[-1], (record["progress"], seen)
        seen.append(record["progress"])
        if not changed and 0 < record["progress"] < 1:
            changed.append(record["progress"])
            api("task.add_to_other_config", task, "bandwidth", "unlimited")

    task = begin()
    mirrors(task)
    api.wait_task(task, 60, watch)
    assert changed and api("VM.get_resident_on", vm) == pool.host_ref(2)
    assert api("VDI.get_SR", api("VBD.get_VDI", api("VM.get_VBDs", vm)[0])) == srs["sr2"]
    P.wait_until("the source's disk to be away", lambda: len(api("SR.get_VDIs", srs["sr1"])) == 1, 30)
    api("VM.hard_shutdown", vm)


def no_secret(pool, target):
    """The credential is in no log and in no listing."""
    word = secret(target.host)
    for host in pool.hosts:
        assert word not in host.log_tail(100000) and word not in host.ctl("tapd", "json") and word not in host.ctl("tapd", "list")
        for directory, _ in host.tapds():
            with open(os.path.join(directory, "log"), errors="replace") as f:
                assert word not in f.read()


def main():
    for program in ("openssl", "qemu-img"):
        if shutil.which(program) is None:
            print(f"no {program}")
            return 77
    with P.Pool(hosts=2, options={"migration-reconnect-s": 1}) as pool:
        source, target = Disk(pool, 1, "send-x"), Disk(pool, 2, "incoming-x")
        began = time.monotonic()
        admission(pool, target)
        print(f"admission: {time.monotonic() - began:.1f} s", flush=True)
        began = time.monotonic()
        moving(pool, source, target)
        print(f"moving: {time.monotonic() - began:.1f} s", flush=True)
        began = time.monotonic()
        driven(pool)
        print(f"driven: {time.monotonic() - began:.1f} s", flush=True)
        for disk in (source, target):
            disk.verb("detach", user=disk.user)
    return 0


if __name__ == "__main__":
    sys.exit(main())
