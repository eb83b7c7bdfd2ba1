#!/usr/bin/env python3
"""Counts what a request costs weir: `make cost`.

Instructions in user space by callgrind, and switches between threads by the kernel's own count.
Both are the same on a busy machine as on a quiet one, to within a few in a hundred, which times are
not. Each figure is the difference of two runs that differ in the number of requests only, so what
starting and stopping take is not in it.

WEIR           the weir to count (target/release/weir)
COST_TABLE     what is compared with (tests/bench/cost.json); the key is COST_BUILD
COST_BUILD     the name of the build in the table: glibc or static (glibc)
COST_ONLY      shapes by a part of their names, with commas between
COST_WRITE     1: writes the table instead of comparing

Leaves with 1 if a shape takes more than 5 % more instructions than the table says.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WEIR = os.environ.get("WEIR") or str(ROOT / "target/release/weir")
TABLE = Path(os.environ.get("COST_TABLE") or ROOT / "tests/bench/cost.json")
BUILD = os.environ.get("COST_BUILD", "glibc")
ALLOWED = 1.05
EVENTS = 20
# No wait of this script is longer, in seconds.
LIMIT = 120


def completion():
    message = {"role": "assistant", "content": "Hello there, this is an answer.", "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19}
    whole = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m"}
    return json.dumps({**whole, "choices": [choice], "usage": usage})


def chunk(delta, finish=None):
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return "data: " + json.dumps({**head, "choices": [choice]}) + "\n\n"


def chat_stream(count):
    yield chunk({"role": "assistant", "content": ""})
    for number in range(count):
        yield chunk({"content": f" word{number}"})
    yield chunk({}, "stop")
    yield "data: [DONE]\n\n"


def named(event):
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"


def claude(count):
    usage = {"input_tokens": 12, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": []}
    message.update(stop_reason=None, stop_sequence=None, usage=usage)
    yield named({"type": "message_start", "message": message})
    block = {"type": "text", "text": ""}
    yield named({"type": "content_block_start", "index": 0, "content_block": block})
    for number in range(count - 5):
        delta = {"type": "text_delta", "text": f" word{number}"}
        yield named({"type": "content_block_delta", "index": 0, "delta": delta})
    yield named({"type": "content_block_stop", "index": 0})
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    yield named({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 7}})
    yield named({"type": "message_stop"})


def gemini(count):
    for number in range(count):
        candidate = {"index": 0, "content": {"role": "model", "parts": [{"text": f" word{number}"}]}}
        if number == count - 1:
            candidate["finishReason"] = "STOP"
        usage = {"promptTokenCount": 12, "candidatesTokenCount": number, "totalTokenCount": 12 + number}
        event = {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini"}
        yield f"data: {json.dumps(event)}\r\n\r\n"


def agent():
    """A request like a coding agent's: a long system text, tools, some turns of calls."""
    parameter = {"type": "string", "description": "What it is good for, in a sentence of usual length."}
    tools = [
        {
            "type": "function",
            "function": {
                "name": f"tool_{number}",
                "description": "Does what it says. " * 60,
                "parameters": {
                    "type": "object",
                    "properties": {f"p{at}": parameter for at in range(8)},
                    "required": ["p0", "p1"],
                },
            },
        }
        for number in range(20)
    ]
    messages = [{"role": "system", "content": "You are careful and say why. " * 700}]
    messages.append({"role": "user", "content": "Mend the test that fails."})
    for turn in range(8):
        call = {"name": "tool_1", "arguments": json.dumps({"p0": "a" * 200, "p1": str(turn)})}
        calls = [{"id": f"call_{turn}", "type": "function", "function": call}]
        messages.append({"role": "assistant", "content": None, "tool_calls": calls})
        result = "a line of output\n" * 100
        messages.append({"role": "tool", "tool_call_id": f"call_{turn}", "content": result})
    return {"messages": messages, "tools": tools}


def say(text, **more):
    return {"messages": [{"role": "user", "content": text}], **more}


JSON, SSE = "application/json", "text/event-stream"
# Name, upstream, request, answer's type, its pieces, and how often it is asked in the two runs.
# Of streams the two runs differ in the number of chunks instead.
SHAPES = [
    ("small relay", "box", say("Hello"), JSON, lambda n: [completion()], (100, 500)),
    ("200 KB chat", "box", say("word " * 40_000), JSON, lambda n: [completion()], (10, 60)),
    ("agent 90 KB, relay", "box", agent(), JSON, lambda n: [completion()], (10, 60)),
    ("agent 90 KB, Claude", "claude", agent(), SSE, lambda n: claude(EVENTS), (10, 60)),
    ("agent 90 KB, Gemini", "gemini", agent(), SSE, lambda n: gemini(EVENTS), (10, 60)),
    ("whole, 20 events, Claude", "claude", say("Hello"), SSE, lambda n: claude(EVENTS), (50, 250)),
    ("whole, 20 events, Gemini", "gemini", say("Hello"), SSE, lambda n: gemini(EVENTS), (50, 250)),
    ("relayed chunk", "box", say("Hello", stream=True), SSE, chat_stream, (100, 1100)),
]
MODELS = {"box": "box/m", "claude": "claude/claude-sonnet-4-5", "gemini": "gemini/gemini-2.5-flash"}


class Upstream:
    """Answers every request on loopback with what it was given, each piece in a write of its own."""

    def __init__(self, kind, pieces):
        self.kind = kind
        self.pieces = [piece.encode() for piece in pieces]
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, connection.makefile("rb") as file:
            while read_request(file):
                head = f"HTTP/1.1 200 OK\r\nContent-Type: {self.kind}\r\n"
                if self.kind == JSON:
                    body = b"".join(self.pieces)
                    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                    continue
                # The pieces together, so that how they arrive is no matter of chance; those of
                # long streams one by one, as a model gives them.
                framed = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in self.pieces]
                head = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode()
                if len(framed) > 2 * EVENTS:
                    connection.sendall(head)
                    for piece in framed:
                        connection.sendall(piece)
                    connection.sendall(b"0\r\n\r\n")
                else:
                    connection.sendall(head + b"".join(framed) + b"0\r\n\r\n")


def read_request(file):
    length = 0
    line = file.readline()
    if not line:
        return False
    while line not in (b"\r\n", b""):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
        line = file.readline()
    file.read(length)
    return True


def read_answer(file):
    status = int(file.readline().split()[1])
    length, chunked = 0, False
    while (line := file.readline().lower()) != b"\r\n":
        if line.startswith(b"content-length:"):
            length = int(line.split(b":")[1])
        chunked |= line.startswith(b"transfer-encoding:")
    if not chunked:
        return status, file.read(length)
    body = b""
    while size := int(file.readline(), 16):
        body += file.read(size)
        file.readline()
    file.readline()
    return status, body


class Weir:
    def __init__(self, folder, upstream, under=()):
        upstreams = [
            {"name": "box", "format": "openai", "models": ["*"], "discover": False},
            {"name": "claude", "format": "anthropic", "models": ["claude-*"]},
            {"name": "gemini", "format": "gemini", "models": ["gemini-*"]},
        ]
        for one in upstreams:
            version = {"openai": "/v1", "anthropic": "/v1", "gemini": "/v1beta"}[one["format"]]
            one.update(base_url=f"http://127.0.0.1:{upstream.port}{version}", keys=["key-of-the-upstream"])
        config = {"listen": "127.0.0.1:0", "workers": 4, "upstreams": upstreams}
        (folder / "weir.json").write_text(json.dumps(config))
        command = [*under, WEIR, "--config", str(folder / "weir.json")]
        self.log = open(folder / "log", "wb")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log)
        line = self.process.stdout.readline().decode()
        self.port = int(re.search(r":(\d+)\s*$", line).group(1))

    def ask(self, body, count):
        request = json.dumps(body).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(request)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            file = connection.makefile("rb")
            for _ in range(count):
                connection.sendall(head.encode() + request)
                status, answer = read_answer(file)
                if status != 200 or b'"error"' in answer:
                    raise SystemExit(f"cost: {status} {answer[:300]!r}")

    def switches(self):
        total = 0
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            text = (task / "status").read_text()
            total += sum(int(n) for n in re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", text, re.M))
        return total

    def end(self):
        self.process.terminate()
        self.process.wait(LIMIT)
        self.log.close()


def instructions(shape, count):
    name, upstream, body, kind, pieces, counts = shape
    is_stream = body.get("stream")
    scripted = Upstream(kind, list(pieces(count)))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        under = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", "-q"]
        weir = Weir(folder, scripted, under)
        # What happens with the first requests only is not counted.
        weir.ask({**body, "model": MODELS[upstream]}, 1 if is_stream else count)
        weir.end()
        text = (folder / "out").read_text(errors="replace")
        return int(re.search(r"^(?:totals|summary): (\d+)", text, re.M).group(1))


def switches(shape):
    name, upstream, body, kind, pieces, counts = shape
    is_stream = body.get("stream")
    scripted = Upstream(kind, list(pieces(counts[1])))
    with tempfile.TemporaryDirectory() as folder:
        weir = Weir(Path(folder), scripted)
        body = {**body, "model": MODELS[upstream]}
        weir.ask(body, 1 if is_stream else counts[0])
        before = weir.switches()
        weir.ask(body, 1 if is_stream else counts[1])
        after = weir.switches()
        weir.end()
        return (after - before) / counts[1]


def main():
    if not shutil.which("valgrind"):
        raise SystemExit("cost: needs valgrind; on Debian: apt-get install valgrind")
    only = [word for word in os.environ.get("COST_ONLY", "").split(",") if word]
    kept = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    before = kept.get(BUILD, {})
    measured, worse = {}, []
    print(f"{'':26} {'instructions':>12} {'before':>12} {'':>7} {'switches':>9}")
    for shape in SHAPES:
        name, counts = shape[0], shape[5]
        if only and not any(word in name for word in only):
            continue
        few, many = (instructions(shape, count) for count in counts)
        each = (many - few) / (counts[1] - counts[0])
        measured[name] = round(each)
        known = before.get(name)
        ratio = f"{each / known - 1:+.1%}" if known else ""
        print(f"{name:26} {each:12,.0f} {known or 0:12,} {ratio:>7} {switches(shape):9.2f}", flush=True)
        if known and each > ALLOWED * known:
            worse.append(name)
    if os.environ.get("COST_WRITE") == "1":
        kept[BUILD] = {**before, **measured}
        TABLE.write_text(json.dumps(kept, indent=1) + "\n")
    elif worse:
        raise SystemExit(f"cost: more than {ALLOWED - 1:.0%} above the table: {', '.join(worse)}")


if __name__ == "__main__":
    main()
