"""The attachment store in a bucket. Prints a line a case and a closing count."""

import hashlib
import hmac
import json
import os
import pathlib
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import boto3
from botocore.config import Config

import server

BINARY = pathlib.Path(sys.argv[1]).resolve()
SIGNING = b"a-secret-for-signed-forms"
TOKEN = "test-token-0123456789"
BOUNDARY = "form7MA4YWxkTrZu0gW"
LIFETIME = 5
cases = 0


def case(name, right, seen=""):
    global cases
    if not right:
        sys.exit(f"WRONG  {name}  {seen}")
    cases += 1
    print(f"ok  {name}", flush=True)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def call(url, data=None, headers={}, method=None):
    request = urllib.request.Request(url, data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read(), dict(answer.headers.items())
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers.items())


def form(name, data):
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="f"; filename="{name}"\r\nContent-Type: application/pdf\r\n\r\n'
    return head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


def post(gateway, body, signature=None):
    signature = signature or hmac.new(SIGNING, body, hashlib.sha256).hexdigest()
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    status, answer, _ = call(f"{gateway.public}/hooks/signed", body, {"content-type": kind, "x-signature": signature})
    return status, json.loads(answer)


class Gateway:
    def __init__(self, folder, upstream, store, links):
        self.port, admin = free_port(), free_port()
        self.public, self.admin = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{admin}/api/v1"
        file = pathlib.Path(folder) / f"{links}.toml"
        file.write_text(f"""
[server]
listen = "127.0.0.1:{self.port}"
public_url = "{self.public}"
[admin]
listen = "127.0.0.1:{admin}"
token = "literal:{TOKEN}"
[upstream]
base_url = "{upstream}"
api_key = "literal:a-key-of-the-upstream"
[inbox]
url = "sqlite:{links}/inbox.db"
keep = "1s"
[attachments]
store = "s3://files/in/box"
links = "{links}"
link_lifetime = "{LIFETIME}s"
keep = "1s"
settings = {{ endpoint = "{store}", region = "{server.REGION}", access_key_id = "{server.KEY}", secret_access_key = "env:STORE_SECRET" }}
[sources.signed]
provider = "custom"
secrets = ["literal:{SIGNING.decode()}"]
agent = "a"
verify = {{ scheme = "hmac", algorithm = "sha256", signature = "header:X-Signature" }}
files = {{ max_upload = "64MiB", max_file = "64MiB" }}
""")
        environment = {**os.environ, "STORE_SECRET": server.SECRET}
        self.log = open(pathlib.Path(folder) / f"{links}.log", "w+")
        self.child = subprocess.Popen([BINARY, "serve", "--config", file], env=environment, stderr=self.log)
        for _ in range(200):
            try:
                if call(f"{self.admin}/health/ready")[0] == 200:
                    return
            except OSError:
                time.sleep(0.05)
        sys.exit("the gateway does not start")

    def ask(self, path, method=None):
        status, body, _ = call(f"{self.admin}{path}", headers={"authorization": f"Bearer {TOKEN}"}, method=method)
        return json.loads(body) if status == 200 else status

    def settled(self, event):
        for _ in range(200):
            found = self.ask(f"/events/{event}")
            if all(delivery["state"] not in ("pending", "leased") for delivery in found["deliveries"]):
                return found
            time.sleep(0.05)
        sys.exit(f"{event} does not end")


def main(folder, children):
    here = pathlib.Path(__file__).parent
    moto = subprocess.Popen([sys.executable, here / "server.py"], stdout=subprocess.PIPE, text=True)
    children.append(moto)
    store = f"http://127.0.0.1:{moto.stdout.readline().strip()}"
    stub = subprocess.Popen([BINARY, "stub", "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
    children.append(stub)
    upstream = stub.stdout.readline().split()[-1]
    s3 = boto3.client("s3", endpoint_url=store, region_name=server.REGION, aws_access_key_id=server.KEY,
                      aws_secret_access_key=server.SECRET,
                      config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"))
    s3.create_bucket(Bucket="files", CreateBucketConfiguration={"LocationConstraint": server.REGION})
    keys = lambda: [found["Key"] for found in s3.list_objects_v2(Bucket="files").get("Contents", [])]
    gateway = Gateway(folder, upstream, store, "auto")
    children.append(gateway.child)
    links = lambda: [link for run in json.loads(call(f"{upstream}/_stub/runs")[1])["runs"] for link in run["body"]["input"]["files"]]

    for size in (100_000, 12 * 1024 * 1024, 0):
        data = random.Random(size).randbytes(size)
        status, answer = post(gateway, form("Q1 é.pdf", data))
        case(f"{size} bytes are taken", status == 202, answer)
        result = gateway.settled(answer["event_id"])["deliveries"][0]["answer"]["result"]
        case(f"{size} bytes are fetched from the bucket, whole", hashlib.sha256(data).hexdigest() in result, result)
    case("each lies under the prefix, by no name of its sender's", len(keys()) == 3 and all(
        key.startswith("in/box/") and key.endswith(".pdf") and "Q1" not in key for key in keys()), keys())

    body = form("x.pdf", random.Random(7).randbytes(12 * 1024 * 1024))
    signature = hmac.new(SIGNING, body, hashlib.sha256).hexdigest()
    flipped = bytearray(body)
    flipped[len(body) // 2] ^= 1
    status, answer = post(gateway, bytes(flipped), signature)
    case("a flipped byte is refused", status == 401, answer)
    time.sleep(1)
    begun = s3.list_multipart_uploads(Bucket="files").get("Uploads", [])
    case("and leaves no object and no part", len(keys()) == 3 and not begun, (keys(), begun))

    status, answer = post(gateway, form("late.pdf", b"late"))
    gateway.settled(answer["event_id"])
    made, link = time.monotonic(), links()[-1]
    case("the link is the bucket's own and ends with the kind", link.startswith(store) and link.split("?")[0].endswith(".pdf"), link)
    status, data, headers = call(link)
    case("it leads to the file", (status, data) == (200, b"late"), status)
    case("which is saved and not shown", headers["content-disposition"] == "attachment; filename*=UTF-8''late.pdf", headers)
    at = link.index("X-Amz-Signature=") + len("X-Amz-Signature=")
    wrong = link[:at] + ("0" if link[at] != "0" else "1") + link[at + 1:]
    case("with another signature it leads nowhere", call(wrong)[0] == 403)
    other = next(key for key in keys() if key not in link)
    case("nor for another file", call(f"{store}/files/{other}?{link.split('?')[1]}")[0] == 403)
    case("nor without one", call(link.split("?")[0])[0] == 403)
    time.sleep(max(0, made + LIFETIME + 1.5 - time.monotonic()))
    case("nor when its time is over", call(link)[0] == 403)

    listed = gateway.ask("/attachments")["items"]
    case("files are listed", len(listed) == 4 and listed[0]["name"] == "late.pdf", listed)
    gateway.ask(f"/attachments/{listed[0]['id']}", "DELETE")
    case("one is deleted by hand", len(keys()) == 3, keys())

    own = Gateway(folder, upstream, store, "gateway")
    children.append(own.child)
    data = random.Random(9).randbytes(300_000)
    status, answer = post(own, form("own.pdf", data))
    own.settled(answer["event_id"])
    link = links()[-1]
    case("the gateway serves a bucket's files under its own links", link.startswith(f"{own.public}/files/"), link)
    case("whole", call(link)[1] == data)
    status, part, _ = call(link, headers={"range": "bytes=100-199"})
    case("and in part", (status, part) == (206, data[100:200]), status)

    deadline = time.monotonic() + 100
    while keys() and time.monotonic() < deadline:
        time.sleep(1)
    case("what no event refers to is removed when its time is over", not keys(), keys())
    case("and is listed no more", not gateway.ask("/attachments")["items"])
    print(f"{cases} cases, all right")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        children = []
        try:
            main(folder, children)
        finally:
            for child in children:
                child.kill()
