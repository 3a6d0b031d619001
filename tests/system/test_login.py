#!/usr/bin/env python3
"""The wire, byte by byte, before any client library: what specs of real clients insist on."""
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import xmlrpc.client

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import pool as P  # noqa: E402


def post(sock, path, body, content_type, extra=""):
    """One request; (status, headers, body) of its answer."""
    data = body.encode()
    sock.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: {len(data)}\r\n{extra}\r\n".encode() + data)
    return answer(sock)


def answer(sock):
    stream = sock.makefile("rb")
    status = int(stream.readline().split()[1])
    headers = {}
    while (line := stream.readline().strip()):
        name, value = line.decode().split(":", 1)
        headers[name.lower()] = value.strip()
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while (size := int(stream.readline(), 16)):
            body += stream.read(size)
            stream.readline()
        stream.readline()
    else:
        body = stream.read(int(headers.get("content-length", 0)))
    return status, headers, body.decode()


def connect(pool, tls=False, unix=False):
    host = pool.hosts[0]
    if unix:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(os.path.join(host.dir, "xapi.sock"))
        return sock
    sock = socket.create_connection((host.address, pool.https_port if tls else pool.http_port), timeout=30)
    if not tls:
        return sock
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(sock)


def call_xml(method, *params):
    return xmlrpc.client.dumps(params, method)


def value(body):
    """What stands between Value's tags, uninterpreted."""
    match = re.fullmatch(r"<\?xml version=.1\.0.\?>\s*<methodResponse><params><param><value><struct><member><name>Status</name><value>Success</value></member>"
                         r"<member><name>Value</name>(<value>.*</value>)</member></struct></value></param></params></methodResponse>\s*", body, re.S)
    assert match, body[:400]
    return match.group(1)


def xml_rules(pool, session, vm):
    sock = connect(pool)
    for path in ("/", "/RPC2", "/xmlrpc", "/json", "/anything/else"):
        status, headers, body = post(sock, path, call_xml("VM.get_memory_static_max", session, vm), "text/xml")
        assert status == 200 and headers["content-type"] == "text/xml", (status, headers)
        assert value(body) == f"<value>{32 * P.MIB}</value>", body  # an int is an untagged string
        assert headers["access-control-allow-origin"] == "*"
    _, _, body = post(sock, "/", call_xml("VM.get_is_a_template", session, vm), "text/xml")
    assert value(body) == "<value><boolean>0</boolean></value>", body
    _, _, body = post(sock, "/", call_xml("VM.get_name_description", session, vm), "text/xml")
    assert value(body) in ("<value></value>", "<value/>"), body
    _, _, body = post(sock, "/", call_xml("VM.get_HVM_shadow_multiplier", session, vm), "text/xml")
    assert value(body) == "<value><double>1</double></value>", body
    _, _, body = post(sock, "/", call_xml("VM.get_snapshot_time", session, vm), "text/xml")
    assert value(body) == "<value><dateTime.iso8601>19700101T00:00:00Z</dateTime.iso8601></value>", body
    _, _, body = post(sock, "/", call_xml("VM.get_tags", session, vm), "text/xml")
    assert value(body) == "<value><array><data></data></array></value>", body
    _, _, body = post(sock, "/", call_xml("VM.get_record", session, vm), "text/xml")
    assert not re.search(r">\s+<(?!/name|/value)", value(body)), "white space between elements"
    _, _, body = post(sock, "/", call_xml("VM.start", session, "OpaqueRef:x", False, False), "text/xml")
    assert "<fault>" not in body and "<value>HANDLE_INVALID</value><value>VM</value><value>OpaqueRef:x</value>" in body, body
    _, _, body = post(sock, "/", call_xml("system.listMethods"), "text/xml")
    assert body.count("<struct>") == 0 and "<value>VM.get_all_records</value>" in body
    pretty = call_xml("session.get_uuid", session, session).replace("><", ">\n  <")
    assert value(post(sock, "/RPC2", pretty, "text/xml")[2])
    for name in ("event_from", "VM_get_record", "Async.VM.get_allowed_VBD_devices"):
        args = {"event_from": (session, ["vm"], "", 1.0)}.get(name, (session, vm))
        assert value(post(sock, "/", call_xml(name, *args), "text/xml")[2])


def json_call(sock, method, params, version=2, id_=1):
    request = {"method": method, "id": id_}
    if params is not None:
        request["params"] = params
    if version == 2:
        request["jsonrpc"] = "2.0"
    status, headers, body = post(sock, "/jsonrpc", json.dumps(request), "application/json; charset=utf-8")
    assert status == 200 and headers["content-type"] == "application/json", (status, headers)
    return json.loads(body)


def json_rules(pool, session, vm):
    sock = connect(pool)
    a = json_call(sock, "VM.get_memory_static_max", [session, vm])
    assert a == {"jsonrpc": "2.0", "result": 32 * P.MIB, "id": 1}, a
    a = json_call(sock, "VM.get_uuid", [session, "OpaqueRef:x"], id_="text")
    assert a["error"]["message"] == "HANDLE_INVALID" and a["error"]["data"] == ["VM", "OpaqueRef:x"] and a["id"] == "text", a
    assert "result" not in a
    a = json_call(sock, "VM.get_uuid", [session, "OpaqueRef:x"], version=1)
    assert a == {"result": None, "error": ["HANDLE_INVALID", "VM", "OpaqueRef:x"], "id": 1}, a
    a = json_call(sock, "VM.set_name_description", [session, vm, "over json"])
    assert a == {"jsonrpc": "2.0", "result": "", "id": 1}, a
    assert "VM.start" in json_call(sock, "system.listMethods", None)["result"]
    task = json_call(sock, "Async.VM.get_allowed_VBD_devices", [session, vm])["result"]
    record = P.wait_until("the task", lambda: (r := json_call(sock, "task.get_record", [session, task])["result"])["status"] == "success" and r)
    assert record["result"].startswith("<value>") and re.fullmatch(r"\d{8}T\d\d:\d\d:\d\dZ", record["created"]), record
    assert record["name_label"] == "Async.VM.get_allowed_VBD_devices" and record["progress"] == 1
    json_call(sock, "task.destroy", [session, task])
    batch = json_call(sock, "event.from", [session, ["VM", "task"], "", 5])["result"]
    assert all(e["class"] in ("vm", "task") and e["operation"] == "add" and "uuid" in e["snapshot"] for e in batch["events"]), batch
    assert isinstance(batch["valid_ref_counts"]["vm"], int) and re.fullmatch(r"\d{20},\d{20}", batch["token"]), batch["token"]
    empty = json_call(sock, "event.from", [session, ["secret"], batch["token"], 0.2])["result"]
    assert empty["events"] == [] and empty["token"] >= batch["token"]
    a = json_call(sock, "VM.get_all_records_where", {"session_id": session, "expr": 'field "is_control_domain" = "true"'})
    assert "result" in a and len(a["result"]) == 1, a


def refusals(pool, session):
    sock = connect(pool)
    a = json_call(sock, "session.login_with_password", ["root", "wrong"])
    assert a["error"]["message"] == "SESSION_AUTHENTICATION_FAILED" and a["error"]["data"][0] == "root", a
    assert json_call(sock, "VM.get_all", ["OpaqueRef:gone"])["error"] ["message"] == "SESSION_INVALID"
    assert json_call(sock, "VM.fly", [session])["error"] == {"code": 1, "message": "MESSAGE_METHOD_UNKNOWN", "data": ["VM.fly"]}
    a = json_call(sock, "VM.start", [session])
    assert a["error"]["message"] == "MESSAGE_PARAMETER_COUNT_MISMATCH" and a["error"]["data"] == ["VM.start", "3", "0"], a
    for n in (2, 3, 4):
        assert json_call(sock, "session.login_with_password", ["root", P.PASSWORD, "2.20", "me"][:n])["result"].startswith("OpaqueRef:")
    bombs = ['<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "b">]><methodCall><methodName>&a;</methodName></methodCall>', "<methodCall>", "", "{}",
             "<methodCall>" + "<params>" * 2000, "\0"]
    for bomb in bombs:
        other = connect(pool)
        status = post(other, "/", bomb, "text/xml")[0]
        assert status in (400, 500), (bomb[:40], status)
    for head in ("GET / HTTP/9.9\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n", "NONSENSE\r\n\r\n",
                 "POST / HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length : 4\r\n\r\n"):
        other = connect(pool)
        other.sendall(head.encode())
        first = other.recv(1000)
        assert first.startswith(b"HTTP/1.1 4") or first.startswith(b"HTTP/1.1 5"), (head, first)
    for head, status in (("PUT /services/xenops/migrate/vm/0 HTTP/1.1\r\nHost: x\r\n\r\n", 401),
                         ("PUT /services/xenops/migrate/mem/0 HTTP/1.1\r\nHost: x\r\nCookie: pool_secret=wrong; migration_id=0\r\n\r\n", 401),
                         ("PUT /services/xenops/elsewhere HTTP/1.1\r\nHost: x\r\n\r\n", 404),
                         ("POST /services/agent HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 401)):
        other = connect(pool)
        other.sendall(head.encode())
        got = other.recv(1000)
        assert int(got.split()[1]) in (status, 403), (head, got)
    assert pool.api("pool.get_all"), "still serving"


def ways_in(pool):
    for sock in (connect(pool, tls=True), connect(pool, unix=True)):
        a = json_call(sock, "session.login_with_password", ["root", P.PASSWORD])
        assert a["result"].startswith("OpaqueRef:"), a
    sock = connect(pool)
    sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer(sock)[0] == 200
    sock.sendall(b"OPTIONS /jsonrpc HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer(sock)[0] in (200, 204)
    curl = subprocess.run(["curl", "-sk", "--tls-max", "1.2", "--curves", "secp384r1", "-o", "/dev/null", "-w", "%{http_code}",
                           f"https://{pool.hosts[0].address}:{pool.https_port}/"], capture_output=True, text=True, timeout=30)
    assert curl.stdout == "200", (curl.returncode, curl.stdout, curl.stderr)


def main():
    with P.Pool(hosts=1) as pool:
        session = pool.api.session
        vm = pool.make_vm("wire")
        xml_rules(pool, session, vm)
        json_rules(pool, session, vm)
        ways_in(pool)
        refusals(pool, session)


if __name__ == "__main__":
    main()
