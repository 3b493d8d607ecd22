"""Measures uploads; see `run`."""

import hashlib
import hmac
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

BINARY, MIB, ROUNDS = pathlib.Path(sys.argv[1]).resolve(), int(sys.argv[2]), int(sys.argv[3])
SECRET = b"a-secret-for-signed-forms"
BOUNDARY = "form7MA4YWxkTrZu0gW"
PIECE = os.urandom(1 << 20)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def memory(pid, what):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith(what):
            return int(line.split()[1]) * 1024


def parts():
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="f"; filename="a.bin"\r\n\r\n'.encode()
    yield head
    for _ in range(MIB):
        yield PIECE
    yield f"\r\n--{BOUNDARY}--\r\n".encode()


def sent(port, head):
    """Sends the form and waits for the answer; returns the time it took."""
    with socket.create_connection(("127.0.0.1", port)) as stream:
        begun = time.monotonic()
        stream.sendall(head)
        for part in parts():
            stream.sendall(part)
        if not head:
            stream.shutdown(socket.SHUT_WR)
        answer = stream.recv(4096)
        return time.monotonic() - begun, answer


def plain(folder):
    """A copy from a socket into a file, synced, with nothing in between."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def copy():
            stream, _ = listener.accept()
            buffer = memoryview(bytearray(256 * 1024))
            with open(pathlib.Path(folder) / "plain", "wb", buffering=0) as file:
                while read := stream.recv_into(buffer):
                    file.write(buffer[:read])
                os.fsync(file.fileno())
            stream.sendall(b"done")
            stream.close()
        thread = threading.Thread(target=copy)
        thread.start()
        took, _ = sent(listener.getsockname()[1], b"")
        thread.join()
    os.unlink(pathlib.Path(folder) / "plain")
    return took


def main(folder):
    port, admin = free_port(), free_port()
    config = pathlib.Path(folder) / "sluicegate.toml"
    config.write_text(f"""
[server]
listen = "127.0.0.1:{port}"
public_url = "http://127.0.0.1:{port}"
[admin]
listen = "127.0.0.1:{admin}"
[upstream]
base_url = "http://127.0.0.1:9"
[log]
filter = "warn"
[sources.signed]
provider = "custom"
secrets = ["literal:{SECRET.decode()}"]
agent = "a"
verify = {{ scheme = "hmac", algorithm = "sha256", signature = "header:X-Signature" }}
files = {{ max_upload = "{MIB + 1}MiB", max_file = "{MIB + 1}MiB" }}
""")
    child = subprocess.Popen([BINARY, "serve", "--config", config])
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{admin}/api/v1/health/ready")
                break
            except OSError:
                time.sleep(0.05)
        mac, length = hmac.new(SECRET, digestmod=hashlib.sha256), 0
        for part in parts():
            mac.update(part)
            length += len(part)
        head = (f"POST /hooks/signed HTTP/1.1\r\nHost: h.test\r\nContent-Length: {length}\r\nX-Signature: {mac.hexdigest()}\r\n"
                f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n").encode()
        idle, ratios = memory(child.pid, "VmRSS"), []
        for _ in range(ROUNDS):
            copied = plain(folder)
            took, answer = sent(port, head)
            if not answer.startswith(b"HTTP/1.1 202"):
                sys.exit(f"refused: {answer!r}")
            ratios.append(copied / took)
            print(f"plain copy {MIB / copied:7.0f} MiB/s   gateway {MIB / took:7.0f} MiB/s   ratio {copied / took:.2f}")
        grown = (memory(child.pid, "VmHWM") - idle) / (1 << 20)
        ratio = sorted(ratios)[len(ratios) // 2]
        print(json.dumps({"mib": MIB, "memory_growth_mib": round(grown, 1), "throughput_ratio": round(ratio, 2)}))
        if grown > 32 or ratio < 0.5:
            sys.exit("over the bounds: at most 32 MiB, at least 0.5")
    finally:
        child.terminate()
        child.wait()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=".") as folder:
        main(folder)
