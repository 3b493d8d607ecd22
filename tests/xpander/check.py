"""The platform's own SDK against the gateway. Prints a line a case and a closing count."""

import asyncio
import hashlib
import hmac
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import httpx
from pydantic import TypeAdapter

import control_plane

# Nothing of the surroundings decides where the SDK calls.
for name in [name for name in os.environ if name.startswith("XPANDER_")]:
    del os.environ[name]

from xpander_sdk import Agents, Configuration, Tasks  # noqa: E402
from xpander_sdk.exceptions.module_exception import ModuleException  # noqa: E402
from xpander_sdk.modules.tasks.models.task import AgentExecutionInput  # noqa: E402
from xpander_sdk.modules.tasks.sub_modules.task import Task, TaskUpdateEvent  # noqa: E402

BINARY = pathlib.Path(sys.argv[1]).resolve()
SECRET = "a-github-secret-for-tests"
GATEWAY_KEY = "a-gateway-key-for-tests-001"
REST_KEY = "a-gateway-key-for-tests-002"

SOURCES = """
[sources.whole]
agent = "agent-whole"

[sources.prompt]
agent = "agent-prompt"
prompt = "Look at {{ body.text }}"
event_json = "context"

[sources.user]
agent = "agent-user"
params_mapping.prompt = "text"
params_mapping.user_id = "user.id"
params_mapping.user_email = "user.email"
params_mapping.user_first_name = "user.first"
params_mapping.user_last_name = "user.last"
thread = "conversation"

[sources.fields]
workflow = "workflow-fields"
title = "A title"
instructions_override = "Be brief."
expected_output = "Three sentences."
output_format = "json"
output_schema = { type = "object", properties = { summary = { type = "string" } } }
think_mode = "harder"
llm_model_provider = "openai"
llm_model_name = "gpt-5"
llm_reasoning_effort = "low"
disable_attachment_injection = true
"""

BODIES = [
    {"text": "plain"},
    {"text": "caf\u00e9 \u65e5\u672c \U0001f600 </data> {{ x }}", "user": {"id": "u 1", "first": "Ann"}, "conversation": "c/1"},
    {"text": "n", "n": 12345678901234567890, "x": 1.50, "user": {"email": "a@b.c", "last": "B"}, "conversation": -100123},
    {"text": "deep", "list": [1, [2, {"a": None}]], "user": {"id": 7, "email": "x@y.z"}},
]

# What the REST API takes beside what the SDK's task has.
REST_ONLY = {"source_node_type"}

passed = failed = 0


def check(what, good, otherwise=""):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    print(f"{'ok  ' if good else 'FAIL'} {what}", flush=True)
    if not good:
        print("     ", str(otherwise)[:2000])


def start(arguments, wanted, stream):
    process = subprocess.Popen([BINARY, *arguments], **{stream: subprocess.PIPE}, text=True)
    for line in getattr(process, stream):
        if wanted in line:
            return process, line
    raise SystemExit(f"{arguments[0]} ended before it said {wanted!r}")


def fits(body):
    """What is wrong with a call, by the SDK's own models."""
    wrong = []
    given = body.get("input", {})
    read = AgentExecutionInput.model_validate(given, strict=True).model_dump(exclude_unset=True)
    if read != given:
        wrong.append(f"input is read as {read}")
    for name, value in body.items():
        field = Task.model_fields.get(name)
        if name == "input" or name in REST_ONLY:
            continue
        if field is None:
            wrong.append(f"{name} is unknown")
            continue
        try:
            TypeAdapter(field.annotation).validate_python(value)
        except ValueError as error:
            wrong.append(f"{name}: {error}")
    return wrong


def send_events(public, stub):
    names = [line[len("[sources.") : -1] for line in SOURCES.splitlines() if line.startswith("[sources.")]
    for name in names:
        for number, value in enumerate(BODIES):
            body = json.dumps(value, ensure_ascii=number % 2 == 0).encode()
            headers = {
                "content-type": "application/json",
                "x-github-event": "push",
                "x-github-delivery": f"{name}-{number}",
                "x-hub-signature-256": "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest(),
            }
            answer = httpx.post(f"{public}/hooks/{name}", content=body, headers=headers)
            check(f"event {name} {number} is accepted", answer.status_code == 202, answer.text)
    runs, deadline = [], time.monotonic() + 30
    while len(runs) < len(names) * len(BODIES) and time.monotonic() < deadline:
        runs = httpx.get(f"{stub}/_stub/runs").json()["runs"]
        time.sleep(0.1)
    check("every event made one call", len(runs) == len(names) * len(BODIES), len(runs))
    for run in runs:
        try:
            wrong = fits(run["body"])
        except ValueError as error:
            wrong = [str(error)]
        check(f"the SDK's models take the call of {run['destination']}", not wrong, f"{wrong}: {run['body']}")


async def use_sdk(base_url, key):
    """What the SDK does and gets, at one address."""
    configuration = Configuration(base_url=base_url, api_key=key, organization_id=control_plane.ORGANIZATION)
    seen = {}
    agent = await Agents(configuration=configuration).aget("agent-1")
    seen["agent"] = (agent.id, agent.name)
    tasks = Tasks(configuration=configuration)
    task = await tasks.acreate(
        agent_id="agent-1", prompt="Hi \u00e9", file_urls=["https://x.test/a.pdf"], events_streaming=True
    )
    seen["created"] = (task.id, task.status.value)
    again = await tasks.aget("task-1")
    seen["got"] = (again.status.value, again.result)
    await task.areload()
    seen["reloaded"] = (task.status.value, task.result)
    await task.asave()
    seen["saved"] = task.status.value
    task.events_streaming = True
    events, times = [], []
    async for event in task.aevents():
        assert isinstance(event, TaskUpdateEvent)
        events.append(event.type.value)
        times.append(time.monotonic())
    seen["events"] = events
    stopped = await tasks.astop("task-1")
    seen["stopped"] = (stopped.status.value, stopped.is_manually_stopped)
    try:
        await tasks.acreate(agent_id="limited", prompt="Hi", file_urls=[])
    except ModuleException as error:
        seen["limited"] = str(error)
    return seen, times


def compare(what, direct, through):
    """Requests as they arrived: method, path, body and headers, but for the address in `host`."""
    plain = lambda requests: [  # noqa: E731
        (method, path, [pair for pair in headers if pair[0] not in ("host", "connection", "cdn-loop", "via")], body)
        for method, path, headers, body in requests
    ]
    direct, through = plain(direct), plain(through)
    check(f"{what}: as many requests arrive", len(direct) == len(through), f"{len(direct)} {len(through)}")
    for one, other in zip(direct, through):
        check(f"{what}: {one[0]} {one[1]} arrives unchanged", one == other, f"\n{one}\n{other}")


def check_sdk(public, plane):
    direct, _ = asyncio.run(use_sdk(plane.url, "control-plane-key"))
    before = list(plane.requests)
    for base, key in [("/xp", "control-plane-key"), ("/xp", GATEWAY_KEY)]:
        plane.requests.clear()
        plane.event_times.clear()
        through, times = asyncio.run(use_sdk(public + base, key))
        what = "the SDK with a gateway key" if key == GATEWAY_KEY else "the SDK with its own key"
        for name, value in direct.items():
            check(f"{what}: {name}", through.get(name) == value, f"{value} {through.get(name)}")
        late = max((got - sent for sent, got in zip(plane.event_times, times)), default=1)
        check(f"{what}: events come as they are made ({late * 1000:.0f} ms)", late < 0.2 and len(times) == 4, times)
        compare(what, before, plane.requests)


def check_rest(public, stub, plane):
    body = b'{ "input" : {"text":"caf\\u00e9 \xc3\xa9"},\n "additional_context": null }'
    headers = {"x-api-key": "stub-key", "content-type": "application/json"}
    for kind, where in [("sync", "invoke"), ("async", "invoke/async"), ("stream", "invoke/stream")]:
        path = f"agents/agent%20{kind}/{where}?version=draft&q=%41+b"
        answer = httpx.post(f"{public}/v1/{path}", content=body, headers=headers)
        check(f"{kind}: {answer.status_code}", answer.status_code == 200, answer.text)
        run = httpx.get(f"{stub}/_stub/runs").json()["runs"][-1]
        check(f"{kind}: the body arrives", run["body"] == json.loads(body), run)
        check(f"{kind}: the query arrives", run["query"] == "version=draft&q=%41+b", run["query"])
        check(f"{kind}: the agent arrives", run["destination"] == f"agents/agent {kind}", run["destination"])
        if kind == "stream":
            types = [json.loads(line[5:])["type"] for line in answer.text.splitlines() if line.startswith("data:")]
            check("stream: events come through", types[-1] == "task_finished" and len(types) > 2, types)
            check("stream: it says what it is", answer.headers["content-type"].startswith("text/event-stream"))
        else:
            task = answer.json()
            check(f"{kind}: a task comes back", task["status"] in ("completed", "pending"), task)
            got = httpx.get(f"{public}/v1/tasks/{task['id']}", headers=headers)
            check(f"{kind}: its task can be read", got.status_code == 200 and got.json()["id"] == task["id"], got.text)
    answer = httpx.post(f"{public}/v1/agents/a/invoke", content=body, headers={**headers, "x-api-key": REST_KEY})
    check("a gateway key is exchanged", answer.status_code == 200, answer.text)
    answer = httpx.post(f"{public}/v1/agents/a/invoke", content=body, headers={"x-api-key": "wrong"})
    check("another key is the upstream's to refuse", answer.status_code in (401, 403), answer.text)
    same = httpx.post(f"{stub}/v1/agents/a/invoke", content=body, headers={"x-api-key": "wrong"})
    check("and the answer is the upstream's", answer.content == same.content, answer.text)

    # The same calls, seen as bytes.
    def calls(base, prefix):
        with httpx.Client(headers={"x-api-key": "control-plane-key"}) as client:
            for method in ("POST", "PUT", "PATCH"):
                client.request(method, f"{base}{prefix}/a%2Fb//c?x=%20&x=+&y", content=body)
            client.get(f"{base}{prefix}/agents/1/invoke?version=draft")

    plane.requests.clear()
    calls(plane.url, "/recorded")
    direct = list(plane.requests)
    plane.requests.clear()
    calls(public, "/raw")
    compare("plain calls", direct, plane.requests)


def main():
    plane = control_plane.ControlPlane()
    with tempfile.TemporaryDirectory() as folder:
        stub, line = start(["stub", "--listen", "127.0.0.1:0", "--api-key", "stub-key"], "http://", "stdout")
        upstream = line.split()[-1]
        config = pathlib.Path(folder) / "sluicegate.toml"
        sources = SOURCES.replace("]\nagent", f']\nprovider = "github"\nsecrets = ["literal:{SECRET}"]\nagent')
        sources = sources.replace("]\nworkflow", f']\nprovider = "github"\nsecrets = ["literal:{SECRET}"]\nworkflow')
        config.write_text(
            f"""
[server]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
token = "literal:xpander-test-token-0123456789"
[upstream]
base_url = "{upstream}"
api_key = "literal:stub-key"
[inbox]
url = "sqlite:inbox.db"
[log]
format = "json"
filter = "info,sluicegate=warn,sluicegate::app=info"
[[proxy]]
prefix = "/v1"
upstream = "{upstream}"
[[proxy]]
prefix = "/xp"
upstream = "{plane.url}"
strip_prefix = true
[[proxy]]
prefix = "/raw"
upstream = "{plane.url}/recorded"
strip_prefix = true
[keys.xp]
key = "literal:{GATEWAY_KEY}"
upstream_key = "literal:control-plane-key"
prefixes = ["/xp"]
[keys.rest]
key = "literal:{REST_KEY}"
prefixes = ["/v1"]
{sources}"""
        )
        gateway, line = start(["serve", "--config", str(config)], '"serving"', "stderr")
        public = "http://" + json.loads(line)["public"]
        try:
            send_events(public, upstream)
            check_sdk(public, plane)
            check_rest(public, upstream, plane)
        finally:
            gateway.terminate()
            code = gateway.wait(20)
            stub.terminate()
            stub.wait(20)
        check(f"the gateway ended with {code}", code == 0)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
