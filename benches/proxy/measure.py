"""Measures the proxy beside nginx, and the memory of many event streams. See `run`."""

import asyncio
import json
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

BINARY = pathlib.Path(sys.argv[1]).resolve()
HERE = pathlib.Path(__file__).parent
ROUNDS = 3
SECONDS = 3
CONNECTIONS = 32
STREAMS = 1000
MAX_STREAM_MEMORY = 100 << 20
TICK = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start_nginx(folder, server):
    """An nginx of our own; returns its master."""
    folder.mkdir()
    config = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(
        f"""{user} daemon off; worker_processes auto; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_buffer_size 64k; tcp_nodelay on;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  {server}
}}"""
    )
    return subprocess.Popen(["nginx", "-p", str(folder), "-c", str(config)], stderr=subprocess.DEVNULL)


def start_gateway(folder, upstream):
    folder.mkdir()
    config = folder / "sluicegate.toml"
    config.write_text(
        f"""
[server]
max_connections_per_address = 2000
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
token = "literal:bench-token"
[upstream]
base_url = "http://127.0.0.1:1"
[inbox]
url = "sqlite:inbox.db"
[log]
format = "json"
[[proxy]]
prefix = "/v1"
upstream = "{upstream}"
"""
    )
    # Every request is logged, as it would be; to a file, so that nobody has to read it.
    log = folder / "log"
    process = subprocess.Popen([BINARY, "serve", "--config", str(config)], stderr=open(log, "w"))
    for _ in range(200):
        for line in log.read_text().splitlines():
            if '"serving"' in line:
                return process, json.loads(line)["public"]
        time.sleep(0.05)
    raise SystemExit("the gateway does not start")


def family(pid):
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(int(child) for child in children)]


def cpu_seconds(pid):
    total = 0
    for one in family(pid):
        fields = pathlib.Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def resident(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024


def load(address):
    text = subprocess.run(
        ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--latency", "-s", HERE / "post.lua", f"http://{address}/v1/x"],
        capture_output=True, text=True, check=True,
    ).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        raise SystemExit(text)
    unit = {"us": 1e-3, "ms": 1.0, "s": 1e3}
    latency = lambda mark: (lambda m: float(m[1]) * unit[m[2]])(re.search(rf"{mark}%\s+([\d.]+)(us|ms|s)", text))  # noqa: E731
    return {
        "rate": float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]),
        "count": int(re.search(r"(\d+) requests in", text)[1]),
        "p50": latency(50),
        "p99": latency(99),
    }


def measure(ways):
    found = {name: [] for name, *_ in ways}
    for _, address, _ in ways:
        subprocess.run(["wrk", "-t1", "-c8", "-d1s", "-s", HERE / "post.lua", f"http://{address}/v1/x"], capture_output=True, check=True)
    for _ in range(ROUNDS):
        for name, address, pid in ways:
            before = cpu_seconds(pid) if pid else 0
            result = load(address)
            result["cpu"] = (cpu_seconds(pid) - before) * 1000 / result["count"] if pid else 0
            found[name].append(result)
    middle = {
        name: {key: statistics.median(result[key] for result in results) for key in results[0]}
        for name, results in found.items()
    }
    print(f"{CONNECTIONS} connections, POST with 8 KiB, middle of {ROUNDS} rounds of {SECONDS} s in turns")
    print(f"{'':12}{'req/s':>10}{'p50 ms':>10}{'p99 ms':>10}{'CPU s/1k':>12}{'CPU to nginx':>14}")
    for name, one in middle.items():
        ratio = f"{one['cpu'] / middle['nginx']['cpu']:.2f}" if one["cpu"] else "-"
        print(f"{name:12}{one['rate']:10.0f}{one['p50']:10.2f}{one['p99']:10.2f}{one['cpu']:12.4f}{ratio:>14}")
    print(f"requests/s to nginx: {middle['sluicegate']['rate'] / middle['nginx']['rate']:.2f}")


async def streams():
    """The gateway's memory with many streams open, each of which has had an event."""
    writers = set()

    async def upstream(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writers.add(writer)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        await writer.drain()

    server = await asyncio.start_server(upstream, "127.0.0.1", 0, backlog=2048)
    port = server.sockets[0].getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        process, public = start_gateway(pathlib.Path(folder) / "gateway", f"http://127.0.0.1:{port}")
        readers = []
        try:
            host, _, public_port = public.partition(":")
            idle = resident(process.pid)
            for _ in range(STREAMS):
                reader, writer = await asyncio.open_connection(host, int(public_port))
                writer.write(b"GET /v1/s HTTP/1.1\r\nhost: x\r\n\r\n")
                readers.append((reader, writer))
            await asyncio.gather(*(reader.readuntil(b"\r\n\r\n") for reader, _ in readers))
            event = b"data: " + b"x" * 1000 + b"\n\n"
            piece = b"%x\r\n%s\r\n" % (len(event), event)
            for _ in range(10):
                for writer in writers:
                    writer.write(piece)
                await asyncio.gather(*(reader.readuntil(b"\n\n") for reader, _ in readers))
            now = resident(process.pid)
            print(f"{STREAMS} event streams: {now / 2**20:.1f} MiB resident, {idle / 2**20:.1f} MiB before")
            return now < MAX_STREAM_MEMORY
        finally:
            process.terminate()
            for _, writer in readers:
                writer.close()
            for writer in writers:
                writer.close()
            process.wait(20)
            server.close()


def main():
    upstream, proxy = free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        answer = "return 200 '{\"status\":\"completed\"}';"
        processes = [
            start_nginx(folder / "up", f"server {{ listen 127.0.0.1:{upstream}; location / {{ default_type application/json; {answer} }} }}"),
            start_nginx(
                folder / "nginx",
                f"upstream up {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}"
                f"server {{ listen 127.0.0.1:{proxy}; location / {{ proxy_pass http://up; proxy_http_version 1.1;"
                ' proxy_set_header Connection ""; } }',
            ),
        ]
        try:
            gateway, public = start_gateway(folder / "gateway", f"http://127.0.0.1:{upstream}")
            processes.append(gateway)
            time.sleep(0.5)
            measure(
                [
                    ("direct", f"127.0.0.1:{upstream}", None),
                    ("nginx", f"127.0.0.1:{proxy}", processes[1].pid),
                    ("sluicegate", public, gateway.pid),
                ]
            )
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(20)
    return 0 if asyncio.run(streams()) else 1


if __name__ == "__main__":
    if not shutil.which("nginx"):
        raise SystemExit("nginx is missing")
    sys.exit(main())
