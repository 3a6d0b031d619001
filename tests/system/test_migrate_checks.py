#!/usr/bin/env python3
"""VM.assert_can_migrate between two pools of real daemons: each refusal with its parameters, and no trace of a dry run."""
import os
import ssl
import sys
import urllib.request
import xmlrpc.client

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import pool as P  # noqa: E402

NULL = "OpaqueRef:NULL"


def management_network(pool, host):
    return next(p["network"] for p in pool.api("PIF.get_all_records").values() if p["host"] == host and p["management"])


def token(pool):
    host = pool.host_ref(1)
    return pool.api("host.migrate_receive", host, management_network(pool, host), {})


def refused(call, code, *params):
    try:
        call()
    except P.Failure as e:
        assert e.code == code, (e.code, e.params, "expected", code)
        for given, wanted in zip(e.params, params):
            assert wanted is None or given == wanted, (e.code, e.params, "expected", params)
        return e
    raise AssertionError(f"no {code}")


def record(pool, classes=("VM", "VDI", "VBD", "VIF", "task")):
    return {c: sorted(pool.api(c + ".get_all")) for c in classes}


def post(pool, cookie, method):
    """One agent call as another pool's host would make it."""
    host = pool.hosts[0]
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    body = xmlrpc.client.dumps(({"operation": os.urandom(8).hex(), "join": False, "wait_ms": 1000, "args": {}},), method).encode()
    request = urllib.request.Request(f"https://{host.address}:{pool.https_port}/services/xenops", body, {"Content-Type": "text/xml", "Cookie": cookie})
    with urllib.request.urlopen(request, timeout=30, context=context) as answer:
        return xmlrpc.client.loads(answer.read())[0][0]


def check_services(pool, session):
    with urllib.request.urlopen(pool.hosts[0].url + "/services/xenops", timeout=30) as answer:
        assert answer.status == 200 and b"migrations" in answer.read()
    assert post(pool, f"session_id={session}", "agent.vm.list")["ErrorDescription"] == ["MESSAGE_METHOD_UNKNOWN", "vm.list"]
    assert post(pool, "session_id=OpaqueRef:x", "agent.migrate.ask")["ErrorDescription"] == ["SESSION_INVALID", "OpaqueRef:x"]
    assert post(pool, "migration_key=" + "0" * 36, "agent.migrate.ask")["ErrorDescription"] == ["SESSION_AUTHENTICATION_FAILED"]


def check_token(there, dest):
    host = there.hosts[0]
    base = f"http://{host.address}:{there.http_port}"
    assert set(dest) == {"SM", "xenops", "master", "host", "session_id"}
    assert dest["xenops"] == f"{base}/services/xenops?session_id={dest['session_id']}", dest
    assert dest["SM"] == f"{base}/services/SM?session_id={dest['session_id']}" and dest["master"] == base
    assert dest["host"] == there.host_ref(1)
    assert P.Api(host.url).raw("session.get_is_local_superuser", dest["session_id"], dest["session_id"]) is True


def check_halted(here, there, dest):
    """One refusal after the other, in xapi's order."""
    vm = here.make_vm("halted", sr=here.shared_sr, disk_mib=4)
    vdi = next(v["VDI"] for v in here.api("VBD.get_all_records").values() if v["VM"] == vm)
    vif = here.api("VIF.create", {"VM": vm, "network": here.api("network.get_all")[0], "device": "0", "MAC": "", "MTU": "1500",
                                  "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}})
    pool, default = there.api("pool.get_all")[0], there.shared_sr
    network = management_network(there, dest["host"])
    vdi_map, vif_map = {}, {}

    def ask(options=None):
        return here.api("VM.assert_can_migrate", vm, dest, True, vdi_map, vif_map, options or {}, {})

    here.api("VM.set_hardware_platform_version", vm, "99")
    here.api("VM.set_VCPUs_max", vm, "4000")
    there.api("pool.set_default_SR", pool, NULL)
    there.api("SR.set_name_label", default, "renamed")
    there.api("host.disable", dest["host"])
    refused(ask, "VDI_NOT_IN_MAP", vdi)
    vdi_map[vdi] = default
    refused(ask, "VM_HOST_INCOMPATIBLE_VIRTUAL_HARDWARE_PLATFORM_VERSION", dest["host"], None, vm, "99")
    here.api("VM.set_hardware_platform_version", vm, "0")
    refused(ask, "HOST_DISABLED", dest["host"])
    there.api("host.enable", dest["host"])
    refused(ask, "HOST_NOT_ENOUGH_PCPUS", "4000")
    here.api("VM.set_VCPUs_max", vm, "1")
    refused(ask, "VIF_NOT_IN_MAP", vif)
    vif_map[vif] = network
    before = record(there)
    ask()
    ask({"copy": "true"})
    assert record(there) == before, "a dry run leaves nothing"
    there.api("pool.set_default_SR", pool, default)
    vdi_map.clear()
    ask()
    refused(lambda: ask({"on_timeout": "soon"}), "INVALID_VALUE", "on_timeout", "soon")
    here.api("VIF.destroy", vif)
    return vm


def check_running(here, there, dest):
    vm = here.make_vm("running", memory_mib=64, sr=here.shared_sr, disk_mib=4)
    here.api("VM.start", vm, False, False)

    def ask(options=None):
        return here.api("VM.assert_can_migrate", vm, dest, True, {}, {}, options or {}, {})

    refused(lambda: ask({"copy": "true"}), "VM_BAD_POWER_STATE", vm, "halted", "running")
    ask()
    other = there.make_vm("filler", memory_mib=16)
    size = str(int(there.api("host.compute_free_memory", dest["host"])) - (60 << 20))
    there.api("VM.set_memory_limits", other, "16777216", size, size, size)
    there.api("VM.start", other, False, False)
    needed = refused(ask, "HOST_NOT_ENOUGH_FREE_MEMORY")
    assert int(needed.params[0]) > int(needed.params[1]) >= 0, needed.params
    there.api("VM.hard_shutdown", other)
    ask()
    here.api("VM.hard_shutdown", vm)


def main():
    with P.Pool(hosts=1) as here:
        here.make_shared_sr()
        there = P.second_pool(here)
        there.options["sim-memory-mib"] = 320
        with there:
            there.make_shared_sr()
            dest = token(there)
            check_token(there, dest)
            check_services(there, dest["session_id"])
            vm = check_halted(here, there, dest)
            check_running(here, there, dest)
            P.Api(there.hosts[0].url).raw("session.logout", dest["session_id"])
            refused(lambda: here.api("VM.assert_can_migrate", vm, dest, True, {}, {}, {}, {}), "SESSION_INVALID", dest["session_id"])
            dest = token(there)
        refused(lambda: here.api("VM.assert_can_migrate", vm, dest, True, {}, {}, {}, {}), "CANNOT_CONTACT_HOST", there.hosts[0].address)


if __name__ == "__main__":
    main()
