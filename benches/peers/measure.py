"""A signed 8 KB event through the gateway and through its peers, in turns. See `benches/run`."""

import argparse
import hashlib
import hmac
import json
import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
SECRET = "a-secret-of-the-benchmark-0123456789"
CONNECTIONS = 32
TICK = os.sysconf("SC_CLK_TCK")
CORES = sorted(os.sched_getaffinity(0))
SERVER, LOAD = str(CORES[-1]), str(CORES[0])
UNIT = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def push(size):
    """A push as GitHub sends it, of about this size."""
    commit = lambda number: {  # noqa: E731
        "id": hashlib.sha1(str(number).encode()).hexdigest(),
        "message": f"change number {number}: make the gate a little wider",
        "timestamp": "2026-11-02T10:11:12Z",
        "author": {"name": "Ada", "email": "ada@example.com", "username": "ada"},
        "added": [f"src/new_{number}.rs"], "removed": [], "modified": ["README.md", f"src/file_{number}.rs"],
    }
    event = {
        "ref": "refs/heads/main", "before": "0" * 40, "after": "1" * 40,
        "repository": {"id": 123456789, "full_name": "octo/gate", "private": False, "owner": {"login": "octo", "id": 1}},
        "pusher": {"name": "ada", "email": "ada@example.com"}, "sender": {"login": "ada", "id": 2, "type": "User"},
        "commits": [],
    }
    while len(json.dumps(event)) < size - 400:
        event["commits"].append(commit(len(event["commits"])))
    event["head_commit"] = {"id": "1" * 40, "message": "x" * max(0, size - len(json.dumps(event)) - 60)}
    return json.dumps(event)


def script(folder, body):
    signature = hmac.new(SECRET.encode(), body.encode(), hashlib.sha256).hexdigest()
    file = folder / f"post-{len(body)}.lua"
    file.write_text(
        'wrk.method = "POST"\n'
        f"wrk.body = {json.dumps(body, ensure_ascii=True)}\n"
        'wrk.headers["content-type"] = "application/json"\n'
        'wrk.headers["x-github-event"] = "push"\n'
        f'wrk.headers["x-hub-signature-256"] = "sha256={signature}"\n'
    )
    return file


def spawn(*command, core=SERVER, **more):
    return subprocess.Popen(["taskset", "-c", core, *map(str, command)], stderr=subprocess.DEVNULL, **more)


def nginx(folder, server, core=SERVER, before=""):
    folder.mkdir()
    user = "user root;" if os.geteuid() == 0 else ""
    modules = "".join(
        f"load_module /usr/lib/nginx/modules/{name};\n" for name in ("ndk_http_module.so", "ngx_http_lua_module.so")
    ) if before else ""
    (folder / "nginx.conf").write_text(
        f"""{modules}{user} daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_buffer_size 256k; client_max_body_size 8m; tcp_nodelay on;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  {before}
  {server}
}}"""
    )
    return spawn("nginx", "-p", folder, "-c", folder / "nginx.conf", core=core)


RELAY = 'proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";'

# The same job in Lua: prove the signature, take what is asked for out of the body, make the call.
LUA = """
  init_by_lua_block { hmac = require "openssl.hmac"; json = require "cjson.safe" }
  server { listen 127.0.0.1:%(port)d; location / {
    access_by_lua_block {
      ngx.req.read_body()
      local body = ngx.req.get_body_data() or ""
      local mac = hmac.new("%(secret)s", "sha256"):final(body):gsub(".", function(c) return string.format("%%02x", c:byte()) end)
      if ngx.var.http_x_hub_signature_256 ~= "sha256=" .. mac then return ngx.exit(401) end
      local event = json.decode(body)
      if not event then return ngx.exit(400) end
      local text = "push to " .. event.repository.full_name .. " by " .. event.sender.login
      ngx.req.set_header("x-api-key", "upstream-key")
      ngx.req.clear_header("x-hub-signature-256")
      ngx.req.set_body_data(json.encode({ input = { text = text .. "\\n" .. body, user = { email = event.pusher.email } } }))
      ngx.req.set_uri("/v1/agents/a/invoke")
    }
    %(relay)s } }
"""


def gateway(folder, binary, upstream):
    folder.mkdir()
    (folder / "sluicegate.toml").write_text(
        f"""
[server]
listen = "127.0.0.1:0"
max_body = "8MiB"
[admin]
listen = "127.0.0.1:0"
token = "literal:bench-token"
[upstream]
base_url = "http://127.0.0.1:{upstream}"
api_key = "literal:upstream-key"
[inbox]
url = "sqlite:inbox.db"
[log]
format = "json"
[limits]
caller = "10000000/s"
whole = "10000000/s"
[sources.github]
provider = "github"
secrets = ["literal:{SECRET}"]
agent = "a"
respond = "proxy"
rate = "10000000/s"
thread = "repository.full_name"
prompt = "push to {{{{ body.repository.full_name }}}} by {{{{ body.sender.login }}}}"
event_json = "text"
[sources.github.params_mapping]
user_email = "pusher.email"
[[proxy]]
prefix = "/v1"
upstream = "http://127.0.0.1:{upstream}"
"""
    )
    # Every request is logged, as it would be; to a file, so that nobody has to read it.
    log = folder / "log"
    process = subprocess.Popen(
        ["taskset", "-c", SERVER, str(binary), "serve", "--config", folder / "sluicegate.toml"], stderr=open(log, "w")
    )
    for _ in range(200):
        for line in log.read_text().splitlines():
            if '"serving"' in line:
                return process, json.loads(line)["public"]
        time.sleep(0.05)
    raise SystemExit(f"the gateway does not start: {log.read_text()[-2000:]}")


def family(pid):
    found, list_ = [], [pid]
    while list_:
        one = list_.pop()
        found.append(one)
        try:
            list_ += [int(child) for child in pathlib.Path(f"/proc/{one}/task/{one}/children").read_text().split()]
        except FileNotFoundError:
            pass
    return found


def cpu_seconds(pid):
    total = 0
    for one in family(pid):
        fields = pathlib.Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def resident(pid):
    total = 0
    for one in family(pid):
        status = pathlib.Path(f"/proc/{one}/status").read_text()
        total += int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024
    return total


def load(url, lua, seconds, connections=CONNECTIONS, pause=0):
    """One round. With a pause (ms) between answer and next request each connection only keeps half of the way busy."""
    text = lua.read_text()
    if pause:
        text += f"\nfunction delay() return {pause} end\n"
    paused = lua.with_suffix(f".{pause}.lua")
    paused.write_text(text)
    out = subprocess.run(
        ["taskset", "-c", LOAD, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", paused, url],
        capture_output=True, text=True, check=True,
    ).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit(f"{url}: {out}")
    latency = lambda mark: (lambda m: float(m[1]) * UNIT[m[2]])(re.search(rf"{mark}%\s+([\d.]+)(us|ms|s)", out))  # noqa: E731
    return {
        "rate": float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]),
        "count": int(re.search(r"(\d+) requests in", out)[1]),
        "p50": latency(50), "p99": latency(99),
    }


def rounds(ways, lua, args, **how):
    found = {name: [] for name, *_ in ways}
    for _, url, _ in ways:
        load(url, lua, 1, 8)
    for _ in range(args.rounds):
        for name, url, pid in ways:
            before = cpu_seconds(pid)
            result = load(url, lua, args.seconds, **how)
            result["cpu"] = (cpu_seconds(pid) - before) / result["count"]
            result["memory"] = resident(pid)
            found[name].append(result)
    return {
        name: {key: statistics.median(result[key] for result in results) for key in results[0]}
        for name, results in found.items()
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("floor")
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.quick:
        args.seconds, args.rounds = 2, 1
    processes = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        up, plain, lua, ha, floor = (free_port() for _ in range(5))
        answer = '{\\"id\\":\\"1\\",\\"status\\":\\"completed\\",\\"result\\":\\"ok\\"}'
        at_up = f"upstream up {{ server 127.0.0.1:{up}; keepalive 256; keepalive_requests 100000000; }}"
        try:
            processes.append(nginx(
                folder / "up",
                f'server {{ listen 127.0.0.1:{up}; location / {{ default_type application/json; return 200 "{answer}"; }} }}',
                core=LOAD,
            ))
            processes.append(nginx(folder / "plain", f"{at_up} server {{ listen 127.0.0.1:{plain}; location / {{ {RELAY} }} }}"))
            processes.append(nginx(folder / "lua", LUA % {"port": lua, "secret": SECRET, "relay": RELAY}, before=at_up))
            (folder / "haproxy.cfg").write_text(
                "global\n  nbthread 1\ndefaults\n  mode http\n  timeout client 30s\n  timeout server 30s\n  timeout connect 5s\n"
                f"frontend f\n  bind 127.0.0.1:{ha}\n  default_backend b\n"
                f"backend b\n  http-reuse always\n  server s 127.0.0.1:{up}\n"
            )
            processes.append(spawn("haproxy", "-f", folder / "haproxy.cfg"))
            processes.append(spawn(args.floor, f"127.0.0.1:{floor}", f"127.0.0.1:{up}"))
            process, public = gateway(folder / "gateway", pathlib.Path(args.binary).resolve(), up)
            processes.append(process)
            time.sleep(1)
            pids = [process.pid for process in processes]
            ways = [
                ("nginx, relay only", f"http://127.0.0.1:{plain}/x", pids[1]),
                ("haproxy, relay only", f"http://127.0.0.1:{ha}/x", pids[3]),
                ("hyper, relay only", f"http://127.0.0.1:{floor}/x", pids[4]),
                ("sluicegate, [[proxy]]", f"http://{public}/v1/x", pids[5]),
                ("sluicegate, signed event", f"http://{public}/hooks/github", pids[5]),
                ("nginx + Lua, signed event", f"http://127.0.0.1:{lua}/x", pids[2]),
            ]
            rate = None
            for size in (8192,) if args.quick else (8192, 512, 65536):
                script_ = script(folder, push(size))
                # The proxy is shown once.
                asked = [way for way in ways if size == 8192 or "[[" not in way[0]]
                middle = rounds(asked, script_, args)
                base = middle["nginx, relay only"]
                print(f"\n{size} bytes, {CONNECTIONS} connections, middle of {args.rounds} rounds of {args.seconds} s in turns, one core")
                print(f"{'':28}{'req/s':>9}{'req/CPU s':>11}{'CPU to nginx':>14}{'p50 ms':>8}{'p99 ms':>8}{'MiB':>7}")
                for name, one in middle.items():
                    print(
                        f"{name:28}{one['rate']:9.0f}{1 / one['cpu']:11.0f}{one['cpu'] / base['cpu']:14.2f}"
                        f"{one['p50']:8.2f}{one['p99']:8.2f}{one['memory'] / 2**20:7.1f}"
                    )
                rate = rate or middle["sluicegate, signed event"]["rate"]
                ours, theirs = middle["sluicegate, signed event"], middle["nginx + Lua, signed event"]
                print(f"requests per CPU second to nginx + Lua: {theirs['cpu'] / ours['cpu']:.2f}")
            script_ = script(folder, push(8192))
            half = max(1, round(1000 * CONNECTIONS / (rate / 2)))
            asked = [ways[0], ways[4]]
            middle = rounds(asked, script_, args, pause=half)
            base, ours = middle["nginx, relay only"], middle["sluicegate, signed event"]
            print(f"\nat half load: p50 {ours['p50'] - base['p50']:+.2f} ms, p99 {ours['p99'] - base['p99']:+.2f} ms to nginx, relay only")
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(20)


if __name__ == "__main__":
    sys.exit(main())
