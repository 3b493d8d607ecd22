"""Signs events with the providers' own libraries and sends them to a gateway: the good ones must be kept and run,
the tampered ones and those signed with another secret refused. Prints a line a case and a closing count."""

import datetime
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import slack_sdk.signature
import standardwebhooks
import stripe
import svix

BINARY = pathlib.Path(sys.argv[1]).resolve()
LIBRARIES = pathlib.Path("target/sdk").resolve()
GITHUB = "a-github-secret-for-tests"
SLACK = "8f742231b10e8888abcd99yyyzzz85a5"
STRIPE = "whsec_5WbX5kEWLlfzsGNjH64I8lOOqUB6e8FH"
STANDARD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_STANDARD = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"

# Bodies with what breaks careless verifiers: spaces, escapes, other scripts, large numbers, a line break at the end.
BODIES = [
    b'{"id":"%s","type":"a.b","n":12345678901234567890}',
    b'{ "id" : "%s",\n  "type" : "a.b", "text": "\\u00e9 \xc3\xa9 \xe6\x97\xa5\xe6\x9c\xac" }\n',
    b'{"id":"%s","type":"a.b","html":"<b>&amp;</b>","x":1.50}',
]


def github(secret, body, ident):
    signed = subprocess.run(["node", LIBRARIES / "github.mjs", secret], input=body, capture_output=True, check=True)
    return {"X-Hub-Signature-256": signed.stdout.decode(), "X-GitHub-Event": "push", "X-GitHub-Delivery": ident}


def slack(secret, body, _ident):
    now = str(int(time.time()))
    verifier = slack_sdk.signature.SignatureVerifier(secret)
    return {
        "X-Slack-Signature": verifier.generate_signature(timestamp=now, body=body),
        "X-Slack-Request-Timestamp": now,
    }


def stripe_(secret, body, _ident):
    now = int(time.time())
    signed = stripe.WebhookSignature._compute_signature(f"{now}.{body.decode()}", secret)
    header = f"t={now},v1={signed}"
    stripe.WebhookSignature.verify_header(body.decode(), header, secret, 300)
    return {"Stripe-Signature": header}


def standard(secret, body, ident):
    now = datetime.datetime.now(datetime.timezone.utc)
    signed = standardwebhooks.Webhook(secret).sign(ident, now, body.decode())
    return {
        "webhook-id": ident,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signed,
    }


def svix_(secret, body, ident):
    now = datetime.datetime.now(datetime.timezone.utc)
    signed = svix.Webhook(secret).sign(ident, now, body.decode())
    return {"svix-id": ident, "svix-timestamp": str(int(now.timestamp())), "svix-signature": signed}


PROVIDERS = {
    "github": (github, GITHUB, "another-github-secret"),
    "slack": (slack, SLACK, "another-slack-signing-secret"),
    "stripe": (stripe_, STRIPE, "whsec_anotherStripeSecret0123456789"),
    "standard-webhooks": (standard, STANDARD, OTHER_STANDARD),
    "svix": (svix_, STANDARD, OTHER_STANDARD),
}


def start(arguments, wanted, stream):
    process = subprocess.Popen([BINARY, *arguments], **{stream: subprocess.PIPE}, text=True)
    for line in getattr(process, stream):
        if wanted in line:
            return process, line
    raise SystemExit(f"{arguments[0]} ended before it said {wanted!r}")


def post(url, headers, body):
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def main():
    passed, failed = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        stub, line = start(["stub", "--listen", "127.0.0.1:0"], "http://", "stdout")
        upstream = line.split()[-1]
        config = pathlib.Path(folder) / "sluicegate.toml"
        sources = "".join(
            f'[sources.{name}]\nprovider = "{name}"\nsecrets = ["literal:{secret}"]\nagent = "agent-{name}"\n'
            for name, (_, secret, _) in PROVIDERS.items()
        )
        config.write_text(
            f'[server]\nlisten = "127.0.0.1:0"\n[admin]\nlisten = "127.0.0.1:0"\ntoken = "literal:sdk-test-token"\n'
            f'[upstream]\nbase_url = "{upstream}"\napi_key = "literal:sdk-test-key"\n'
            f'[inbox]\nurl = "sqlite:inbox.db"\n[log]\nformat = "json"\n{sources}'
        )
        gateway, line = start(["serve", "--config", str(config)], '"serving"', "stderr")
        public = json.loads(line)["public"]
        try:
            wanted = {}
            for name, (sign, secret, other) in PROVIDERS.items():
                for number, template in enumerate(BODIES):
                    ident = f"{name}-{number}"
                    body = template.replace(b"%s", ident.encode())
                    url = f"http://{public}/hooks/{name}"
                    cases = [
                        ("signed", sign(secret, body, ident), body, 202),
                        ("tampered", sign(secret, body, ident), body.replace(b'"a.b"', b'"a.c"'), 401),
                        ("wrong secret", sign(other, body, ident), body, 401),
                    ]
                    for what, headers, sent, status in cases:
                        got, answer = post(url, headers, sent)
                        good = got == status
                        passed, failed = passed + good, failed + (not good)
                        print(f"{'ok  ' if good else 'FAIL'} {name} body {number} {what}: {got}", flush=True)
                        if not good:
                            print("     ", answer[:300])
                    wanted.setdefault(f"agents/agent-{name}", 0)
                    wanted[f"agents/agent-{name}"] += 1
            deadline = time.time() + 30
            while time.time() < deadline:
                with urllib.request.urlopen(f"{upstream}/_stub/runs") as answer:
                    runs = json.load(answer)
                runs = runs if isinstance(runs, list) else runs["runs"]
                if len(runs) >= sum(wanted.values()):
                    break
                time.sleep(0.1)
            got = {}
            for run in runs:
                got[run["destination"]] = got.get(run["destination"], 0) + 1
            good = got == wanted
            passed, failed = passed + good, failed + (not good)
            print(f"{'ok  ' if good else 'FAIL'} every kept event made one run: {got}")
        finally:
            gateway.terminate()
            code = gateway.wait(20)
            stub.terminate()
            stub.wait(20)
        passed, failed = passed + (code == 0), failed + (code != 0)
        print(f"{'ok  ' if code == 0 else 'FAIL'} the gateway ended with {code}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
