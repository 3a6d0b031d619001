#!/usr/bin/env python3
"""VM metadata over HTTP between real daemons, with curl and a bare socket as clients: out, in as a new VM, in again after the VM
was lost, and everything that is refused. Then what goes with a VM: measurements, messages, blobs."""
import io
import os
import socket
import subprocess
import sys
import tarfile
import urllib.parse
import xmlrpc.client

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import pool as P  # noqa: E402

VOLATILE = {"VBDs", "VIFs", "VTPMs", "metrics", "guest_metrics", "snapshots", "parent", "children", "snapshot_of", "snapshot_metadata", "allowed_operations",
            "current_operations"}


class World:
    def __init__(self, pool):
        self.pool, self.api, self.dir = pool, pool.api, os.path.join(pool.dir, "work")
        os.makedirs(self.dir)
        self.sr = pool.make_shared_sr()
        self.network = self.api("network.create", {"name_label": "lan", "name_description": "", "MTU": "1500", "other_config": {}, "tags": []})

    def url(self, path, scheme="http", host=1, **query):
        query = {k: v for k, v in dict({"session_id": self.api.session}, **query).items() if v is not None}
        port = self.pool.https_port if scheme == "https" else self.pool.http_port
        return f"{scheme}://{self.pool.hosts[host - 1].address}:{port}{path}?{urllib.parse.urlencode(query)}"

    def curl(self, *words, data=None):
        """(status, body); data goes to its standard input."""
        out = os.path.join(self.dir, "answer")
        if os.path.exists(out):
            os.unlink(out)
        done = subprocess.run(["curl", "--silent", "--insecure", "--max-time", "60", "--output", out, "--write-out", "%{http_code}", *words], input=data,
                              stdout=subprocess.PIPE, check=False)
        body = b""
        if os.path.exists(out):
            with open(out, "rb") as f:
                body = f.read()
        return int(done.stdout), body

    def export(self, **query):
        status, body = self.curl(self.url("/export_metadata", **query))
        assert status == 200, (status, body)
        return body

    def put(self, data, *words, path="/import_metadata", **query):
        file = os.path.join(self.dir, "upload")
        with open(file, "wb") as f:
            f.write(data)
        return self.curl("--upload-file", file, *words, self.url(path, **query))

    def import_(self, data, *words, **query):
        """By a task of the client's, as xe does: the refs made."""
        task = self.api("task.create", "import", "")
        status, body = self.put(data, *words, task_id=task, **query)
        record = self.api.wait_task(task)
        assert status == 200, (status, body)
        return xmlrpc.client.loads("<params><param>" + record["result"] + "</param></params>")[0][0]

    def fails(self, data, code, *params, status=None, words=(), **query):
        before = self.rows()
        task = self.api("task.create", "import", "")
        got, body = self.put(data, *words, task_id=task, **query)
        assert got >= 400 and body.startswith(code.encode()), (got, body)
        assert status is None or got == status, (got, status)
        record = self.api("task.get_record", task)
        assert record["status"] == "failure" and record["error_info"][0] == code, record
        for want, have in zip(params, record["error_info"][1:]):
            assert want is None or want == have, record["error_info"]
        self.api("task.destroy", task)
        assert self.rows() == before, code

    def rows(self):
        return {c: sorted(self.api(c + ".get_all")) for c in ("VM", "VBD", "VIF", "VTPM", "VM_metrics")}

    def guest(self, name):
        vm = self.pool.make_vm(name, sr=self.sr)
        self.api("VIF.create", {"device": "0", "network": self.network, "VM": vm, "MAC": "", "MTU": "1500", "other_config": {}, "qos_algorithm_type": "",
                                "qos_algorithm_params": {}})
        self.api("VBD.create", {"VM": vm, "VDI": "OpaqueRef:NULL", "userdevice": "3", "bootable": False, "mode": "RO", "type": "CD", "empty": True})
        self.api("VTPM.create", vm, True)
        self.api("VM.add_tags", vm, "gold")
        self.api("VM.add_to_other_config", vm, "note", "<&> \u00e9")
        self.api("VM.add_to_NVRAM", vm, "EFI-variables", "AAEC")
        return vm

    def lose(self, vm):
        """The records of the VM and its snapshots go, the disks stay: by destroying it after its disks were taken away."""
        for ref in [vm] + self.api("VM.get_snapshots", vm):
            for vbd in self.api("VM.get_VBDs", ref):
                self.api("VBD.destroy", vbd)
            self.api("VM.destroy", ref)


def layout(w):
    vm = w.guest("laid out")
    data = w.export(uuid=w.api("VM.get_uuid", vm))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert [m.name for m in tar.getmembers()] == ["ova.xml"]
        xml = tar.extractfile("ova.xml").read().decode()
    assert data.endswith(bytes(1024)) and len(data) % 512 == 0
    ova = xmlrpc.client.loads("<params><param>" + xml + "</param></params>")[0][0]
    assert ova["version"]["export_vsn"] == "2" and ova["version"]["product_brand"], ova["version"]
    classes = [o["class"] for o in ova["objects"]]
    assert {"VM", "VBD", "VIF", "VDI", "SR", "network", "VTPM", "VM_metrics"} <= set(classes), classes
    by_id = {o["id"]: o for o in ova["objects"]}
    record = next(o for o in ova["objects"] if o["class"] == "VM")["snapshot"]
    assert record["name_label"] == "laid out" and record["other_config"]["note"] == "<&> \u00e9"
    for field, kind in (("VBDs", "VBD"), ("VIFs", "VIF"), ("VTPMs", "VTPM")):
        assert record[field] and all(by_id[r]["class"] == kind for r in record[field])
    assert set(record) == set(w.api("VM.get_record", vm)), "a complete record"
    assert "OpaqueRef:" not in xml.replace("OpaqueRef:NULL", "")
    w.api("VM.get_record", w.import_(data, "--http1.0")[0])  # the xe of old
    assert w.put(data, "--header", "Transfer-Encoding: chunked")[0] == 200
    status, body = w.curl(w.url("/export_metadata", all="true"))
    assert status == 200 and body.count(b"<name>class</name><value>VM<") == len(w.api("VM.get_all")) - defaults(w)
    status, body = w.curl(w.url("/export_metadata", ref=vm) + "&ref=" + urllib.parse.quote(w.pool.make_vm("second")))
    assert status == 200 and body.count(b"<name>class</name><value>VM<") == 2


def defaults(w):
    return sum(r["is_default_template"] for r in w.api("VM.get_all_records").values())


def as_new(w):
    vm = w.guest("original")
    w.api("VM.snapshot", vm, "then")
    data = w.export(ref=vm)
    made = w.import_(data)
    assert len(made) == 2
    old, new = w.api("VM.get_record", vm), w.api("VM.get_record", made[0])
    differ = {k for k in old if old[k] != new[k]} - VOLATILE
    assert differ <= {"uuid", "other_config", "generation_id"}, differ
    assert w.api("VM.get_record", made[1])["snapshot_of"] == made[0]
    macs = [w.api("VIF.get_MAC", w.api("VM.get_VIFs", r)[0]) for r in (vm, made[0])]
    assert macs[0] != macs[1]
    disk = lambda r: next(w.api("VBD.get_VDI", b) for b in w.api("VM.get_VBDs", r) if w.api("VBD.get_userdevice", b) == "0")
    assert disk(vm) == disk(made[0])
    assert w.import_(data, dry_run="true") == [] and len(w.api("VM.get_by_name_label", "original")) == 2


def after_loss(w):
    vm = w.guest("lost")
    snapshot = w.api("VM.snapshot", vm, "lost then")
    mac = w.api("VIF.get_MAC", w.api("VM.get_VIFs", vm)[0])
    data, old, old_snapshot = w.export(ref=vm), w.api("VM.get_record", vm), w.api("VM.get_record", snapshot)
    w.fails(data, "VM_TO_IMPORT_IS_NOT_NEWER_VERSION", vm, "0", "0", restore="true")
    w.api("VM.start", vm, False, False)
    w.fails(data, "VM_BAD_POWER_STATE", vm, "Halted", "Running", restore="true")
    w.api("VM.hard_shutdown", vm)
    w.lose(vm)
    made = w.import_(data, restore="true")
    new, new_snapshot = w.api("VM.get_record", made[0]), w.api("VM.get_record", made[1])
    for before, after in ((old, new), (old_snapshot, new_snapshot)):
        differ = {k for k in before if before[k] != after[k]} - VOLATILE
        assert not differ, {k: (before[k], after[k]) for k in differ}
    assert new_snapshot["snapshot_of"] == made[0] and new["parent"] == made[1]
    assert w.api("VIF.get_MAC", new["VIFs"][0]) == mac
    w.api("VM.start", made[0], False, False)  # its disk is found again
    w.api("VM.hard_shutdown", made[0])
    w.api("VM.revert", made[1])
    assert w.api("VM.get_uuid", w.api("VM.get_by_uuid", old["uuid"]))


def suspended(w):
    vm = w.guest("sleeper")
    w.api("VM.start", vm, False, False)
    w.api("VM.suspend", vm)
    made = w.import_(w.export(ref=vm))
    record = w.api("VM.get_record", made[0])
    assert record["power_state"] == "Suspended" and record["suspend_VDI"] == w.api("VM.get_suspend_VDI", vm)
    w.api("VM.hard_shutdown", vm)


def force(w):
    vm = w.guest("incomplete")
    data = w.export(ref=vm)
    vdi = next(r["VDI"] for r in map(lambda b: w.api("VBD.get_record", b), w.api("VM.get_VBDs", vm)) if r["type"] == "Disk")
    w.lose(vm)
    w.api("VDI.destroy", vdi)
    w.fails(data, "IMPORT_ERROR_FAILED_TO_FIND_OBJECT", None, restore="true", status=400)
    assert w.import_(data, restore="true", dry_run="true") == []
    made = w.import_(data, restore="true", force="true")
    assert [w.api("VBD.get_type", b) for b in w.api("VM.get_VBDs", made[0])] == ["CD"]
    other = w.api("VDI.create", {"name_label": "other", "SR": w.sr, "virtual_size": str(P.MIB), "type": "user"})
    made = w.import_(data, **{"vdi:" + uuid_in(data): w.api("VDI.get_uuid", other)})
    assert other in [w.api("VBD.get_VDI", b) for b in w.api("VM.get_VBDs", made[0])]


def uuid_in(data):
    xml = data[512:data.rindex(b"</value>") + 8].decode()
    ova = xmlrpc.client.loads("<params><param>" + xml + "</param></params>")[0][0]
    return next(o["snapshot"]["uuid"] for o in ova["objects"] if o["class"] == "VDI")


def refused(w):
    data = w.export(ref=w.guest("good"))
    w.fails(b"no archive at all" * 100, "IMPORT_ERROR", status=400)
    w.fails(b"", "IMPORT_ERROR_PREMATURE_EOF", status=400)
    w.fails(data[:700], "IMPORT_ERROR_PREMATURE_EOF", status=400)
    w.fails(data[:512] + b"<value>" * 50 + data[862:], "IMPORT_ERROR", status=400)
    w.fails(bytes(100 << 20), "IMPORT_ERROR_PREMATURE_EOF", status=400)
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as t:
        t.addfile(tarfile.TarInfo("../../etc/passwd"))
    w.fails(tar.getvalue(), "IMPORT_ERROR_UNEXPECTED_FILE", "ova.xml", "../../etc/passwd", status=400)
    big = tarfile.TarInfo("ova.xml")
    big.size = 17 << 20
    w.fails(big.tobuf(tarfile.USTAR_FORMAT) + bytes(1 << 20), "IMPORT_ERROR", None, status=400)
    assert w.curl(w.url("/export_metadata", uuid="nobody"))[0] == 404
    assert w.curl(w.url("/export_metadata"))[0] == 500
    s = socket.create_connection((w.pool.hosts[0].address, w.pool.http_port), timeout=60)  # a client that goes in the middle
    s.sendall(f"PUT /import_metadata?session_id={w.api.session} HTTP/1.1\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data[:900])
    s.close()
    snapshot = w.api("VM.snapshot", w.pool.make_vm("bare"), "bare then")
    assert w.curl(w.url("/export_metadata", ref=snapshot))[1].startswith(b"OPERATION_NOT_ALLOWED")


def who(w):
    data = w.export(ref=w.guest("guarded"))
    before = w.rows()
    for session in ("OpaqueRef:nobody", "", None):
        status, body = w.put(data, session_id=session)
        assert status == 401 and body.startswith(b"SESSION_INVALID"), (status, body)
    assert w.put(data, "--user", "root:wrong", session_id=None)[0] == 401
    users = os.path.join(w.pool.dir, "users")
    subprocess.run([os.path.join(P.BUILD, "xapi-ctl"), "--config", os.path.join(w.pool.dir, "users.conf"), "passwd", "reader"], input="secret\n", text=True,
                   check=True, stdout=subprocess.DEVNULL)
    assert os.path.exists(users)
    subject = w.api("subject.create", {"subject_identifier": "u:reader", "other_config": {"subject-name": "reader"}})
    role = next(r for r, v in w.api("role.get_all_records").items() if v["name_label"] == "read-only")
    for given in w.api("subject.get_roles", subject):  # pool-admin, as xapi
        w.api("subject.remove_from_roles", subject, given)
    w.api("subject.add_to_roles", subject, role)
    reader = P.Api(w.pool.hosts[0].url, "reader", "secret").login()
    task = reader("task.create", "mine", "")
    for method, path in (("GET", "/export_metadata"), ("PUT", "/import_metadata"), ("PUT", "/messages"), ("PUT", "/rrd")):
        url = w.url(path, session_id=reader.session, all="true", task_id=task if path == "/import_metadata" else None)
        status, body = w.curl("--request", method, url, *(["--data-binary", "x"] if method == "PUT" else []))
        assert status == 403 and body.startswith(b"RBAC_PERMISSION_DENIED"), (path, status, body[:200])
    assert reader("task.get_error_info", task)[0] == "RBAC_PERMISSION_DENIED"
    w.api("subject.add_to_roles", subject, next(r for r, v in w.api("role.get_all_records").items() if v["name_label"] == "vm-admin"))
    admin = P.Api(w.pool.hosts[0].url, "reader", "secret").login()  # who may import may not bring a migration
    assert w.put(data, session_id=admin.session, incoming="x")[0] == 403
    assert w.put(data, session_id=admin.session, dry_run="true")[0] == 200
    assert w.rows() == before
    assert w.put(data, "--user", "root:" + P.PASSWORD, session_id=None)[0] == 200  # by password, without a task
    assert w.curl("--cookie", "session_id=" + w.api.session, w.url("/export_metadata", session_id=None, all="true"))[0] == 200


def by_member(w):
    vm = w.guest("far")
    status, _ = w.curl(w.url("/export_metadata", ref=vm, host=2))
    assert status == 302
    status, body = w.curl("--location", w.url("/export_metadata", scheme="https", ref=vm, host=2))
    assert status == 200
    status, answer = w.put(body, "--location", host=2)
    assert status == 200, answer


def the_rest(w):
    vm = w.guest("rich")
    uuid = w.api("VM.get_uuid", vm)
    assert w.curl(w.url("/vm_rrd", uuid=uuid))[0] == 404
    rrd = os.urandom(70000)
    assert w.put(rrd, path="/rrd", uuid=uuid)[0] == 200
    assert w.curl(w.url("/vm_rrd", uuid=uuid)) == (200, rrd)
    assert w.put(rrd, path="/rrd", uuid="../../pool.db")[0] == 404
    assert w.put(bytes(17 << 20), path="/rrd", uuid=uuid)[0] == 400
    blob = w.api("VM.create_new_blob", vm, "picture", "image/png", False)
    assert w.put(rrd, path="/blob", ref=blob)[0] == 200
    assert w.curl(w.url("/blob", ref=blob)) == (200, rrd) and w.api("blob.get_size", blob) == str(len(rrd))
    assert w.curl(w.url("/blob", ref=blob, session_id=None))[0] == 401
    w.api("blob.set_public", blob, True)
    assert w.curl(w.url("/blob", uuid=w.api("blob.get_uuid", blob), session_id=None)) == (200, rrd)
    w.api("blob.destroy", blob)
    assert w.curl(w.url("/blob", ref=blob))[0] == 404
    record = {"name": "VM_STARTED", "priority": 5, "cls": "VM", "obj_uuid": uuid, "timestamp": xmlrpc.client.DateTime("20200101T00:00:00Z"), "body": "a <b>",
              "uuid": "aaaaaaaa-0000-4000-8000-000000000001"}
    xml = xmlrpc.client.dumps(([record],))
    body = xml[xml.index("<value>"):xml.rindex("</param>")].encode()
    for _ in range(2):  # twice is once
        assert w.put(body, path="/messages", cls="VM", uuid=uuid)[0] == 200
    assert [(m["body"], m["name"]) for m in w.api("message.get", "VM", uuid, xmlrpc.client.DateTime("20190101T00:00:00Z")).values()
            if m["uuid"] == record["uuid"]] == [("a <b>", "VM_STARTED")]
    assert w.put(b"rubbish", path="/messages", cls="VM", uuid=uuid)[0] == 400
    assert w.put(body, path="/messages", cls="Nothing", uuid=uuid)[0] == 400


def main():
    with P.Pool(hosts=2) as pool:
        w = World(pool)
        for step in (layout, as_new, after_loss, suspended, force, refused, who, by_member, the_rest):
            step(w)
            print(step.__name__, "ok", flush=True)


if __name__ == "__main__":
    main()
