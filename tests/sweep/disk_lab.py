"""One host, one guest that writes to two disks, three SRs on small file systems of their own, and what must be true of
them whenever nothing is under way."""
import json
import os
import signal
import subprocess
import tempfile
import threading

from tests.lib import guest_control, pool as P, tapd as T

SR_MIB = 40
DISK_MIB = 8
PLATFORM = {"sim-disk-iops": "150", "sim-dirty-mib-s": "1"}
OPTIONS = {"allow-faults": "true", "sr-watch-interval-ms": 100, "sr-refresh-interval-ms": 500}
if "TAPD" in os.environ:  # another build of it
    OPTIONS["tapd-program"] = os.environ["TAPD"]
NULL = "OpaqueRef:NULL"


class NoMounts(Exception):
    """This machine lets nobody mount file systems."""


class Lab:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="disk-sweep-")
        self.mounts = []
        self.pool = None
        self.filled = False
        try:
            self.places = [self.mount(name) for name in ("one", "two", "raw", "suspend")]
            self.pool = P.Pool(hosts=1, directory=os.path.join(self.dir, "pool"), options=OPTIONS).start()
            self.furnish()
        except BaseException:
            self.remove()
            raise

    def mount(self, name):
        path = os.path.join(self.dir, name)
        os.makedirs(path)
        size = SR_MIB if name != "suspend" else 4 * SR_MIB
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", path], capture_output=True, text=True)
        if done.returncode != 0:
            raise NoMounts(done.stderr)
        self.mounts.append(path)
        return path

    def furnish(self):
        def sr(place, **config):
            return self.api("SR.create", self.here, dict({"location": place}, **config), "0", os.path.basename(place), "", "file", "user", False, {})

        self.here = self.pool.host_ref(1)
        self.srs = [sr(self.places[0]), sr(self.places[1]), sr(self.places[2], **{"image-format": "raw"}), sr(self.places[3])]
        self.api("pool.set_suspend_image_SR", self.api("pool.get_all")[0], self.srs[3])
        self.vm = self.pool.make_vm("writer", memory_mib=8, sr=self.srs[0], disk_mib=DISK_MIB, platform=PLATFORM)
        raw = self.api("VDI.create", {"name_label": "raw", "SR": self.srs[2], "virtual_size": str(DISK_MIB * P.MIB), "type": "user"})
        self.api("VBD.create", {"VM": self.vm, "VDI": raw, "userdevice": "1", "bootable": False, "mode": "RW", "type": "Disk", "empty": False})
        self.api("VM.start", self.vm, False, False)
        self.vbds = sorted(self.api("VM.get_VBDs", self.vm), key=lambda b: self.api("VBD.get_userdevice", b))
        self.uuid = self.api("VM.get_uuid", self.vm)
        P.wait_until("the guest's drivers", lambda: "suspend" in self.api("VM.get_allowed_operations", self.vm), 30)
        self.writes()

    @property
    def api(self):
        return self.pool.api

    @property
    def host(self):
        return self.pool.hosts[0]

    def remove(self):
        try:
            if self.pool is not None:
                self.pool.stop()
        finally:
            for path in self.mounts:
                subprocess.run(["umount", "-l", path], capture_output=True)
            if os.environ.get("KEEP") is None:
                subprocess.run(["rm", "-rf", self.dir])

    # --- what an operation needs ----------------------------------------------------------------------

    def vdi(self, number=0):
        return self.api("VBD.get_VDI", self.vbds[number])

    def where(self):
        return self.srs.index(self.api("VDI.get_SR", self.vdi()))

    def written(self):
        return int(self.pool.guest_data(self.vm).get("sim/blocks_written", 0))

    def errors(self):
        return int(self.pool.guest_data(self.vm).get("sim/disk_errors", 0))

    def writes(self, n=20):
        before = self.written()
        P.wait_until("the guest to write", lambda: self.written() > before + n, 40)

    def images(self, number):
        return sorted(os.listdir(self.places[number]))

    # --- faults ----------------------------------------------------------------------------------------

    def arm(self, spec):
        self.host.ctl("fault", "arm", spec)

    def visited(self):
        """The daemon's points that are armed and were passed."""
        lines = (line.rsplit(" ", 1) for line in self.host.ctl("fault", "list").splitlines() if line)
        return {what.split("=")[0] for what, visits in lines if int(visits) > 0}

    def tapds(self):
        return [d for d, _ in self.host.tapds()]

    def tapd_of(self, number):
        """The directory of the tapd of a disk."""
        location = self.api("VDI.get_location", self.vdi(number))
        for directory in self.tapds():
            with open(os.path.join(directory, "spec")) as f:
                if "/" + location in T.parse(f.read().strip())[1]["key"]:
                    return directory
        raise AssertionError(f"no tapd serves {location}")

    @staticmethod
    def arm_tapd(directory, spec):
        """What was armed there before: {point: visits}; None when the tapd does not answer."""
        try:
            control = T.Control(os.path.join(directory, "control"))
            try:
                was = control.call("fault-arm", spec=spec)["was"]
            finally:
                control.close()
        except OSError:
            return None
        return {what.split("=")[0]: int(visits) for what, visits in (line.rsplit(" ", 1) for line in was.splitlines() if line)}

    def arm_tapds(self, spec):
        return any([self.arm_tapd(d, spec) is not None for d in self.tapds()])

    def kill_tapds(self):
        found = self.host.tapds()
        for _, pid in found:
            os.kill(pid, signal.SIGKILL)
        return found != []

    def kill_all(self):
        """The daemon first, so that nobody starts the tapds again."""
        found = self.host.tapds()
        self.host.process.kill()
        self.host.process.wait()
        for _, pid in found:
            os.kill(pid, signal.SIGKILL)
        return True

    def fill(self, number):
        self.filled = True
        size, step = 0, P.MIB
        with open(os.path.join(self.places[number], ".filler"), "wb") as f:
            while step >= 4096:
                try:
                    os.posix_fallocate(f.fileno(), size, step)
                    size += step
                except OSError:
                    step //= 2
        return True

    def free(self):
        self.filled = False
        for place in self.places:
            if os.path.exists(os.path.join(place, ".filler")):
                os.unlink(os.path.join(place, ".filler"))

    def dead(self):
        return self.host.process is None or self.host.process.poll() is not None

    def revive(self):
        if not self.dead():
            self.host.ctl("fault", "disarm")
            return
        self.host.stop()
        self.host.start()
        self.pool.api = P.Api(self.host.url).login()
        P.wait_until("the pool to be whole", self.pool.all_live, 60)

    # --- what must be true ------------------------------------------------------------------------------

    def settle(self):
        """Recovers from whatever was done, takes away finished snapshots, and then proves everything."""
        self.revive()
        self.free()
        for directory in self.tapds():
            self.arm_tapd(directory, "")
        P.wait_until("the guest to be at rest", self.at_rest, 60)
        if self.api("VM.get_power_state", self.vm) == "Suspended":
            self.api("VM.resume", self.vm, False, False)
        self.check()

    def at_rest(self):
        rows = [self.api("VM.get_record", self.vm)] + list(self.vdi_rows().values()) + [self.api("SR.get_record", s) for s in self.srs]
        return not any(set(r["current_operations"].values()) - {"scan"} for r in rows)

    def vdi_rows(self):
        return {ref: r for ref, r in self.api("VDI.get_all_records").items() if r["SR"] in self.srs and r["managed"]}

    def snapshots_away(self):
        for ref, r in self.vdi_rows().items():
            if r["is_a_snapshot"] and "provisional" not in r["sm_config"]:
                self.api("VDI.destroy", ref)

    def rows_left(self):
        wanted = {self.vdi(0), self.vdi(1)}
        return {ref: r["sm_config"] for ref, r in self.vdi_rows().items() if ref not in wanted or "move" in r["sm_config"]}

    def files_left(self):
        wanted = {n: [] for n in range(4)}
        for number in (0, 1):
            record = self.api("VDI.get_record", self.vdi(number))
            wanted[self.srs.index(record["SR"])].append(record["location"] + (".raw" if number else ".vhd"))
        return [(n, self.images(n)) for n in range(4) if self.images(n) != sorted(wanted[n])]

    def nothing(self, what, left, seconds=40):
        """Waits for a list of what is left to become empty."""
        kept = []

        def look():
            kept[:] = [left()]
            return not kept[0]
        try:
            P.wait_until(what, look, seconds)
        except TimeoutError as e:
            raise AssertionError(f"{e}: {kept[0]}") from None

    def check(self):
        assert self.api("VM.get_power_state", self.vm) == "Running", self.api("VM.get_power_state", self.vm)
        self.snapshots_away()
        self.nothing("rows to go", self.rows_left, 100)  # what recovery does again comes once a minute
        self.nothing("images and journals to go", self.files_left)
        P.wait_until("the disks to be served for the guest only", self.pool.disks_settled, 30)
        assert len(self.tapds()) == 2, self.tapds()
        P.wait_until("the maps of mirrors to go", lambda: not [d for d in self.tapds() if os.path.exists(os.path.join(d, "map"))], 20)
        self.writes()
        self.api("VM.pause", self.vm)
        guest_control.prove(self.host, self.uuid)
        self.compare()
        self.api("VM.unpause", self.vm)

    def compare(self):
        """The guest stands still: what the tapds serve is what the images hold, by a program that is not ours."""
        for number, driver in ((0, "vpc"), (1, "raw")):
            record = self.api("VDI.get_record", self.vdi(number))
            path = os.path.join(self.places[self.srs.index(record["SR"])], record["location"] + (".raw" if number else ".vhd"))
            more = ",force_size_calc=current_size" if driver == "vpc" else ""
            served = f"driver=raw,file.driver=nbd,file.server.type=unix,file.server.path={os.path.join(self.tapd_of(number), 'nbd')}"
            done = subprocess.run(["qemu-img", "compare", "-U", "--image-opts", served, f"driver={driver},file.driver=file,file.filename={path}{more}"],
                                  capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stdout + done.stderr

    def status(self):
        return json.loads(self.host.ctl("tapd", "json"))


class Doing:
    """An operation in a thread of its own, with a session of its own."""

    def __init__(self, lab, run):
        self.error = None
        self.thread = threading.Thread(target=self.body, args=(lab, run), daemon=True)
        self.thread.start()

    def body(self, lab, run):
        try:
            run(lab)
        except BaseException as e:  # noqa: BLE001
            self.error = e

    def done(self):
        return not self.thread.is_alive()

    def wait(self, seconds=90):
        self.thread.join(seconds)
        assert self.done(), "the operation does not end"
