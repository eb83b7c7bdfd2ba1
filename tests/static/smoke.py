#!/usr/bin/env python3
"""Starts weir without a config by the command given, and checks that the demo answers."""

import json
import os
import select
import signal
import subprocess
import sys
import time
import urllib.request

LIMIT = 30


def address(child):
    """The address that it prints in its first line."""
    end = time.monotonic() + LIMIT
    line = b""
    while b"\n" not in line:
        ready, _, _ = select.select([child.stdout], [], [], max(0, end - time.monotonic()))
        piece = os.read(child.stdout.fileno(), 4096) if ready else b""
        if not piece:
            sys.exit(f"smoke: it tells no address, but {line!r}")
        line += piece
    start = line.index(b"127.0.0.1:")
    digits = b"0123456789.:"
    return bytes(sign for sign in line[start:].split()[0].rstrip(b"/") if sign in digits).decode()


def ask(url, body=None):
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None,
                                     {"content-type": "application/json"})
    # No proxy from the environment for loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=LIMIT) as answer:
        return answer.read().decode()


def check(base):
    ask(base + "/healthz")
    chat = {"model": "gpt-5", "messages": [{"role": "user", "content": "Hello?"}]}
    whole = json.loads(ask(base + "/v1/chat/completions", chat))
    text = whole["choices"][0]["message"]["content"]
    assert "Hello?" in text, whole
    events = ask(base + "/v1/chat/completions", {**chat, "stream": True}).split("\n\n")
    assert events[-2] == "data: [DONE]", events[-2:]
    said = ""
    for event in events[:-2]:
        for choice in json.loads(event.removeprefix("data: "))["choices"]:
            said += choice["delta"].get("content") or ""
    assert said == text, (said, text)


def main():
    child = subprocess.Popen([*sys.argv[1:], "--listen", "127.0.0.1:0"], env={
        "PATH": os.environ.get("PATH", "")}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        check("http://" + address(child))
        child.send_signal(signal.SIGTERM)
        code = child.wait(LIMIT)
        assert code == 0, f"it ended with {code} after SIGTERM"
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()


if __name__ == "__main__":
    main()
