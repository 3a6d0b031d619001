"""A TCP relay in this process that a test can cut, freeze and slow down: the network between two machines."""
import selectors
import socket
import struct
import threading
import time

CHUNK = 64 << 10


class Relay:
    """Connections to 'port' go to whatever 'connect' returns (a connected socket, or OSError)."""

    def __init__(self, connect):
        self.connect = connect
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.lock = threading.Lock()
        self.pairs = []          # [near, far]
        self.frozen = self.refusing = False
        self.rate = 0            # bytes a second towards the far side; 0: as it comes
        self.up = 0              # bytes that went there
        self.accepted = 0
        self.ending = False
        self.allowance = 0.0
        self.at = time.monotonic()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.ending:
            with self.lock:
                busy = not self.frozen and self.turn()
            if not busy:
                time.sleep(0.002)

    def turn(self):
        """One look at everything; whether anything moved."""
        moved = self.accept()
        with selectors.DefaultSelector() as s:
            for pair in self.pairs:
                s.register(pair[0], selectors.EVENT_READ, (pair, 0))
                s.register(pair[1], selectors.EVENT_READ, (pair, 1))
            ready = [key.data for key, _ in s.select(0)] if self.pairs else []
        for pair, side in ready:
            if pair in self.pairs:
                moved = self.move(pair, side) or moved
        return moved

    def accept(self):
        try:
            near, _ = self.listener.accept()
        except BlockingIOError:
            return False
        if self.refusing:
            near.close()
            return True
        try:
            far = self.connect()
        except OSError:
            near.close()
            return True
        for s in (near, far):
            s.setblocking(True)
            s.settimeout(0.2)
        self.pairs.append([near, far])
        self.accepted += 1
        return True

    def allowed(self):
        if self.rate == 0:
            return CHUNK
        now = time.monotonic()
        self.allowance = min(self.allowance + (now - self.at) * self.rate, CHUNK)
        self.at = now
        return int(self.allowance)

    def move(self, pair, side):
        n = self.allowed() if side == 0 else CHUNK
        if n == 0:
            return False
        try:
            data = pair[side].recv(n)
            if data:
                self.push(pair[1 - side], data)
        except OSError:
            data = b""
        if not data:
            self.close(pair)
        elif side == 0:
            self.up += len(data)
            self.allowance -= len(data)
        return True

    @staticmethod
    def push(sock, data):
        """A peer that takes nothing for long ends its connection, as a network in between would."""
        until = time.monotonic() + 20
        while data:
            try:
                data = data[sock.send(data):]
            except TimeoutError:
                if time.monotonic() > until:
                    raise

    def close(self, pair, reset=False):
        for s in pair:
            if reset:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.close()
        self.pairs.remove(pair)

    # --- what a test does -----------------------------------------------------------------------------

    def cut(self, reset=True):
        with self.lock:
            for pair in list(self.pairs):
                self.close(pair, reset)

    def freeze(self, on=True):
        """Nothing is read, nobody is accepted; the connections stand."""
        with self.lock:
            self.frozen = on

    def refuse(self, on=True):
        """Cut, and nobody gets through any more."""
        with self.lock:
            self.refusing = on
        if on:
            self.cut()

    def slow(self, rate):
        with self.lock:
            self.rate, self.allowance, self.at = rate, 0.0, time.monotonic()

    def stop(self):
        self.ending = True
        self.thread.join(10)
        self.cut()
        self.listener.close()
