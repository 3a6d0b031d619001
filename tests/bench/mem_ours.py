"""Our side of the memory table: a pool of two simulated hosts between which guests that store are moved."""
import threading
import time

import pool as pools
from mem_qemu import Outcome
from pairs import Failed

MIB = 1 << 20


def number(record, key, default=None):
    text = record["other_config"].get("migrate:" + key)
    return default if text is None else float(text)


class Ours:
    """Two hosts; guests are made for a row and go with it. All travels over TLS, as it does by default."""

    def __init__(self, bench):
        self.pool = pools.Pool(hosts=2, directory=bench.path("pool"), options={"sim-memory-mib": 6144, "sim-verify": "off"})
        self.pool.start()

    @property
    def api(self):
        return self.pool.api

    def stop(self):
        self.pool.stop()

    def guest(self, mib, set_mib, rate_mib_s, name="stores", **platform):
        """Running on host 1, its working set filled."""
        words = {"sim-fill-mib": str(set_mib), "sim-working-set-mib": str(set_mib), "sim-dirty-mib-s": str(rate_mib_s)}
        vm = self.pool.make_vm(name, memory_mib=mib, platform=dict(words, **platform))
        self.api("VM.start_on", vm, self.pool.host_ref(1), False, False)
        pools.wait_until("the guest to fill its memory", lambda: self.data(vm, "pages_written") > set_mib * 256, 120)
        return vm

    def gone(self, vm):
        self.api("VM.hard_shutdown", vm)
        self.api("VM.destroy", vm)

    def data(self, vm, key):
        return int(self.pool.guest_data(vm).get("sim/" + key, 0))

    def fresh(self, vm, key):
        """A number as the guest tells it some time after now."""
        ticks = self.data(vm, "ticks")
        pools.wait_until("the guest to tell more", lambda: self.data(vm, "ticks") > ticks + 20, 60)
        return self.data(vm, key)

    def other(self, vm):
        here = self.api("VM.get_resident_on", vm)
        return next(ref for ref in self.api("host.get_all") if ref != here)

    def move(self, vm, seconds=180, **options):
        """The task's record, and the seconds it took."""
        return self.move_to(self.api, vm, self.other(vm), seconds, **options)

    @staticmethod
    def move_to(api, vm, target, seconds=180, **options):
        began = time.monotonic()
        record = api.async_("VM.pool_migrate", vm, target, {key: str(value) for key, value in options.items()}, timeout=seconds)
        return record, time.monotonic() - began

    def storing(self, vm, link, limit_ms, **options):
        """Unpauses the guest, lets it store for a second, moves it, pauses it again."""
        self.api("VM.unpause", vm)
        time.sleep(1)
        record, took = self.move(vm, bandwidth=link // MIB, max_downtime_ms=limit_ms, **options)
        blackout = self.fresh(vm, "blackout_us") / 1e6
        self.api("VM.pause", vm)
        outcome = Outcome(took, blackout, int(number(record, "bytes", 0)), int(number(record, "rounds", 0)))
        outcome.record = record
        return outcome

    def settle(self, vm):
        """After a move that failed: paused again, wherever it is."""
        pools.wait_until("the guest to be at rest", lambda: not self.api("VM.get_current_operations", vm), 120)
        if self.api("VM.get_power_state", vm) == "Running":
            self.api("VM.pause", vm)

    def all_at_once(self, vms, **options):
        """Moves all of them; the records and seconds of each, and of the whole."""
        done, errors, ways = {}, [], [(self.api.another(), vm, self.other(vm)) for vm in vms]

        def body(api, vm, target):
            try:
                done[vm] = self.move_to(api, vm, target, **options)
            except Exception as error:
                errors.append(error)
        threads = [threading.Thread(target=body, args=way) for way in ways]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise Failed(f"{len(errors)} of {len(vms)} did not move: {errors[0]}")
        return done, time.monotonic() - began
