"""Sends requests that are signed as the providers sign them to a gateway, and asks the providers' own libraries what
they say of each: both have to let in the good ones, and to refuse those that were changed on the way, signed with
another secret, or too old. Prints a line a case and a closing count."""

import collections
import copy
import json
import logging
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

import pairs  # noqa: F401  its entries add themselves
import providers

BINARY = pathlib.Path(sys.argv[1]).resolve()
LIBRARIES = pathlib.Path("target/sdk").resolve()
logging.disable(logging.CRITICAL)


class Node:
    """The libraries that are there for Node only."""

    def __init__(self):
        self.process = subprocess.Popen(
            ["node", LIBRARIES / "libraries.mjs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, op, request):
        headers = {name.lower(): value for name, value in request.headers.items()}
        question = {
            "op": op,
            "provider": request.entry.name,
            "secret": request.secret,
            "method": "POST",
            "path": request.path,
            "headers": headers,
            "body": request.text,
            "now": request.now,
        }
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def sign(node, request):
    entry = request.entry
    if entry.sign:
        entry.sign(request)
        return
    answer = node.ask("sign", request)
    if "headers" in answer:
        request.headers |= answer["headers"]
    elif "text" in answer:
        request.headers[entry.node] = answer["text"]
    else:
        raise SystemExit(f"{entry.name}: {answer}")


def says(node, request):
    """The library's verdict, and its words."""
    if request.entry.node:
        answer = node.ask("verify", request)
        return answer["good"], answer.get("why", "")
    try:
        # Some answer with a truth value, some with the event or nothing, and refuse by raising.
        return request.entry.verify(request) is not False, ""
    except Exception as error:
        return False, f"{type(error).__name__}: {error}"


def cases(node, entry):
    """Name, request, and whether it has to be let in."""
    now = int(time.time())
    for number, body in enumerate(entry.bodies):
        ident = f"{entry.name}-{number}"
        good = providers.Request(entry, entry.secret, body, ident, now)
        sign(node, good)
        yield f"body {number} as signed", good, True
        if entry.change:
            changed = copy.copy(good)
            changed.body = entry.change(good.body) if callable(entry.change) else good.body.replace(*entry.change, 1)
            assert changed.body != good.body, entry.name
        else:
            # The body is not signed: the part beside it is changed.
            changed = copy.copy(good)
            changed.headers = {**good.headers, "x-request-id": f"{ident}-other"}
        yield f"body {number} changed", changed, False
        other = providers.Request(entry, entry.other, body, ident, now)
        sign(node, other)
        other.secret = entry.secret
        yield f"body {number} of another secret", other, False
    if entry.window:
        old = providers.Request(entry, entry.secret, entry.bodies[0], f"{entry.name}-old", now - entry.window - 20)
        sign(node, old)
        yield "too old", old, False


def start(arguments, wanted, stream):
    process = subprocess.Popen([BINARY, *arguments], **{stream: subprocess.PIPE}, text=True)
    lines = getattr(process, stream)
    for line in lines:
        if wanted in line:
            # What it goes on to say is taken off its hands, or it would wait for us.
            threading.Thread(target=collections.deque, args=(lines, 0), daemon=True).start()
            return process, line
    raise SystemExit(f"{arguments[0]} ended before it said {wanted!r}")


def post(url, headers, body):
    request = urllib.request.Request(url, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def configuration(upstream):
    sources = ""
    for name, entry in providers.ALL.items():
        values = ", ".join(f'{key} = "{value}"' for key, value in entry.values.items())
        sources += (
            f'[sources.{name}]\nprovider = "{name}"\nsecrets = ["literal:{entry.secret}"]\nagent = "agent-{name}"\n'
        )
        sources += f"values = {{ {values} }}\n" if values else ""
    return (
        f'[server]\nlisten = "127.0.0.1:0"\npublic_url = "{providers.PUBLIC}"\n'
        f'[admin]\nlisten = "127.0.0.1:0"\ntoken = "literal:sdk-test-token-0123456789"\n'
        f'[upstream]\nbase_url = "{upstream}"\napi_key = "literal:sdk-test-key"\n'
        f'[inbox]\nurl = "sqlite:inbox.db"\n[log]\nformat = "json"\n'
        f'[limits]\ncaller = "10000/s"\n{sources}'
    )


def runs(upstream, wanted):
    """How many runs each destination was asked for."""
    deadline = time.time() + 30
    while True:
        with urllib.request.urlopen(f"{upstream}/_stub/runs") as answer:
            all_runs = json.load(answer)
        all_runs = all_runs if isinstance(all_runs, list) else all_runs["runs"]
        if len(all_runs) >= wanted or time.time() > deadline:
            break
        time.sleep(0.1)
    got = {}
    for run in all_runs:
        got[run["destination"]] = got.get(run["destination"], 0) + 1
    return got


def main():
    node, passed, failed = Node(), 0, 0

    def count(good, line):
        nonlocal passed, failed
        passed, failed = passed + good, failed + (not good)
        print(f"{'ok  ' if good else 'FAIL'} {line}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        stub, line = start(["stub", "--listen", "127.0.0.1:0"], "http://", "stdout")
        upstream = line.split()[-1]
        config = pathlib.Path(folder) / "sluicegate.toml"
        config.write_text(configuration(upstream))
        gateway, line = start(["serve", "--config", str(config)], '"serving"', "stderr")
        public = json.loads(line)["public"]
        try:
            wanted = {}
            for name, entry in providers.ALL.items():
                for what, request, good in cases(node, entry):
                    verdict, why = says(node, request)
                    status, answer = post(f"http://{public}{request.path}", request.headers, request.body)
                    agreed = verdict == good and (200 <= status < 300 if good else status == 401)
                    count(agreed, f"{name} {what}: library {'accepts' if verdict else 'refuses'}, gateway {status}")
                    if not agreed:
                        print("     ", why[:300], answer[:300])
                wanted[f"agents/agent-{name}"] = len(entry.bodies)
            got = runs(upstream, sum(wanted.values()))
            count(got == wanted, f"every kept event made one run: {sum(got.values())} of {sum(wanted.values())}")
            if got != wanted:
                print(
                    "     ",
                    {name: (number, got.get(name)) for name, number in wanted.items() if got.get(name) != number},
                )
            count(len(providers.ALL) >= 25, f"{len(providers.ALL)} providers")
        finally:
            gateway.terminate()
            code = gateway.wait(20)
            for process in (stub, node.process):
                process.terminate()
                process.wait(20)
        count(code == 0, f"the gateway ended with {code}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
