"""The servers of the benchmark: a daemon with many VMs, and the peers it is measured against."""
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import pool as pools
from load import Load, http_request, program
from pairs import Failed
from processes import wait_idle

HERE = os.path.dirname(os.path.abspath(__file__))


def end(process):
    """Ends a child of ours and waits for it."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise Failed(f"{os.path.basename(command[0])} ended with {done.returncode}: {done.stdout.strip()[-300:]}")


class Daemon:
    """A pool of one, with VMs that were put into its database while it was down."""

    def __init__(self, bench, vms):
        self.dir = tempfile.mkdtemp(prefix="pool-", dir=bench.dir)
        self.pool = pools.Pool(hosts=1, directory=self.dir, options={"log-level": "warn"})
        self.starts, self.sessions, self.refs = [], [], {}
        try:
            self.pool.start()
            self.pool.hosts[0].stop()
            run([program(bench.build, "bench_fill"), os.path.join(self.host.dir, "pool.db"), str(vms)])
            self.start()
        except BaseException:
            self.stop()
            raise
        self.load = Load(bench, self.host.address, self.pool.http_port)

    @property
    def host(self):
        return self.pool.hosts[0]

    @property
    def process(self):
        return self.host.process

    @property
    def pid(self):
        return self.process.pid

    def start(self):
        """Starts it; notes in self.starts how long it took until it served."""
        began = time.time()
        self.host.start()
        self.starts.append(os.stat(os.path.join(self.host.dir, "xapi.ready")).st_mtime - began)
        self.pool.api = pools.Api(self.host.url, timeout=300).login()
        self.sessions = [self.pool.api.session]
        wait_idle(self.pid)

    def restart(self):
        self.host.stop()
        self.start()

    def session(self, i):
        """The session of the i-th client."""
        while len(self.sessions) <= i:
            self.sessions.append(self.pool.api.raw("session.login_with_password", "root", pools.PASSWORD, "2.20", "bench"))
        return self.sessions[i]

    def request(self, method, *params, client=0):
        return http_request(method, self.session(client), *params)

    def api(self, method, *params):
        return self.pool.api(method, *params)

    def sample(self, cls, n=1):
        """n objects of those that were put in: of VM or VM_metrics."""
        if not self.refs:
            labels = [f"web front end {i:05d}, north site" for i in range(64)]
            self.refs["VM"] = [self.api("VM.get_by_name_label", label)[0] for label in labels]
            self.refs["VM_metrics"] = [self.api("VM.get_metrics", vm) for vm in self.refs["VM"]]
        return self.refs[cls][:n]

    def stop(self):
        self.pool.stop()
        shutil.rmtree(self.dir, ignore_errors=True)


class Child:
    """A peer that prints its port and ends when its stdin does."""

    def __init__(self, bench, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        port = self.process.stdout.readline().strip()
        if not port.isdigit():
            end(self.process)
            raise Failed(f"{os.path.basename(command[0])} did not start")
        self.load = Load(bench, "127.0.0.1", int(port))

    @property
    def pid(self):
        return self.process.pid

    def stop(self):
        end(self.process)


def mock(bench, daemon):
    script = os.path.join(HERE, "mock_server.py")
    peer = Child(bench, [sys.executable, script, daemon.host.url, "root", pools.PASSWORD])
    wait_idle(peer.pid)
    return peer


def buffer(bench, path):
    return Child(bench, [program(bench.build, "bench_buffer"), path])


# --- ovsdb-server ---------------------------------------------------------------------------------------

STRINGS = {"key": "string", "min": 0, "max": "unlimited"}
TEXTS = {"key": "string", "value": "string", "min": 0, "max": "unlimited"}
ATOMS = {bool: "boolean", float: "real"}


def column(value):
    kind = STRINGS if isinstance(value, list) else TEXTS if isinstance(value, dict) else ATOMS.get(type(value), "string")
    return {"type": kind}


def cell(value):
    if isinstance(value, list):
        return ["set", value]
    if isinstance(value, dict):
        return ["map", [[k, v] for k, v in value.items()]]
    return value if isinstance(value, (bool, float, str)) else str(value)


class Ovsdb:
    """ovsdb-server with tables that have the fields of our classes, and rows with the values of our objects."""

    def __init__(self, bench, tables):
        """tables: name -> records, of which the first shapes the table."""
        self.uuids = {}
        self.dir = os.path.join(bench.dir, "ovsdb")
        shutil.rmtree(self.dir, ignore_errors=True)
        os.makedirs(self.dir)
        self.port = pools.free_ports("127.0.0.1", 1)[0]
        self.create(tables)
        log = open(os.path.join(self.dir, "log"), "wb")
        self.process = subprocess.Popen(["ovsdb-server", "--remote=db:bench,Listener,listeners", f"--unixctl={self.dir}/ctl",
                                         "-vsyslog:off", "--no-chdir", self.path], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        self.load = Load(bench, "127.0.0.1", self.port, "json")
        try:
            self.fill(tables)
            wait_idle(self.pid)
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self):
        return self.process.pid

    @property
    def path(self):
        return os.path.join(self.dir, "bench.db")

    def create(self, tables):
        """Its schema, and where it listens: a row that also switches off its probing of idle clients."""
        schema = {"name": "bench", "version": "1.0.0",
                  "tables": {name: {"columns": {k: column(v) for k, v in records[0].items()}, "isRoot": True} for name, records in tables.items()}}
        to_listener = {"type": {"key": {"type": "uuid", "refTable": "Address"}, "min": 0, "max": "unlimited"}}
        schema["tables"]["Listener"] = {"columns": {"listeners": to_listener}, "isRoot": True}
        schema["tables"]["Address"] = {"columns": {"target": {"type": "string"}, "inactivity_probe": {"type": "integer"}}}
        path = os.path.join(self.dir, "schema")
        with open(path, "w") as f:
            json.dump(schema, f)
        run(["ovsdb-tool", "create", self.path, path])
        address = {"target": f"ptcp:{self.port}:127.0.0.1", "inactivity_probe": 0}
        run(["ovsdb-tool", "transact", self.path, json.dumps(
            ["bench", {"op": "insert", "table": "Address", "row": address, "uuid-name": "address"},
             {"op": "insert", "table": "Listener", "row": {"listeners": ["set", [["named-uuid", "address"]]]}}])])

    def connect(self):
        for _ in range(100):
            try:
                return socket.create_connection(("127.0.0.1", self.port), timeout=60)
            except ConnectionRefusedError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.05)
        raise Failed("ovsdb-server did not start")

    def fill(self, tables):
        with self.connect() as s:
            for name, records in tables.items():
                self.uuids[name] = []
                for at in range(0, len(records), 100):
                    rows = [{"op": "insert", "table": name, "row": {k: cell(v) for k, v in r.items()}} for r in records[at:at + 100]]
                    for answer in self.transact(s, rows):
                        if "uuid" not in answer:
                            raise Failed(f"ovsdb-server: {answer}")
                        self.uuids[name].append(answer["uuid"][1])

    @staticmethod
    def transact(s, operations):
        s.sendall(json.dumps({"method": "transact", "params": ["bench", *operations], "id": 1}).encode())
        data, decoder = b"", json.JSONDecoder()
        while True:
            data += s.recv(1 << 20)
            try:
                message, end_at = decoder.raw_decode(data.decode())
            except ValueError:
                continue
            if message.get("id") == 1:
                return message["result"]
            data = data[end_at:]

    def update(self, table, row, values):
        """A durable update of one row, as a request."""
        where = [["_uuid", "==", ["uuid", self.uuids[table][row]]]]
        operations = [{"op": "update", "table": table, "where": where, "row": {k: cell(v) for k, v in values.items()}},
                      {"op": "commit", "durable": True}]
        return json.dumps({"method": "transact", "params": ["bench", *operations], "id": 1}).encode()

    def monitor(self, table):
        select = {"initial": False, "insert": True, "delete": True, "modify": True}
        return json.dumps({"method": "monitor", "params": ["bench", "m", {table: {"select": select}}], "id": 0}).encode()

    def stop(self):
        end(self.process)
        shutil.rmtree(self.dir, ignore_errors=True)

