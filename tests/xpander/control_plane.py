"""A small stand-in for the platform's control plane, the API that the SDK speaks. It keeps every request as it came."""

import datetime
import http.server
import json
import re
import threading
import time

ORGANIZATION = "org-1"


def task(ident, agent="agent-1", status="pending", **more):
    base = {"id": ident, "agent_id": agent, "organization_id": ORGANIZATION, "input": {"text": "Hi", "files": []}}
    return {**base, "status": status, "created_at": "2026-01-01T00:00:00Z", "events_streaming": True, **more}


AGENT = {
    "id": "agent-1",
    "organization_id": ORGANIZATION,
    "name": "Agent one",
    "unique_name": "agent-one",
    "environment_id": "env-1",
    "framework": "agno",
    "model_provider": "openai",
    "model_name": "gpt-5",
    "instructions": {"role": [], "goal": [], "general": ""},
    "graph": [],
    "tools": [],
    "created_at": "2026-01-01T00:00:00Z",
}


class ControlPlane(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = []
        self.event_times = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def any(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = sorted((name.lower(), value) for name, value in self.headers.items())
        self.server.requests.append((self.command, self.path, headers, body))
        path = self.path.partition("?")[0]
        if self.headers.get("x-api-key") != "control-plane-key":
            return self.json(401, {"detail": "Invalid API key"})
        if path == "/agents/agent-1":
            return self.json(200, AGENT)
        if path == "/agent-execution/limited":
            return self.json(429, {"detail": "slow down"}, [("Retry-After", "17")])
        if self.command == "POST" and path.startswith("/agent-execution/"):
            return self.json(200, task("task-1", path.rsplit("/", 1)[1]))
        if path.endswith("/status"):
            return self.json(200, task("task-1", status="completed", result="done"))
        if self.command == "PATCH":
            return self.json(200, task("task-1", status="executing"))
        if self.command == "DELETE":
            return self.json(200, task("task-1", status="stopped", is_manually_stopped=True))
        if re.fullmatch(f"/{ORGANIZATION}/agent-execution/[^/]+/events", path):
            return self.events()
        if path.startswith("/recorded/"):
            return self.json(200, {})
        return self.json(404, {"detail": "Not Found"})

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = any

    def json(self, status, value, headers=()):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, text in headers:
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def events(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        steps = [
            ("task_created", task("task-1")),
            ("chunk", "a piece"),
            ("task_updated", task("task-1", status="executing")),
            ("task_finished", task("task-1", status="completed", result="done")),
        ]
        for kind, data in steps:
            time.sleep(0.3)
            event = {"type": kind, "task_id": "task-1", "organization_id": ORGANIZATION, "data": data}
            event["time"] = datetime.datetime.now(datetime.timezone.utc).isoformat()
            line = f"data: {json.dumps(event)}\n\n".encode()
            self.server.event_times.append(time.monotonic())
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")
