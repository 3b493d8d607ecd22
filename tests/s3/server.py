"""An S3 server for tests: moto, behind a check of every request's signature and time, which moto leaves out.

The check is written from Amazon's description of Signature Version 4 and shares no code with the gateway."""

import datetime
import hashlib
import hmac
import sys
import urllib.parse

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

KEY, SECRET, REGION = "TESTKEY", "a-secret-of-the-store", "eu-central-1"


def signature(date, scope, canonical):
    """The signature of a canonical request."""
    text = "\n".join(["AWS4-HMAC-SHA256", date, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = b"AWS4" + SECRET.encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def fault(environ):
    """What is wrong with a request; none where it is good."""
    path, _, query = environ["RAW_URI"].partition("?")
    pairs = [(pair.partition("=")[0], pair.partition("=")[2]) for pair in query.split("&") if pair]
    said = {urllib.parse.unquote(name): urllib.parse.unquote(value) for name, value in pairs}
    header = lambda name: environ.get(name.upper().replace("-", "_"), environ.get("HTTP_" + name.upper().replace("-", "_"), ""))
    if "X-Amz-Signature" in said:
        credential, signed = said["X-Amz-Credential"], said["X-Amz-SignedHeaders"]
        date, given, payload = said["X-Amz-Date"], said["X-Amz-Signature"], "UNSIGNED-PAYLOAD"
        pairs = [(name, value) for name, value in pairs if name != "X-Amz-Signature"]
        lifetime = int(said["X-Amz-Expires"])
        if not 1 <= lifetime <= 604800:
            return "AuthorizationQueryParametersError"
    else:
        auth = header("authorization")
        if not auth.startswith("AWS4-HMAC-SHA256 "):
            return "AccessDenied"
        parts = dict(part.strip().split("=", 1) for part in auth.split(" ", 1)[1].split(","))
        credential, signed, given = parts["Credential"], parts["SignedHeaders"], parts["Signature"]
        date, payload, lifetime = header("x-amz-date"), header("x-amz-content-sha256"), 900
    key, scope = credential.split("/", 1)
    if key != KEY:
        return "InvalidAccessKeyId"
    begun = datetime.datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc)
    age = (datetime.datetime.now(datetime.timezone.utc) - begun).total_seconds()
    if not -900 <= age <= lifetime:
        return "AccessDenied"
    lines = "".join(f"{name}:{' '.join(header(name).split())}\n" for name in signed.split(";"))
    canonical = "\n".join(
        [environ["REQUEST_METHOD"], path, "&".join(f"{n}={v}" for n, v in sorted(pairs)), lines, signed, payload]
    )
    return None if hmac.compare_digest(signature(date, scope, canonical), given) else "SignatureDoesNotMatch"


class Checked:
    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        if not environ["RAW_URI"].startswith("/moto-api") and (code := fault(environ)):
            body = f"<Error><Code>{code}</Code></Error>".encode()
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("403 Forbidden", [("content-type", "application/xml"), ("content-length", str(len(body)))])
            return [body]
        return self.app(environ, start_response)


if __name__ == "__main__":
    app = Checked(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    print(server.server_port, flush=True)
    sys.stderr = open("/dev/null", "w")
    server.serve_forever()
