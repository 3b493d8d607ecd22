"""F5, F6, F16, F23, F25 and F26 of the list of faults, on the real binary. See `tests/faults/run`."""

import contextlib
import fcntl
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

BINARY = pathlib.Path(sys.argv[1]).resolve()
wrong = []


def right(what, is_so):
    print(f"{'ok  ' if is_so else 'WRONG'} {what}", flush=True)
    if not is_so:
        wrong.append(what)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Gateway:
    def __init__(self, folder, config, log=subprocess.DEVNULL, upstream=1, env=None):
        self.public, self.admin = free_port(), free_port()
        file = pathlib.Path(config) / "sluicegate.toml"
        file.write_text(
            f"""
[server]
listen = "127.0.0.1:{self.public}"
[admin]
listen = "127.0.0.1:{self.admin}"
token = "literal:the-token-of-the-faults"
[upstream]
base_url = "http://127.0.0.1:{upstream}"
api_key = "literal:key"
[inbox]
url = "sqlite:{folder}/inbox.db"
key = "literal:0123456789abcdef0123456789abcdef"
min_free = "1MiB"
[dispatch]
concurrency = 1
[log]
format = "json"
filter = "trace"
[sources.open]
provider = "custom"
agent = "a"
verify = {{ scheme = "none" }}
"""
        )
        self.process = subprocess.Popen([BINARY, "serve", "--config", file], stderr=log, env={**os.environ, **(env or {})})
        for _ in range(200):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.public)).close()
                return
            time.sleep(0.05)
        sys.exit("the gateway does not start")

    def ask(self, port, path, body=None):
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=body)
        request.add_header("content-type", "application/json")
        request.add_header("authorization", "Bearer the-token-of-the-faults")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError as error:
            return 0, str(error).encode()

    def post(self, size=0):
        body = json.dumps({"prompt": "hi", "pad": "x" * size}).encode()
        return self.ask(self.public, "/hooks/open", body)

    def kept(self, state=""):
        text = self.ask(self.admin, "/api/v1/metrics")[1].decode()
        lines = [line for line in text.splitlines() if line.startswith("sluicegate_inbox_deliveries{") and state in line]
        return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@contextlib.contextmanager
def small_disk(megabytes):
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", place], check=True)
        try:
            yield place
        finally:
            subprocess.run(["umount", "-l", place], check=True)


def back_within(gateway, seconds):
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        if gateway.post()[0] == 202:
            return True
        time.sleep(0.1)
    return False


def disk_full():
    with small_disk(64) as disk, tempfile.TemporaryDirectory() as config:
        filler = pathlib.Path(disk) / "filler"
        filler.write_bytes(bytes(24 << 20))
        gateway = Gateway(disk, config)
        taken, statuses = 0, set()
        for _ in range(3_000):
            status, body = gateway.post(60_000)
            taken += status == 202
            statuses.add(status)
            if status != 202:
                break
        right(f"F5: a full disk is 503 ({taken} taken, then {status})", status == 503 and taken > 50)
        right("F5: said as no_space", b"no_space" in body)
        for _ in range(20):
            taken += gateway.post(60_000)[0] == 202
        filler.unlink()
        is_back = back_within(gateway, 5)
        taken += is_back
        right("F5: taken again within 5 s of there being room", is_back)
        right("F5: everything acknowledged is kept", gateway.kept() == taken)
        right("F5: it stops cleanly", gateway.stop() == 0)
        gateway = Gateway(disk, config)
        right("F5: and after a restart", gateway.kept() == taken)
        gateway.stop()


def read_only():
    with small_disk(64) as disk, tempfile.TemporaryDirectory() as config:
        gateway = Gateway(disk, config)
        taken = sum(gateway.post()[0] == 202 for _ in range(20))
        # A disk that turns read-only under open files does so by force: what is open can no longer be synced.
        done = subprocess.run(["mount", "-o", "remount,ro", disk], capture_output=True)
        if done.returncode:
            # This kernel does not while files are open for writing; then the gateway comes to it anew.
            gateway.stop()
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            begun = subprocess.run([BINARY, "serve", "--config", f"{config}/sluicegate.toml"], capture_output=True, timeout=30)
            text = begun.stderr.decode().lower()
            right("F6: it does not start on a read-only disk, and says why", begun.returncode != 0 and "read" in text)
        else:
            right("F6: nothing is acknowledged", all(gateway.post()[0] in (0, 503) for _ in range(5)))
            gateway.process.kill()
            gateway.process.wait()
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        gateway = Gateway(disk, config)
        right("F6: writable again, it takes events", back_within(gateway, 5))
        right("F6: everything acknowledged is kept", gateway.kept() == taken + 1)
        gateway.stop()


def log_unread():
    with tempfile.TemporaryDirectory() as folder:
        reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        gateway = Gateway(folder, folder, log=writer)
        begun = time.monotonic()
        sent, taken, dropped = 0, 0, 0
        while not dropped and sent < 20_000:
            sent += 500
            taken += sum(gateway.post()[0] == 202 for _ in range(500))
            text = gateway.ask(gateway.admin, "/api/v1/metrics")[1].decode()
            dropped = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("sluicegate_log_lines_dropped"))
        took = time.monotonic() - begun
        right(f"F23: a log that nobody reads holds up nobody ({taken} of {sent} in {took:.1f} s)", taken == sent and took < 60)
        right(f"F23: what was dropped is counted ({dropped})", dropped > 0)
        os.close(reader)
        right("F23: it stops cleanly", gateway.stop() == 0)
        os.close(writer)


@contextlib.contextmanager
def stub():
    port = free_port()
    process = subprocess.Popen([BINARY, "stub", "--listen", f"127.0.0.1:{port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def delivered_within(gateway, count, seconds):
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        if gateway.kept('"delivered"') >= count:
            return True
        time.sleep(0.1)
    return False


def clock_jumps():
    library = next(iter(pathlib.Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
    if library is None:
        return right("F16: libfaketime is there (package: faketime)", False)
    with tempfile.TemporaryDirectory() as folder, stub() as upstream:
        clock = pathlib.Path(folder) / "clock"
        clock.write_text("+0")
        env = {
            "LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        gateway = Gateway(folder, folder, upstream=upstream, env=env)
        sent = 0
        for jump in ("+0", "+1d", "+1h", "-1d", "+0"):
            clock.write_text(jump)
            taken = [gateway.post()[0] for _ in range(5)]
            sent += 5
            right(f"F16: with the clock at {jump} events are taken and delivered", taken == [202] * 5 and delivered_within(gateway, sent, 10))
        right("F16: it stops cleanly", gateway.stop() == 0)


def killed_migration():
    with tempfile.TemporaryDirectory() as folder:
        gateway = Gateway(folder, folder)
        taken = sum(gateway.post()[0] == 202 for _ in range(10))
        gateway.stop()
        killed = 0
        for number in range(40):
            process = subprocess.Popen([BINARY, "migrate", "--config", f"{folder}/sluicegate.toml"], stderr=subprocess.DEVNULL)
            try:
                process.wait(0.001 * number)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                killed += 1
        gateway = Gateway(folder, folder)
        right(f"F25: killed in {killed} of 40 migrations, everything is there", killed > 5 and gateway.kept() == taken)
        gateway.stop()
        # The same on an inbox that is not there yet.
        fresh = pathlib.Path(folder) / "fresh"
        config = pathlib.Path(folder) / "sluicegate.toml"
        config.write_text(config.read_text().replace(f"{folder}/inbox.db", f"{fresh}/inbox.db"))
        for number in range(40):
            process = subprocess.Popen([BINARY, "migrate", "--config", config], stderr=subprocess.DEVNULL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.0005 * number)
            process.kill()
            process.wait()
        done = subprocess.run([BINARY, "migrate", "--config", config], capture_output=True, timeout=30)
        right("F25: one that is not killed brings it to its end", done.returncode == 0)


def starved():
    with tempfile.TemporaryDirectory() as folder, stub() as upstream:
        gateway = Gateway(folder, folder, upstream=upstream)
        hogs = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(4 * (os.cpu_count() or 1))]
        try:
            begun = time.monotonic()
            taken = sum(gateway.post()[0] == 202 for _ in range(100))
            took = time.monotonic() - begun
            right(f"F26: starved of CPU it is slow and nothing else ({taken} of 100 in {took:.1f} s)", taken == 100)
            right("F26: all of it is delivered", delivered_within(gateway, 100, 60))
        finally:
            for hog in hogs:
                hog.kill()
                hog.wait()
        right("F26: it stops cleanly", gateway.stop() == 0)


for fault in (disk_full, read_only, clock_jumps, log_unread, killed_migration, starved):
    fault()
sys.exit(f"{len(wrong)} wrong" if wrong else 0)
