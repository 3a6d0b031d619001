"""Two pools, a guest that goes from host to host, a relay that all traffic to its destination goes through, and what must be
true of all of them whenever nothing is under way."""
import fcntl
import json
import os
import signal
import socket
import sqlite3
import struct
import subprocess
import tempfile
import urllib.parse

from tests.lib import guest_control, pool as P, relay as R
from tests.sweep.disk_lab import Doing, NoMounts

SR_MIB = 48
STATE_MIB = 64
GOING_DOWN = 0x8004587d, struct.pack("I", 2) # ioctl of ext4 and XFS: stops the file system as it is, nothing more is written
DISK_MIB = 8
MEMORY_MIB = 16
PLATFORM = {"sim-disk-iops": "100", "sim-dirty-mib-s": "2"}
OPTIONS = {"allow-faults": "true", "sr-watch-interval-ms": 200, "sr-refresh-interval-ms": 1000, "incoming-abandoned-s": 60, "incoming-patience": 15}
NULL = "OpaqueRef:NULL"
ENDED = ("DONE", "RESUMED", "RUNNING", "ABORTED")


class Together(P.Pool):
    """A pool with the ports of another one, so that their hosts find each other's services where they have their own."""

    def __init__(self, other, **more):
        self.other = other
        super().__init__(**more)

    def pick_ports(self):
        return self.other.http_port, self.other.https_port


class Lab:
    """pools[0]: coordinator and two hosts, pools[1]: coordinator and one host. Guests go between the last ones of each."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="migrate-sweep-")
        self.mounts, self.pools, self.relay, self.vm, self.uuid, self.filled = [], [], None, None, None, False
        self.task = None
        try:
            self.places = {name: self.mount(os.path.join(self.dir, name), SR_MIB) for name in ("shared", "a2", "a3", "b2")}
            self.start()
        except BaseException:
            self.remove()
            raise

    def mount(self, path, mib):
        """A file system in a file, so that a host can lose what it has not synced."""
        os.makedirs(path, exist_ok=True)
        image = os.path.join(self.dir, f"{len(self.mounts)}.img")
        with open(image, "wb") as f:
            f.truncate(mib * P.MIB)
        for argv in (["mkfs.ext4", "-q", "-m", "0", image], ["mount", "-o", "loop", image, path]):
            done = subprocess.run(argv, capture_output=True, text=True)
            if done.returncode != 0:
                raise NoMounts(done.stderr)
        self.mounts.append((path, image))
        return path

    def power_cut(self, path):
        """What stood in nothing but memory is lost; then it is mounted again."""
        image = dict(self.mounts)[path]
        fd = os.open(path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, *GOING_DOWN)
        finally:
            os.close(fd)
        P.wait_until(f"{path} to be free", lambda: subprocess.run(["umount", path], capture_output=True).returncode == 0, 20)
        subprocess.run(["mount", "-o", "loop", image, path], check=True, capture_output=True)

    def start(self):
        one = P.Pool(hosts=3, directory=os.path.join(self.dir, "one"), options=self.options())
        two = Together(one, hosts=2, directory=os.path.join(self.dir, "two"), options=dict(self.options(), **{"sim-witness-dir": one.witness}))
        for pool in (one, two):
            self.pools.append(pool)
            for host in pool.hosts[1:]:
                self.mount(host.dir, STATE_MIB)
            pool.start()
        self.relay = R.Relay(self.through)
        self.srs = {}
        for name, pool, index in (("a2", one, 2), ("a3", one, 3), ("b2", two, 2)):
            self.srs[name] = pool.api("SR.create", pool.host_ref(index), {"location": self.places[name]}, "0", name, "", "file", "user", False, {})
        self.srs["shared"] = self.shared_sr(one)
        for path, _ in self.mounts: # what the tests themselves have written there
            subprocess.run(["sync", "-f", path], check=True)

    @staticmethod
    def options():
        known = subprocess.run([os.path.join(P.BUILD, "xapi"), "--print-config"], capture_output=True, text=True).stdout
        return {key: value for key, value in OPTIONS.items() if key in known}

    def shared_sr(self, pool):
        pool.shared = self.places["shared"]
        return pool.make_shared_sr()

    def remove(self):
        try:
            if self.relay is not None:
                self.relay.stop()
            for pool in self.pools:
                pool.stop()
        finally:
            for path, _ in self.mounts:
                subprocess.run(["umount", "-l", path], capture_output=True)
            if os.environ.get("KEEP") is None:
                subprocess.run(["rm", "-rf", self.dir])

    # --- who is who ---------------------------------------------------------------------------------------

    def hosts(self):
        return [host for pool in self.pools for host in pool.hosts]

    def find(self):
        """The pool that has the VM, and its ref there. Both may have it while it is between them: then the one that is not
        said to be on its way in."""
        found = []
        for pool in self.pools:
            try:
                ref = pool.api("VM.get_by_uuid", self.uuid)
            except P.Failure:
                continue
            found.append((pool, ref))
        settled = [(p, r) for p, r in found if "incoming" not in p.api("VM.get_other_config", r)]
        assert settled, f"no pool has the VM: {found}"
        return settled[0]

    def look(self, operation):
        """Where the VM is and where the operation takes it."""
        self.pool, self.vm = self.find()
        self.source = self.pool.host_of(self.pool.api("VM.get_resident_on", self.vm))
        self.coordinator = self.pool.hosts[0]
        target = self.pools[1 - self.pools.index(self.pool)] if operation == "pool-to-pool" else self.pool
        self.target_pool = target
        self.destination = next(h for h in target.hosts[1:] if h is not self.source)

    def place_of(self, host):
        return "ab"[self.pools.index(host.pool)] + str(host.index)

    def through(self):
        return socket.create_connection((self.destination.address, self.destination.pool.https_port), 5)

    # --- the guest ------------------------------------------------------------------------------------------

    def make(self, operation):
        """A running guest for this operation, its disk where the operation finds it."""
        self.unmake()
        pool = self.pools[0]
        sr = self.srs["shared" if operation == "memory" else "a2"]
        vm = pool.make_vm("sweep", memory_mib=MEMORY_MIB, sr=sr, disk_mib=DISK_MIB, platform=PLATFORM)
        pool.api("VM.start_on", vm, pool.host_ref(2), False, False)
        self.vm, self.uuid, self.pool = vm, pool.api("VM.get_uuid", vm), pool
        self.ready()

    def unmake(self):
        if self.uuid is None:
            return
        pool, vm = self.find()
        if pool.api("VM.get_power_state", vm) != "Halted":
            pool.api("VM.hard_shutdown", vm)
        for vbd in pool.api("VM.get_VBDs", vm):
            pool.api("VDI.destroy", pool.api("VBD.get_VDI", vbd))
        pool.api("VM.destroy", vm)
        self.uuid = None

    def ready(self):
        """The guest runs, with its drivers, and writes."""
        pool, vm = self.find()
        if pool.api("VM.get_power_state", vm) == "Halted":
            pool.api("VM.start", vm, False, False)
        if pool.api("VM.get_power_state", vm) == "Paused":
            pool.api("VM.unpause", vm)
        P.wait_until("the guest's drivers", lambda: "suspend" in pool.api("VM.get_allowed_operations", vm), 30)
        self.writes(pool, vm)

    @staticmethod
    def writes(pool, vm, n=10):
        def written():
            return int(pool.guest_data(vm).get("sim/blocks_written", 0))
        before = written()
        P.wait_until("the guest to write", lambda: written() > before + n, 60)

    # --- the operations ---------------------------------------------------------------------------------------

    def move(self, operation):
        """Runs it through the relay; its task can be cancelled meanwhile."""
        api = self.pool.api.another()
        if operation == "memory":
            self.task = api("Async.VM.pool_migrate", self.vm, self.pool.host_ref(self.destination.index),
                            {"live": "true", "migrate_uri": f"tcp://127.0.0.1:{self.relay.port}"})
        else:
            target = self.target_pool.api
            token = target("host.migrate_receive", self.target_pool.host_ref(self.destination.index), self.network(self.target_pool), {})
            vdis = {target_vdi: self.srs[self.place_of(self.destination)] for target_vdi in self.vdis(self.pool, self.vm)}
            self.task = api("Async.VM.migrate_send", self.vm, self.detour(token), True, vdis, {}, {}, {})
        api.wait_task(self.task, 120)

    def detour(self, token):
        """The destination host's own services, by way of the relay."""
        found = dict(token)
        for key in ("SM", "xenops"):
            url = urllib.parse.urlsplit(token[key])
            found[key] = urllib.parse.urlunsplit(("https", f"127.0.0.1:{self.relay.port}", url.path, url.query, ""))
        return found

    def network(self, pool):
        ref = pool.host_ref(self.destination.index)
        return next(r["network"] for r in pool.api("PIF.get_all_records").values() if r["host"] == ref and r["management"])

    @staticmethod
    def vdis(pool, vm):
        return [v for v in (pool.api("VBD.get_VDI", b) for b in pool.api("VM.get_VBDs", vm)) if v != NULL]

    def cancel(self):
        try:
            self.pool.api("task.cancel", self.task)
        except (P.Failure, OSError):
            pass

    # --- faults -------------------------------------------------------------------------------------------------

    @staticmethod
    def dead(host):
        return host.process is None or host.process.poll() is not None

    def living(self):
        return [host for host in self.hosts() if not self.dead(host)]

    def arm(self, spec):
        for host in self.living():
            host.ctl("fault", "arm", spec)

    def disarm(self):
        for host in self.living():
            host.ctl("fault", "disarm")

    def visited(self):
        """Points that are armed and were passed, by any daemon."""
        found = set()
        for host in self.living():
            lines = (line.rsplit(" ", 1) for line in host.ctl("fault", "list").splitlines() if line)
            found |= {what.split("=")[0] for what, visits in lines if int(visits) > 0}
        return found

    def kill(self, host):
        host.process.kill()
        host.process.wait()
        return True

    @staticmethod
    def end(pids):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return pids != []

    def kill_guest(self, host):
        return self.end([pid for uuid, pid in host.guests() if uuid[:8] == self.uuid[:8]])

    def kill_tapds(self, host):
        return self.end([pid for _, pid in host.tapds()])

    def reboot(self, host):
        """All that runs on it is gone at once, and so is what was not synced to its state and to its local SR."""
        self.kill(host)
        pids = [pid for _, pid in host.guests()] + [pid for _, pid in host.tapds()]
        self.end(pids)
        P.wait_until("its processes to end", lambda: not any(P.alive(pid) for pid in pids), 20)
        for path in (host.dir, self.places[self.place_of(host)]):
            self.power_cut(path)
        return True

    def fill(self, host):
        self.filled = True
        size, step = 0, P.MIB
        with open(os.path.join(self.places[self.place_of(host)], ".filler"), "wb") as f:
            while step >= 4096:
                try:
                    os.posix_fallocate(f.fileno(), size, step)
                    size += step
                except OSError:
                    step //= 2
        return True

    def free(self):
        self.filled = False
        for place in self.places.values():
            if os.path.exists(os.path.join(place, ".filler")):
                os.unlink(os.path.join(place, ".filler"))

    def revive(self):
        """Whatever was done to network, disks and daemons is over."""
        self.relay.freeze(False)
        self.relay.refuse(False)
        self.free()
        self.disarm()
        for pool in self.pools:
            fallen = [host for host in pool.hosts if self.dead(host)]
            for host in fallen:
                host.stop()
                host.start()
            if pool.hosts[0] in fallen:
                pool.api = P.Api(pool.hosts[0].url).login()
            if fallen:
                P.wait_until("the pool to be whole", pool.all_live, 60)

    # --- what must be true ---------------------------------------------------------------------------------------

    def nothing(self, what, left, seconds=60):
        """Waits for what is left to become nothing."""
        kept = []

        def look():
            kept[:] = [left()]
            return not kept[0]
        try:
            P.wait_until(what, look, seconds, 0.1)
        except TimeoutError as e:
            raise AssertionError(f"{e}: {kept[0]}") from None

    def settle(self):
        self.revive()
        self.nothing("operations to end", self.busy, 100)
        self.nothing("the pools to agree on where the VM is", self.twins)
        self.nothing("ledgers and journals to be finished", self.unfinished, 100)
        self.nothing("exactly one copy", self.copies)
        self.nothing("rows to go", self.rows_left)
        self.nothing("images to go", self.files_left)
        self.nothing("disks to be served where the guest is, and nowhere else", self.served_wrong)
        pool, vm = self.find()
        state = pool.api("VM.get_power_state", vm)
        self.ready()
        self.prove()
        return state

    def busy(self):
        """Marks of operations, tasks that run, reservations."""
        left = []
        for pool in self.pools:
            left += [r["name_label"] for r in pool.api("task.get_all_records").values() if r["status"] in ("pending", "cancelling")]
            left += [r["current_operations"] for r in pool.api("host.get_all_records").values() if r["current_operations"]]
            for r in pool.api("VM.get_all_records").values():
                if r["uuid"] == self.uuid and (r["current_operations"] or r["scheduled_to_be_resident_on"] != NULL):
                    left.append((r["current_operations"], r["scheduled_to_be_resident_on"]))
        return left

    def twins(self):
        """Records of the VM but for one, or one that is still on its way in."""
        found = [(self.pools.index(pool), r["power_state"], r["other_config"].get("incoming")) for pool in self.pools
                 for r in pool.api("VM.get_all_records").values() if r["uuid"] == self.uuid]
        return found if len(found) != 1 or found[0][2] is not None else []

    def unfinished(self):
        left = []
        for host in self.hosts():
            left += [m for m in json.loads(host.ctl("migrations")) if isinstance(m, dict) and "state" in m and m["state"] not in ENDED]
        for pool in self.pools:
            left += self.ledger(pool)
        return left

    @staticmethod
    def ledger(pool):
        """Rows that have not ended."""
        rows = []
        for folder, _, names in os.walk(pool.hosts[0].dir):
            for name in names:
                if name == "migrations.db":
                    with sqlite3.connect(f"file:{os.path.join(folder, name)}?mode=ro", uri=True) as db:
                        rows += db.execute("SELECT id, side, stage, outcome, cause FROM migrations WHERE stage <> 'done' OR outcome = ''").fetchall()
        return rows

    def copies(self):
        """Guests of ours, if they are not exactly where and what the record says."""
        pool, vm = self.find()
        record = pool.api("VM.get_record", vm)
        found = [(host.address, uuid) for host in self.hosts() for uuid, _ in host.guests() if uuid[:8] == self.uuid[:8]]
        if record["power_state"] == "Halted":
            return found
        wanted = [(pool.api("host.get_address", record["resident_on"]), self.uuid)] if record["resident_on"] != NULL else []
        if found == wanted and record["power_state"] in ("Running", "Paused"):
            return []
        return [("found", found, "wanted", wanted, record["power_state"])]

    def served_wrong(self):
        return [{host.address: host.served() for host in pool.hosts} for pool in self.pools if not pool.disks_settled()]

    def kept(self):
        """(pool, SR, location) of the VM's disks."""
        pool, vm = self.find()
        records = [pool.api("VDI.get_record", v) for v in self.vdis(pool, vm)]
        return [(pool, r["SR"], r["location"]) for r in records]

    def rows_left(self):
        """Disks in our SRs that are not the VM's, snapshots of it, and its disks if they are shown as half made."""
        kept, left = self.kept(), []
        for pool in self.pools:
            for r in pool.api("VDI.get_all_records").values():
                if r["SR"] not in self.srs.values() or (r["SR"] == self.srs.get("b2")) != (pool is self.pools[1]):
                    continue
                if (pool, r["SR"], r["location"]) not in kept or r["is_a_snapshot"] or set(r["sm_config"]) & {"move", "provisional"}:
                    left.append((r["name_label"], r["location"], r["sm_config"], r["managed"]))
            left += [r["name_label"] for r in pool.api("VM.get_all_records").values() if r["is_a_snapshot"]]
        return left

    def files_left(self):
        wanted = {name: [] for name in self.places}
        for pool, sr, location in self.kept():
            name = next(name for name, ref in self.srs.items() if ref == sr and (name[0] != "b") == (pool is self.pools[0]))
            wanted[name].append(location + ".vhd")
        found = {name: sorted(n for n in os.listdir(path) if not n.startswith(".") and n != "lost+found") for name, path in self.places.items()}
        return [(name, found[name]) for name in found if found[name] != wanted[name]]

    def prove(self):
        """The guest stands still and reads all it has ever been told is kept."""
        pool, vm = self.find()
        pool.api("VM.pause", vm)
        guest_control.prove(pool.host_of(pool.api("VM.get_resident_on", vm)), self.uuid)
        pool.api("VM.unpause", vm)


__all__ = ["Doing", "Lab", "NoMounts"]
