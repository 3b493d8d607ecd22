"""Fills an inbox while the upstream is down, starts the gateway on it, brings the upstream back and watches."""

import argparse
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

SENDERS = 32
TOKEN = "backlog-bench-token-0123456789"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def write_config(folder, upstream, asked):
    text = f"""
[server]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
token = "literal:{TOKEN}"
[upstream]
base_url = "http://127.0.0.1:{upstream}"
api_key = "literal:backlog-bench-key"
[inbox]
url = "sqlite:data/inbox.db"
[dispatch]
destination_concurrency = {asked.cap}
[log]
format = "json"
"""
    for agent in range(asked.agents):
        text += f"""
[sources.s{agent}]
provider = "custom"
agent = "agent-{agent}"
verify = {{ scheme = "none", event_id = "json:id" }}
params_mapping = {{ prompt = "text", task_id = "thread" }}
"""
    (folder / "sluicegate.toml").write_text(text)


class Gateway:
    """The gateway as a process of its own."""

    def __init__(self, binary, folder):
        command = [binary, "serve", "--config", str(folder / "sluicegate.toml")]
        begun = time.monotonic()
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            said = json.loads(line) if line.startswith("{") else {}
            if said.get("message") == "serving":
                self.public, self.admin = (int(said[key].rsplit(":", 1)[1]) for key in ("public", "admin"))
                break
        else:
            sys.exit("the gateway ended before it served")
        self.started_in = time.monotonic() - begun
        threading.Thread(target=lambda: [None for _ in self.process.stderr], daemon=True).start()

    def status(self, key):
        """A line of /proc/PID/status, in MiB."""
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) / 1024
        return 0.0

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=30)
        connection.request("GET", path, headers={"authorization": f"Bearer {TOKEN}"})
        return connection.getresponse().read().decode()

    def metric(self, name):
        """The sum over a metric's labels."""
        lines = self.get("/api/v1/metrics").splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


def fill(gateway, asked):
    failed = []
    filler = "x" * 700

    def send(first):
        connection = http.client.HTTPConnection("127.0.0.1", gateway.public, timeout=60)
        for number in range(first, asked.events, SENDERS):
            event = {"id": str(number), "text": f"say {number}", "filler": filler}
            if asked.threads:
                event["thread"] = str(number % asked.threads)
            body = json.dumps(event)
            connection.request("POST", f"/hooks/s{number % asked.agents}", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 202:
                failed.append(answer.status)

    senders = [threading.Thread(target=send, args=(first,)) for first in range(SENDERS)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    if failed:
        sys.exit(f"{len(failed)} events were not accepted: {sorted(set(failed))}")


def stub_stats(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/_stub/stats")
    return json.loads(connection.getresponse().read())


def main():
    asking = argparse.ArgumentParser()
    asking.add_argument("binary")
    asking.add_argument("--events", type=int, default=100_000)
    asking.add_argument("--threads", type=int, default=0, help="conversations; 0: every event is its own")
    asking.add_argument("--agents", type=int, default=1)
    asking.add_argument("--cap", type=int, default=64, help="dispatch.destination_concurrency")
    asking.add_argument("--delay", default="20ms", help="how long a run takes")
    asking.add_argument("--down", type=float, default=25.0, help="seconds that the upstream is still down after the start")
    asking.add_argument("--patience", type=float, default=900.0, help="seconds until all must have gone out")
    asked = asking.parse_args()
    binary = os.path.abspath(asked.binary)
    missed = []

    def check(name, value, unit, most):
        good = value <= most
        print(f"{name:<44}{value:>12.1f} {unit:<6} at most {most:g}{'' if good else '   MISSED'}", flush=True)
        if not good:
            missed.append(name)

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        upstream = free_port()
        write_config(folder, upstream, asked)
        gateway = Gateway(binary, folder)
        begun = time.monotonic()
        fill(gateway, asked)
        took = time.monotonic() - begun
        print(f"{asked.events} events kept in {took:.1f} s, {asked.events / took:.0f}/s, the upstream down")
        print(f"{'memory after that':<44}{gateway.status('VmRSS'):>12.1f} MiB, peak {gateway.status('VmHWM'):.1f}")
        gateway.stop()

        gateway = Gateway(binary, folder)
        print(f"{'start on the full inbox':<44}{gateway.started_in:>12.2f} s")
        attempts = gateway.metric("sluicegate_attempts_total")
        time.sleep(asked.down)
        tries = gateway.metric("sluicegate_attempts_total") - attempts
        print(f"{f'tries in {asked.down:g} s of the outage':<44}{tries:>12.0f}")
        check("memory with all of them waiting, peak", gateway.status("VmHWM"), "MiB", 100)

        command = [binary, "stub", "--listen", f"127.0.0.1:{upstream}", "--delay", asked.delay]
        stub = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            stub.stdout.readline()
            back = time.monotonic()
            while stub_stats(upstream)["runs"] == 0 and time.monotonic() - back < 60:
                time.sleep(0.02)
            check("first run after the upstream's return", time.monotonic() - back, "s", 10)
            first = time.monotonic()
            while stub_stats(upstream)["ended"] < asked.events and time.monotonic() - back < asked.patience:
                time.sleep(0.1)
            took = time.monotonic() - first
            stats = stub_stats(upstream)
            print(f"{'runs a second from then on':<44}{stats['runs'] / took:>12.0f} /s")
            check("most runs at once", stats["max_running"], "", asked.cap * asked.agents)
            check("runs that are missing", asked.events - stats["runs"], "", 0)
            check("runs twice", stats["duplicates"], "", 0)
            check("turns of a conversation at once", stats["overlaps"], "", 0)
            check("memory while they went out, peak", gateway.status("VmHWM"), "MiB", 100)
        finally:
            gateway.stop()
            stub.terminate()
            stub.wait()
    sys.exit(1 if missed else 0)


main()
