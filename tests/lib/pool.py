"""Simulated pools for system tests, the demo and 'make run': real daemons on loopback addresses.

Every host has an address of its own (127.x.y.1, 127.x.y.2, ...) and all have the same ports, as clients
expect. Everything lives in one directory; stop() ends every process that directory knows of, by pid."""
import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import xmlrpc.client

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, os.environ.get("BUILD", "build"))
PASSWORD = "pool-password"
MIB = 1 << 20


class Failure(Exception):
    """An API error: .code and .params."""

    def __init__(self, description):
        super().__init__(": ".join(description))
        self.code, self.params = description[0], list(description[1:])


def refused(call, code):
    """The call must fail with this code: its parameters."""
    try:
        call()
    except Failure as e:
        assert e.code == code, (e.code, e.params)
        return e.params
    raise AssertionError(f"expected {code}")


class Transport(xmlrpc.client.Transport):
    def __init__(self, timeout):
        super().__init__()
        self.timeout = timeout

    def make_connection(self, host):
        if self._connection and host == self._connection[0]:
            return self._connection[1]
        self._connection = host, http.client.HTTPConnection(host, timeout=self.timeout)
        return self._connection[1]


class Api:
    """XML-RPC with a session: api("VM.start", ref, False, False)."""

    def __init__(self, url, user="root", password=PASSWORD, timeout=120):
        self.url, self.user, self.password, self.timeout = url, user, password, timeout
        self.proxy = xmlrpc.client.ServerProxy(url, transport=Transport(timeout), allow_none=True)
        self.session = None

    def raw(self, method, *args):
        answer = getattr(self.proxy, method)(*args)
        if not isinstance(answer, dict) or "Status" not in answer:
            return answer
        if answer["Status"] != "Success":
            raise Failure(answer["ErrorDescription"])
        return answer["Value"]

    def login(self):
        self.session = self.raw("session.login_with_password", self.user, self.password, "2.20", "tests")
        return self

    def __call__(self, method, *args):
        return self.raw(method, self.session, *args)

    def another(self):
        """A second connection with a session of its own (for threads)."""
        return Api(self.url, self.user, self.password, self.timeout).login()

    def wait_task(self, task, timeout=120, progress=None):
        """Waits by event.from, as clients do; destroys the task; returns its result or raises Failure."""
        token, until = "", time.monotonic() + timeout
        while True:
            record = self("task.get_record", task)
            if progress:
                progress(record)
            if record["status"] not in ("pending", "cancelling"):
                self("task.destroy", task)
                if record["status"] == "success":
                    return record
                raise Failure(record["error_info"] or [record["status"]])
            if time.monotonic() > until:
                raise TimeoutError(f"task {record['name_label']} is {record['status']} at {record['progress']}")
            token = self("event.from", ["task/" + task], token, 1.0)["token"]

    def async_(self, method, *args, timeout=120, progress=None):
        return self.wait_task(self("Async." + method, *args), timeout, progress)


def free_ports(address, n):
    """n ports that are free on 'address' now (they are used on its neighbours too)."""
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(n):
            s = stack.enter_context(socket.socket())
            s.bind((address, 0))
            ports.append(s.getsockname()[1])
        return ports


def wait_until(what, condition, timeout=60, step=0.05):
    """Polls a condition that has no event to wait for; fails with 'what' after 'timeout' seconds."""
    until = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            raise TimeoutError(f"waited {timeout} s for {what}")
        time.sleep(step)


class Host:
    def __init__(self, pool, index):
        self.pool, self.index = pool, index
        self.address = f"{pool.prefix}.{index}"
        self.dir = os.path.join(pool.dir, f"host{index}")
        self.process = None
        self.env = {}
        self.started_at = self.ready_at = 0

    @property
    def url(self):
        return f"http://{self.address}:{self.pool.http_port}"

    def configure(self):
        os.makedirs(self.dir, exist_ok=True)
        options = {
            "dir": self.dir,
            "address": self.address,
            "http-port": self.pool.http_port,
            "https-port": self.pool.https_port,
            "unix-socket": os.path.join(self.dir, "xapi.sock"),
            "hypervisor": "sim",
            "users-file": os.path.join(self.pool.dir, "users"),
            "auth-fail-delay-ms": 10,
            "host-heartbeat-interval-ms": 500,
            "host-assumed-dead-interval-ms": 20000,
            "fuse-time-ms": 50,
            "sim-witness-dir": self.pool.witness,
            "sim-memory-mib": 2048,
            "sim-guest-program": os.path.join(BUILD, "xapi-guest"),
        }
        options.update(self.pool.options)
        with open(os.path.join(self.dir, "xapi.conf"), "w") as conf:
            conf.writelines(f"{key} = {value}\n" for key, value in options.items())

    def start(self):
        command = [os.path.join(BUILD, "xapi"), "--config", os.path.join(self.dir, "xapi.conf"), "--foreground"]
        if "-address" in BUILD or "-thread" in BUILD:
            command = ["setarch", "-R"] + command
        while int(time.time()) <= self.ready_at:  # so that agent_start_time tells this start from the last one
            time.sleep(0.05)
        self.started_at = int(time.time())
        ready = os.path.join(self.dir, "xapi.ready")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(ready)
        log = open(os.path.join(self.dir, "xapi.log"), "ab")
        env = dict(os.environ, **self.env)
        self.process = subprocess.Popen(self.pool.enter(self) + command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
        log.close()
        wait_until(f"host {self.index} to serve (see {self.dir}/xapi.log)", lambda: os.path.exists(ready) or self.died(), 60)
        self.ready_at = int(time.time())

    def died(self):
        if self.process.poll() is None:
            return False
        with open(os.path.join(self.dir, "xapi.log"), errors="replace") as log:
            tail = "".join(log.readlines()[-20:])
        raise RuntimeError(f"xapi of host {self.index} ended with {self.process.returncode}:\n{tail}")

    def stop(self, sig=signal.SIGTERM):
        """Ends the daemon; its guests go on."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            status = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self.process = None
        return status

    def kill(self):
        self.stop(signal.SIGKILL)

    def ctl(self, *words):
        """xapi-ctl against this host: its standard output."""
        return subprocess.run([os.path.join(BUILD, "xapi-ctl"), "--config", os.path.join(self.dir, "xapi.conf"), *words],
                              text=True, check=True, capture_output=True, timeout=60).stdout

    def guests(self):
        """(uuid, pid) of the guest processes on this host, found as the daemon finds them."""
        found = []
        domains = os.path.join(self.dir, "sim", "domains")
        for name in sorted(os.listdir(domains)) if os.path.isdir(domains) else []:
            try:
                with open(os.path.join(domains, name, "domain.json")) as f:
                    record = json.load(f)
                pid = int(record["pid"])
                exe = os.readlink(f"/proc/{pid}/exe")
            except (OSError, ValueError, KeyError):
                continue
            if os.path.basename(exe).startswith("xapi-guest"):
                found.append((record["uuid"], pid))
        return found

    def tapds(self):
        """(directory, pid) of the processes that serve this host's disks, by the pids in their directories."""
        found = []
        root = os.path.join(self.dir, "tapd")
        for name in sorted(os.listdir(root)) if os.path.isdir(root) else []:
            try:
                with open(os.path.join(root, name, "pid")) as f:
                    pid, start = f.read().split()
                with open(f"/proc/{pid}/stat") as f:
                    fields = f.read().rsplit(")", 1)[1].split()
            except (OSError, ValueError):
                continue
            if fields[19] == start and fields[0] != "Z":
                found.append((os.path.join(root, name), int(pid)))
        return found

    def served(self):
        """What this host's tapds serve: {key: (state, set of users)}."""
        found = {}
        for line in self.ctl("tapd", "list").splitlines():
            words = line.split()
            found[words[2]] = words[1], set(words[-1].removeprefix("users=").split(","))
        return found

    def log_tail(self, lines=40):
        try:
            with open(os.path.join(self.dir, "xapi.log"), errors="replace") as log:
                return "".join(log.readlines()[-lines:])
        except FileNotFoundError:
            return ""


class Pool:
    """with Pool(hosts=3) as pool: pool.api("host.get_all") ...   Hosts are joined; shared_sr is an SR ref."""

    def __init__(self, hosts=1, directory=None, prefix=None, options=None, join=True):
        self.keep = directory is not None
        self.dir = os.path.abspath(directory) if directory else tempfile.mkdtemp(prefix="xapi-pool-")
        os.makedirs(self.dir, exist_ok=True)
        self.prefix = prefix or f"127.{random.randint(2, 250)}.{random.randint(1, 250)}"
        self.http_port, self.https_port = self.pick_ports()
        self.witness = os.path.join(self.dir, "witness")
        self.shared = os.path.join(self.dir, "shared-sr")
        os.makedirs(self.witness, exist_ok=True)
        os.makedirs(self.shared, exist_ok=True)
        self.options = dict(options or {})
        self.join = join
        self.hosts = [Host(self, i + 1) for i in range(hosts)]
        self.api = None
        self.shared_sr = None

    def pick_ports(self):
        return free_ports(f"{self.prefix}.1", 2)

    def enter(self, host):
        """What to put in front of a host's command line."""
        return []

    def start(self):
        try:
            self.write_users()
            for host in self.hosts:
                host.configure()
                host.start()
            self.api = Api(self.hosts[0].url).login()
            if self.join and len(self.hosts) > 1:
                self.join_all()
            for host in self.hosts if self.join else []:
                self.api("host.set_name_label", self.host_ref(host.index), f"host{host.index}")
        except BaseException:
            self.stop()
            raise
        return self

    def write_users(self):
        users = os.path.join(self.dir, "users")
        if not os.path.exists(users):
            with open(os.path.join(self.dir, "users.conf"), "w") as conf:
                conf.write(f"users-file = {users}\n")
            subprocess.run([os.path.join(BUILD, "xapi-ctl"), "--config", conf.name, "passwd", "root"], input=PASSWORD + "\n",
                           text=True, check=True, stdout=subprocess.DEVNULL)

    def join_all(self):
        for host in self.hosts[1:]:
            try:
                api = Api(host.url).login()
            except Failure as e:  # a directory of an earlier run
                if e.code != "HOST_IS_SLAVE":
                    raise
                continue
            api("pool.join", self.hosts[0].address, "root", PASSWORD)
        wait_until("all hosts to be live and enabled", self.all_live, 90)

    def all_live(self):
        """Every host's present daemon has said hello, and the host is live and enabled again (so its PBDs are plugged)."""
        started = {h.address: h.started_at for h in self.hosts}
        records = self.api("host.get_all_records").values()
        if len(records) < len(self.hosts):
            return False
        return all(r["enabled"] and int(float(r["other_config"].get("agent_start_time", "0"))) >= started[r["address"]]
                   and self.api("host_metrics.get_live", r["metrics"]) for r in records)

    def host_ref(self, index):
        address = self.hosts[index - 1].address
        return next(ref for ref, r in self.api("host.get_all_records").items() if r["address"] == address)

    def host_of(self, ref):
        address = self.api("host.get_address", ref)
        return next(h for h in self.hosts if h.address == address)

    def make_shared_sr(self):
        """A file SR in a directory that all hosts see; PBDs plugged everywhere; made the default."""
        sr = self.api("SR.create", self.host_ref(1), {"location": self.shared}, "0", "Shared storage", "", "file", "user", True, {})
        for ref in self.api("host.get_all"):
            have = [p for p in self.api("PBD.get_all_records").values() if p["host"] == ref and p["SR"] == sr]
            if not have:
                pbd = self.api("PBD.create", {"host": ref, "SR": sr, "device_config": {"location": self.shared}, "other_config": {}})
                self.api("PBD.plug", pbd)
        pool = self.api("pool.get_all")[0]
        self.api("pool.set_default_SR", pool, sr)
        self.api("pool.set_suspend_image_SR", pool, sr)
        self.shared_sr = sr
        return sr

    def make_vm(self, name, memory_mib=32, sr=None, disk_mib=8, platform=None, vcpus=1):
        """A halted VM with a writing disk on 'sr' (None: no disk)."""
        memory = str(memory_mib * MIB)
        vm = self.api("VM.create", {
            "name_label": name, "name_description": "", "user_version": "1", "is_a_template": False, "affinity": "OpaqueRef:NULL",
            "memory_static_max": memory, "memory_dynamic_max": memory, "memory_dynamic_min": memory, "memory_static_min": memory,
            "VCPUs_params": {}, "VCPUs_max": str(vcpus), "VCPUs_at_startup": str(vcpus), "actions_after_shutdown": "destroy",
            "actions_after_reboot": "restart", "actions_after_crash": "destroy", "PV_bootloader": "", "PV_kernel": "", "PV_ramdisk": "",
            "PV_args": "", "PV_bootloader_args": "", "PV_legacy_args": "", "HVM_boot_policy": "BIOS order", "HVM_boot_params": {"order": "cd"},
            "platform": dict({"cores-per-socket": "1"}, **(platform or {})), "PCI_bus": "", "other_config": {}, "recommendations": ""})
        if sr is not None:
            vdi = self.api("VDI.create", {"name_label": name + " disk", "SR": sr, "virtual_size": str(disk_mib * MIB), "type": "user"})
            self.api("VBD.create", {"VM": vm, "VDI": vdi, "userdevice": "0", "bootable": True, "mode": "RW", "type": "Disk", "empty": False})
        return vm

    def disks_settled(self):
        """Each disk of a running guest is served where the guest is, active and for its VBD; nothing else is served."""
        wanted = {host.index: {} for host in self.hosts}
        vms, vdis, srs = (self.api(c + ".get_all_records") for c in ("VM", "VDI", "SR"))
        for vbd in self.api("VBD.get_all_records").values():
            vm = vms[vbd["VM"]]
            if vbd["currently_attached"] and not vbd["empty"] and vm["power_state"] in ("Running", "Paused"):
                vdi = vdis[vbd["VDI"]]
                key = srs[vdi["SR"]]["uuid"] + "/" + vdi["location"]
                wanted[self.host_of(vm["resident_on"]).index].setdefault(key, ("active", set()))[1].add("vbd-" + vbd["uuid"])
        return {host.index: host.served() for host in self.hosts} == wanted

    def guest_data(self, vm):
        metrics = self.api("VM.get_guest_metrics", vm)
        return self.api("VM_guest_metrics.get_other", metrics) if metrics != "OpaqueRef:NULL" else {}

    def stop(self):
        unclean = [(host.index, status) for host in self.hosts if (status := host.stop()) not in (0, None)]
        for what in (Host.guests, Host.tapds):  # guests first: they would only wait for their disks
            pids = [pid for host in self.hosts for _, pid in what(host)]
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            wait_until("processes to end", lambda: not any(alive(pid) for pid in pids), 20)
        if unclean:  # a sanitizer's finding at exit, or a daemon that did not end by SIGTERM
            for host in self.hosts:
                print(f"--- log of host {host.index} ---\n{host.log_tail(200)}", flush=True)
        unmount_below(self.dir)
        if not self.keep:
            shutil.rmtree(self.dir, ignore_errors=True)
        if unclean:
            raise RuntimeError(f"daemons ended with {unclean}")

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, error, trace):
        if kind is not None:
            for host in self.hosts:
                print(f"--- log of host {host.index} ---\n{host.log_tail()}", flush=True)
        self.stop()


def second_pool(first, hosts=1, **arguments):
    """Another pool beside 'first': its own addresses and directory, the same ports (a token's URLs name one) and the same
    witness, by which a guest that moves between pools proves itself. Not started yet."""
    pool = Pool(hosts=hosts, options=dict(first.options, **{"sim-witness-dir": first.witness}), **arguments)
    pool.http_port, pool.https_port = first.http_port, first.https_port
    return pool


def unmount_below(directory):
    """SRs with a file system of their own that a test left plugged."""
    with open("/proc/self/mounts") as mounts:
        below = [m for m in (line.split()[1] for line in mounts) if m.startswith(directory + "/")]
    for path in reversed(below):
        subprocess.run(["umount", "--lazy", path], check=False)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
