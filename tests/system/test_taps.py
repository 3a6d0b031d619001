#!/usr/bin/env python3
"""Guests on disks that tapds serve: the processes killed, the daemon killed, plugs, media, suspend, moves with
disks that cannot be opened. Every guest proves its blocks; nothing is left behind."""
import http.client
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import pool as P  # noqa: E402

PLATFORM = {"sim-dirty-mib-s": "2", "sim-disk-iops": "200"}
HAS_HIS_DISKS = "disks to be served where guests are"


def written(pool, vm):
    return int(pool.guest_data(vm).get("sim/blocks_written", 0))


def goes_on(pool, vm):
    """The guest writes, and no write of his ever failed."""
    before = written(pool, vm)
    P.wait_until("the guest to write", lambda: written(pool, vm) > before + 20, 30)
    assert pool.guest_data(vm)["sim/disk_errors"] == "0", pool.guest_data(vm)


def proves_its_blocks(pool, vm):
    """A move to where it is makes it read back everything it has been told is written."""
    pool.api("VM.pool_migrate", vm, pool.api("VM.get_resident_on", vm), {})
    verified(pool, vm)


def verified(pool, vm):
    def verdict():
        data = pool.guest_data(vm)
        return data.get("sim/verify", "ok") != "ok" or int(data.get("sim/blocks_verified", 0)) > 0 and data

    data = P.wait_until("the guest's verdict on its blocks", verdict, 30)
    assert data is not True and data["sim/verify"] == "ok", pool.guest_data(vm)
    P.wait_until(HAS_HIS_DISKS, pool.disks_settled, 20)


def one_tapd(host):
    found = host.tapds()
    assert len(found) == 1, found
    return found[0][1]


def other_tapd(host, old):
    return P.wait_until("the tapd to be started again", lambda: [p for _, p in host.tapds() if p != old], 20)[0]


def tapd_killed(pool, vm):
    host = pool.hosts[0]
    for _ in range(3):
        pid = one_tapd(host)
        os.kill(pid, signal.SIGKILL)
        other_tapd(host, pid)
        goes_on(pool, vm)
    proves_its_blocks(pool, vm)


def xapi_killed(pool, vm):
    """The tapd serves on, and is found again; one that dies meanwhile is started by the next xapi."""
    host = pool.hosts[0]
    pid = one_tapd(host)
    host.kill()
    assert one_tapd(host) == pid
    host.start()
    login(pool)
    assert one_tapd(host) == pid
    goes_on(pool, vm)
    host.kill()
    os.kill(pid, signal.SIGKILL)
    host.start()
    login(pool)
    other_tapd(host, pid)
    goes_on(pool, vm)
    host.kill()
    os.kill(one_tapd(host), signal.SIGKILL)
    for name in os.listdir(os.path.join(host.dir, "tapd")):  # not even its directory is left
        for file in os.listdir(os.path.join(host.dir, "tapd", name)) if name.isdigit() else []:
            if file == "owner":
                os.unlink(os.path.join(host.dir, "tapd", name, file))
    host.start()
    login(pool)
    P.wait_until(HAS_HIS_DISKS, pool.disks_settled, 20)
    pool.api("VM.hard_reboot", vm)
    goes_on(pool, vm)
    proves_its_blocks(pool, vm)


def login(pool):
    pool.api = P.Api(pool.hosts[0].url).login()
    P.wait_until("the pool to be whole again", pool.all_live, 60)


def plugs(pool, vm):
    host = pool.hosts[0]
    raw = pool.api("VDI.create", {"name_label": "second", "SR": pool.shared_sr, "virtual_size": str(4 * P.MIB), "type": "user",
                                  "sm_config": {"type": "raw"}})
    vbd = pool.api("VBD.create", {"VM": vm, "VDI": raw, "userdevice": "1", "bootable": False, "mode": "RW", "type": "Disk", "empty": False,
                                  "other_config": {"cached": "true"}})
    pool.api("VBD.plug", vbd)
    assert len(host.tapds()) == 2
    assert pool.disks_settled()
    goes_on(pool, vm)
    proves_its_blocks(pool, vm)
    host.ctl("fault", "arm", "tap.start=error@1")
    pool.api("VBD.unplug", vbd)
    assert len(host.tapds()) == 1
    try:
        pool.api("VBD.plug", vbd)
        raise AssertionError("it cannot be plugged")
    except P.Failure as e:
        assert e.code.startswith("SR_BACKEND_FAILURE"), e
    host.ctl("fault", "disarm")
    assert pool.disks_settled()
    pool.api("VBD.plug", vbd)
    pool.api("VBD.unplug", vbd)
    pool.api("VBD.destroy", vbd)
    pool.api("VDI.destroy", raw)


def media(pool, vm):
    """A CD is read-only, and may be in the drives of two VMs at once."""
    isos = os.path.join(pool.dir, "isos")
    os.makedirs(isos)
    with open(os.path.join(isos, "a.iso"), "wb") as f:
        f.write(b"x" * 5000)
    sr = pool.api("SR.create", pool.host_ref(1), {"location": isos}, "0", "ISOs", "", "iso", "iso", False, {})
    iso = pool.api("SR.get_VDIs", sr)[0]
    other = pool.make_vm("other drive")
    drive = next(v for v in pool.api("VM.get_VBDs", vm) if pool.api("VBD.get_type", v) == "CD")
    pool.api("VBD.create", {"VM": other, "VDI": iso, "userdevice": "3", "bootable": False, "mode": "RO", "type": "CD", "empty": False})
    pool.api("VM.start_on", other, pool.host_ref(1), False, False)
    pool.api("VBD.insert", drive, iso)
    assert pool.disks_settled()
    assert any(len(users) == 2 for _, users in pool.hosts[0].served().values()), pool.hosts[0].served()
    pool.api("VM.hard_shutdown", other)
    assert pool.disks_settled()
    pool.api("VBD.eject", drive)
    assert pool.disks_settled()
    pool.hosts[0].ctl("fault", "arm", "tap.activate=error@1")
    try:
        pool.api("VBD.insert", drive, iso)
        raise AssertionError("it cannot be inserted")
    except P.Failure as e:
        assert e.code.startswith("SR_BACKEND_FAILURE"), e
    pool.hosts[0].ctl("fault", "disarm")
    assert pool.disks_settled()
    pool.api("VBD.insert", drive, iso)
    assert pool.disks_settled()
    pool.api("VBD.eject", drive)
    pool.api("VM.destroy", other)


def suspended(pool, vm):
    pool.api("VM.suspend", vm)
    assert pool.hosts[0].tapds() == [] and pool.disks_settled()
    pool.api("VM.resume", vm, False, False)
    verified(pool, vm)
    goes_on(pool, vm)


def moves(pool, vm):
    one, two = pool.host_ref(1), pool.host_ref(2)
    pool.api("VM.pool_migrate", vm, two, {})
    verified(pool, vm)
    goes_on(pool, vm)
    # the destination cannot attach: nothing happens
    pool.hosts[0].ctl("fault", "arm", "tap.attach=error@1")
    try:
        pool.api("VM.pool_migrate", vm, one, {})
        raise AssertionError("it cannot have moved")
    except P.Failure as e:
        assert e.code.startswith("SR_BACKEND_FAILURE"), e
    pool.hosts[0].ctl("fault", "disarm")
    P.wait_until(HAS_HIS_DISKS, pool.disks_settled, 20)
    goes_on(pool, vm)
    # it has committed and cannot open: it stays paused there until it can
    pool.hosts[0].ctl("fault", "arm", "tap.activate=error@1")
    pool.api("VM.pool_migrate", vm, one, {})
    verified(pool, vm)
    goes_on(pool, vm)
    # failed after the source had closed: it opens again, also when that does not work at once
    for fault in ("migrate.source.ready=error@1", "migrate.source.go=error@1", "migrate.source.ready=error@1,tap.activate=error@1"):
        pool.hosts[0].ctl("fault", "arm", fault)
        try:
            pool.api("VM.pool_migrate", vm, two, {})
            raise AssertionError("it cannot have moved")
        except P.Failure as e:
            assert e.code == "INTERNAL_ERROR", e
        pool.hosts[0].ctl("fault", "disarm")
        P.wait_until(HAS_HIS_DISKS, pool.disks_settled, 20)
        goes_on(pool, vm)
    proves_its_blocks(pool, vm)


def restart(pool, host, faults):
    host.stop()
    host.env = {"FAULTS": faults} if faults else {}
    host.start()
    login(pool)


def dies(pool, host, call):
    """'call' meets the armed fault: the host's daemon ends in the middle of it, and is started again."""
    try:
        call()
        print("the call said success", flush=True)
    except (P.Failure, OSError, http.client.HTTPException) as e:
        print("the call said", repr(e)[:80], flush=True)
    P.wait_until("the daemon to die", lambda: host.process.poll() is not None, 30)
    host.process, host.env = None, {}
    host.start()
    login(pool)


def at_rest(pool, vm):
    return not pool.api("VM.get_current_operations", vm) and pool.api("VM.get_scheduled_to_be_resident_on", vm) == "OpaqueRef:NULL"


def killed_on_the_way(pool, vm):
    """xapi dies at every step of attaching and detaching, as member and as coordinator: then the VM runs with its disks
    or stands without them, and starts again."""
    pool.api("VM.hard_shutdown", vm)
    for host in (pool.hosts[1], pool.hosts[0]):
        for point in ("sr.vdi_attach", "tap.attach", "tap.start", "tap.activate", "sr.vdi_activate", "sr.vdi_detach"):
            restart(pool, host, f"{point}=crash@1")
            here = pool.host_ref(host.index)
            start = lambda: pool.api("VM.start_on", vm, here, False, False)  # noqa: E731
            if point == "sr.vdi_detach":
                start()
                dies(pool, host, lambda: pool.api("VM.hard_shutdown", vm))
            else:
                dies(pool, host, start)
            P.wait_until("the VM to be at rest", lambda: at_rest(pool, vm), 30)
            P.wait_until(HAS_HIS_DISKS, pool.disks_settled, 30)
            state = pool.api("VM.get_power_state", vm)
            print(f"host {host.index} killed at {point}: {state}", flush=True)
            if state == "Halted":
                start()
            goes_on(pool, vm)
            pool.api("VM.hard_shutdown", vm)
            assert pool.disks_settled()
    pool.api("VM.start_on", vm, pool.host_ref(1), False, False)


def main():
    with P.Pool(hosts=2, options={"allow-faults": "true"}) as pool:
        pool.make_shared_sr()
        vm = pool.make_vm("writer", sr=pool.shared_sr, platform=PLATFORM)
        pool.api("VBD.create", {"VM": vm, "VDI": "OpaqueRef:NULL", "userdevice": "3", "bootable": False, "mode": "RO", "type": "CD", "empty": True})
        pool.api("VM.start_on", vm, pool.host_ref(1), False, False)
        P.wait_until("tools to report", lambda: pool.guest_data(vm).get("feature-suspend") == "1", 20)
        goes_on(pool, vm)
        for part in (tapd_killed, plugs, media, suspended, moves, xapi_killed, killed_on_the_way):
            part(pool, vm)
            print(part.__name__, "- done", flush=True)
        pool.api("VM.hard_shutdown", vm)
        assert pool.hosts[0].tapds() == [] and pool.hosts[0].served() == {}
        pool.api("VM.start_on", vm, pool.host_ref(1), False, False)
        left = [pid for _, pid in pool.hosts[0].tapds()] + [pid for _, pid in pool.hosts[0].guests()]
        assert len(left) == 2, left
    assert not any(P.alive(pid) for pid in left), "the pool left processes behind"


if __name__ == "__main__":
    main()
