"""A scripted upstream that speaks Chat Completions, Responses, Anthropic Messages and Gemini.

What it answers is decided by a tag in the prompt, `#scenario:unique`, so that every client can
ask for it through whatever it does to a request. It keeps all that it received under `unique`,
and tells it under /control/, together with the moment at which a caller hung up.

Standard library only. Run by itself it listens on the port given and prints its address.
"""

import base64
import hashlib
import json
import re
import select
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

TAG = re.compile(r"#([a-z0-9]+):([A-Za-z0-9_-]+)")

PLAIN = "Hello from the upstream."
# Letters of two, three and four bytes, so that a cut inside one would show.
PIECES = ["Grüße", " – one,", " two,", " three", " 🎉."]
CITY = {"city": "Oslo", "population": 709000}
CALLS = [("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Lima"})]
PROMPT_TOKENS, CACHED_TOKENS, COMPLETION_TOKENS = 11, 3, 7
# What a coding agent takes for the new text of a file.
EDIT = "hello.py\n```\nprint('hello from the upstream')\n```\n"
# Signed like Gemini signs, and sealed like OpenAI seals: base64.
SIGNATURE = base64.b64encode(b"signature of the first call").decode()
HOLD_LIMIT = 5.0
# Three intervals of heartbeats.
KEEPALIVE_MS, SILENCE = 50, 0.15
SLOW_PIECES, SLOW_PAUSE = 200, 0.1
# Models that are not to be had at /chat/completions, and what is said there.
RESPONSES_ONLY = "reasoner-"
ELSEWHERE = "This model is only supported in v1/responses and not in v1/chat/completions."
# What a request to /responses may hold; the vendor refuses everything else.
RESPONSES_FIELDS = set(
    "include input instructions max_output_tokens metadata model parallel_tool_calls prompt_cache_key "
    "reasoning safety_identifier service_tier store stream stream_options temperature text "
    "tool_choice tools top_logprobs top_p user".split()
)


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


class Asked:
    """What one request asks for, whatever its format."""

    def __init__(self, format, model, stream, body):
        self.format, self.model, self.stream, self.body = format, model, stream, body
        self.texts, self.system, self.images, self.results = [], [], [], []
        self.tools, self.schema, self.signatures = [], None, []
        getattr(self, "read_" + format)(body)
        found = [match for text in self.system + self.texts for match in TAG.findall(text)]
        self.scenario, self.unique = found[-1] if found else ("plain", "untagged")

    def image(self, mime, data):
        raw = base64.b64decode(data)
        self.images.append(f"{mime} {len(raw)} {hashlib.sha256(raw).hexdigest()[:8]}")

    def read_openai(self, body):
        for message in body.get("messages", []):
            content = message.get("content") or ""
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            for part in parts:
                if part["type"] == "text":
                    {
                        "user": self.texts,
                        "tool": self.results,
                        "system": self.system,
                        "developer": self.system,
                    }.get(message["role"], []).append(part["text"])
                elif part["type"] == "image_url":
                    head, data = part["image_url"]["url"].split(",", 1)
                    self.image(head.removeprefix("data:").split(";")[0], data)
        self.tools = [tool["function"]["name"] for tool in body.get("tools", [])]
        form = body.get("response_format") or {}
        self.schema = form.get("json_schema", {}).get("schema")
        if form.get("type") == "json_object":
            self.schema = {}

    def read_responses(self, body):
        if "instructions" in body:
            self.system.append(body["instructions"])
        items = body["input"]
        for item in [{"role": "user", "content": items}] if isinstance(items, str) else items:
            if item.get("type") == "function_call_output":
                output = item["output"]
                if not isinstance(output, str):
                    output = "".join(part["text"] for part in output)
                self.results.append(output)
            elif item.get("type") == "reasoning":
                self.signatures.append(item["encrypted_content"])
            elif item.get("role") in ("user", "developer", "system"):
                texts = self.texts if item["role"] == "user" else self.system
                content = item["content"]
                if isinstance(content, str):
                    content = [{"type": "input_text", "text": content}]
                for part in content:
                    if part["type"] == "input_text":
                        texts.append(part["text"])
                    else:
                        head, data = part["image_url"].split(",", 1)
                        self.image(head.removeprefix("data:").split(";")[0], data)
        self.tools = [tool["name"] for tool in body.get("tools", [])]
        form = body.get("text", {}).get("format", {})
        self.schema = form.get("schema", {} if form.get("type") == "json_object" else None)

    def read_anthropic(self, body):
        system = body.get("system", [])
        parts = [{"text": system}] if isinstance(system, str) else system
        self.system = [part["text"] for part in parts]
        for message in body["messages"]:
            content = message["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            for part in parts:
                if part["type"] == "text" and message["role"] == "user":
                    self.texts.append(part["text"])
                elif part["type"] == "image":
                    self.image(part["source"]["media_type"], part["source"]["data"])
                elif part["type"] == "tool_result":
                    inner = part.get("content", "")
                    if not isinstance(inner, str):
                        inner = "".join(piece["text"] for piece in inner)
                    self.results.append(inner)
        self.tools = [tool["name"] for tool in body.get("tools", [])]
        self.schema = (body.get("output_config") or {}).get("format", {}).get("schema")

    def read_gemini(self, body):
        instruction = body.get("systemInstruction") or {}
        self.system = [part["text"] for part in instruction.get("parts", [])]
        for content in body["contents"]:
            for part in content["parts"]:
                if "text" in part and content["role"] == "user":
                    self.texts.append(part["text"])
                elif "inlineData" in part:
                    self.image(part["inlineData"]["mimeType"], part["inlineData"]["data"])
                elif "functionResponse" in part:
                    response = part["functionResponse"]["response"]
                    known = response.get("result", response.get("output"))
                    self.results.append(known if isinstance(known, str) else json.dumps(response))
                if "thoughtSignature" in part:
                    self.signatures.append(part["thoughtSignature"])
        for tool in body.get("tools", []):
            self.tools += [call["name"] for call in tool.get("functionDeclarations", [])]
        config = body.get("generationConfig") or {}
        self.schema = config.get("responseJsonSchema", config.get("responseSchema"))
        if self.schema is None and config.get("responseMimeType") == "application/json":
            self.schema = {}


class Answer:
    """Texts in pieces and tool calls. A piece may be a function to wait in."""

    def __init__(self, pieces=(), calls=()):
        self.pieces, self.calls = list(pieces), list(calls)


class Wire:
    """The shapes of one format; `event` frames what goes into a stream."""

    usage_of_chat = {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": COMPLETION_TOKENS,
        "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
        "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
    }

    def __init__(self, asked):
        self.asked, self.count = asked, 0

    def named(self, kind):
        self.count += 1
        return f"{kind}_{self.asked.unique}_{len(self.asked.results)}_{self.count}"


class OpenAi(Wire):
    def whole(self, answer):
        calls = [
            {
                "id": self.named("call"),
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(arguments)},
            }
            for name, arguments in answer.calls
        ]
        message = {"role": "assistant", "content": "".join(answer.pieces) or None, "refusal": None}
        if calls:
            message["tool_calls"] = calls
        reason = "tool_calls" if calls else "stop"
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
        return self.base("chat.completion", [choice]) | {"usage": self.usage_of_chat}

    def base(self, kind, choices):
        head = {"id": "chatcmpl-1", "object": kind, "created": 1, "model": self.asked.model}
        return head | {"choices": choices}

    def chunk(self, delta, reason=None):
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        chunk = self.base("chat.completion.chunk", [choice])
        return b"data: " + compact(chunk) + b"\n\n"

    def start(self):
        return self.chunk({"role": "assistant", "content": ""})

    def text(self, piece):
        return self.chunk({"content": piece})

    def calls(self, calls):
        for index, (name, arguments) in enumerate(calls):
            text = json.dumps(arguments)
            function = {"name": name, "arguments": ""}
            call = {"index": index, "id": self.named("call"), "type": "function"}
            yield self.chunk({"tool_calls": [call | {"function": function}]})
            for part in (text[:5], text[5:]):
                call = {"index": index, "function": {"arguments": part}}
                yield self.chunk({"tool_calls": [call]})

    def end(self, answer):
        yield self.chunk({}, "tool_calls" if answer.calls else "stop")
        if (self.asked.body.get("stream_options") or {}).get("include_usage"):
            chunk = self.base("chat.completion.chunk", []) | {"usage": self.usage_of_chat}
            yield b"data: " + compact(chunk) + b"\n\n"
        yield b"data: [DONE]\n\n"

    @staticmethod
    def error(status, message):
        kind = {429: "rate_limit_error", 500: "server_error"}.get(status, "invalid_request_error")
        code = {429: "rate_limit_exceeded"}.get(status)
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}


class Responses(Wire):
    usage = {
        "input_tokens": PROMPT_TOKENS,
        "input_tokens_details": {"cached_tokens": CACHED_TOKENS},
        "output_tokens": COMPLETION_TOKENS,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
    }
    error = staticmethod(OpenAi.error)

    def __init__(self, asked):
        super().__init__(asked)
        self.said, self.items, self.number = [], [], 0

    def response(self, status, output):
        head = {"id": "resp_1", "object": "response", "created_at": 1, "model": self.asked.model}
        usage = self.usage if status == "completed" else None
        tail = {"error": None, "incomplete_details": None, "usage": usage}
        return head | {"status": status, "output": output} | tail

    def message(self, text, status="completed"):
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        head = {"type": "message", "id": "msg_1", "status": status, "role": "assistant"}
        return head | {"content": [part] if text else []}

    def reasoning(self):
        """What a model thought before its calls, sealed: it has to come back with them."""
        head = {"type": "reasoning", "id": self.named("rs"), "summary": []}
        return head | {"encrypted_content": SIGNATURE}

    def call(self, name, arguments):
        head = {"type": "function_call", "id": self.named("fc"), "call_id": self.named("call")}
        return head | {"name": name, "arguments": json.dumps(arguments), "status": "completed"}

    def whole(self, answer):
        output = [self.message("".join(answer.pieces))] if answer.pieces else []
        if answer.calls:
            output += [self.reasoning(), *(self.call(*call) for call in answer.calls)]
        return self.response("completed", output)

    def event(self, kind, **fields):
        data = compact({"type": kind, "sequence_number": self.number} | fields)
        self.number += 1
        return f"event: {kind}\ndata: ".encode() + data + b"\n\n"

    def start(self):
        begun = self.response("in_progress", [])
        kinds = ("response.created", "response.in_progress")
        return b"".join(self.event(kind, response=begun) for kind in kinds)

    def added(self, item):
        return self.event("response.output_item.added", output_index=len(self.items), item=item)

    def done(self, item):
        self.items.append(item)
        index = len(self.items) - 1
        return self.event("response.output_item.done", output_index=index, item=item)

    def of_message(self, kind, **fields):
        place = {"item_id": "msg_1", "output_index": len(self.items), "content_index": 0}
        return self.event(kind, **place, **fields)

    def text(self, piece):
        out = b""
        if not self.said:
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            out += self.added(self.message("", "in_progress"))
            out += self.of_message("response.content_part.added", part=part)
        self.said.append(piece)
        return out + self.of_message("response.output_text.delta", delta=piece, logprobs=[])

    def close(self):
        if self.said:
            text = "".join(self.said)
            self.said = []
            message = self.message(text)
            part = message["content"][0]
            yield self.of_message("response.output_text.done", text=text, logprobs=[])
            yield self.of_message("response.content_part.done", part=part)
            yield self.done(message)

    def calls(self, calls):
        yield from self.close()
        if calls:
            item = self.reasoning()
            yield self.added(item | {"encrypted_content": ""})
            yield self.done(item)
        for name, arguments in calls:
            item = self.call(name, arguments)
            text = item["arguments"]
            place = {"item_id": item["id"], "output_index": len(self.items)}
            yield self.added(item | {"arguments": "", "status": "in_progress"})
            for delta in (text[:5], text[5:]):
                yield self.event("response.function_call_arguments.delta", **place, delta=delta)
            yield self.event("response.function_call_arguments.done", **place, arguments=text)
            yield self.done(item)

    def end(self, answer):
        yield from self.close()
        yield self.event("response.completed", response=self.response("completed", self.items))


class Anthropic(Wire):
    usage = {
        "input_tokens": PROMPT_TOKENS - CACHED_TOKENS,
        "cache_read_input_tokens": CACHED_TOKENS,
        "cache_creation_input_tokens": 0,
        "output_tokens": COMPLETION_TOKENS,
    }

    def whole(self, answer):
        blocks = [{"type": "text", "text": "".join(answer.pieces)}] if answer.pieces else []
        for name, arguments in answer.calls:
            call = {"type": "tool_use", "id": self.named("toolu"), "name": name}
            blocks.append(call | {"input": arguments})
        return self.message(blocks, self.reason(answer), self.usage)

    def reason(self, answer):
        return "tool_use" if answer.calls else "end_turn"

    def message(self, blocks, reason, usage):
        head = {"id": "msg_1", "type": "message", "role": "assistant", "model": self.asked.model}
        tail = {"stop_reason": reason, "stop_sequence": None, "usage": usage}
        return head | {"content": blocks} | tail

    def event(self, kind, **fields):
        data = compact({"type": kind} | fields)
        return f"event: {kind}\ndata: ".encode() + data + b"\n\n"

    def block(self, index, block, deltas):
        yield self.event("content_block_start", index=index, content_block=block)
        for delta in deltas:
            yield self.event("content_block_delta", index=index, delta=delta)
        yield self.event("content_block_stop", index=index)

    def start(self):
        begun = self.message([], None, self.usage | {"output_tokens": 1})
        opening = {"type": "text", "text": ""}
        return (
            self.event("message_start", message=begun)
            + self.event("ping")
            + self.event("content_block_start", index=0, content_block=opening)
        )

    def text(self, piece):
        delta = {"type": "text_delta", "text": piece}
        return self.event("content_block_delta", index=0, delta=delta)

    def calls(self, calls):
        for index, (name, arguments) in enumerate(calls, start=1):
            text = json.dumps(arguments)
            deltas = [
                {"type": "input_json_delta", "partial_json": part}
                for part in ("", text[:5], text[5:])
            ]
            block = {"type": "tool_use", "id": self.named("toolu"), "name": name, "input": {}}
            yield from self.block(index, block, deltas)

    def end(self, answer):
        yield self.event("content_block_stop", index=0)
        delta = {"stop_reason": self.reason(answer), "stop_sequence": None}
        usage = {"output_tokens": COMPLETION_TOKENS}
        yield self.event("message_delta", delta=delta, usage=usage)
        yield self.event("message_stop")

    @staticmethod
    def error(status, message):
        kind = {429: "rate_limit_error", 500: "api_error"}.get(status, "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": message}}


class Gemini(Wire):
    usage = {
        "promptTokenCount": PROMPT_TOKENS,
        "cachedContentTokenCount": CACHED_TOKENS,
        "candidatesTokenCount": COMPLETION_TOKENS - 2,
        "thoughtsTokenCount": 2,
        "totalTokenCount": PROMPT_TOKENS + COMPLETION_TOKENS,
    }

    def reply(self, parts, end):
        candidate = {"content": {"role": "model", "parts": parts}, "index": 0}
        if end:
            candidate["finishReason"] = "STOP"
        head = {"candidates": [candidate], "usageMetadata": self.usage}
        return head | {"modelVersion": self.asked.model, "responseId": "r1"}

    def call_parts(self, calls):
        parts = [{"functionCall": {"name": name, "args": args}} for name, args in calls]
        # Only the first of parallel calls is signed.
        if parts:
            parts[0]["thoughtSignature"] = SIGNATURE
        return parts

    def whole(self, answer):
        parts = [{"text": "".join(answer.pieces)}] if answer.pieces else []
        return self.reply(parts + self.call_parts(answer.calls), True)

    def event(self, reply):
        return b"data: " + compact(reply) + b"\r\n\r\n"

    def start(self):
        return b""

    def text(self, piece):
        return self.event(self.reply([{"text": piece}], False))

    def calls(self, calls):
        for part in self.call_parts(calls):
            yield self.event(self.reply([part], False))

    def end(self, answer):
        yield self.event(self.reply([{"text": ""}], True))

    @staticmethod
    def error(status, message):
        word = {429: "RESOURCE_EXHAUSTED", 500: "INTERNAL"}.get(status, "INVALID_ARGUMENT")
        return {"error": {"code": status, "message": message, "status": word}}


WIRES = {"openai": OpenAi, "responses": Responses, "anthropic": Anthropic, "gemini": Gemini}


class Gone(Exception):
    """The caller hung up."""


class Ledger:
    """What was received, by the unique half of the tag."""

    def __init__(self):
        self.changed = threading.Condition()
        self.seen, self.gone, self.free = {}, {}, {}
        self.bodies = []

    def note(self, asked):
        with self.changed:
            entries = self.seen.setdefault(asked.unique, [])
            entries.append(
                {
                    "at": time.time(),
                    "format": asked.format,
                    "model": asked.model,
                    "stream": asked.stream,
                    "system": asked.system,
                    "results": asked.results,
                    "tools": asked.tools,
                    "schema": asked.schema,
                    "signatures": asked.signatures,
                }
            )
            self.bodies.append((asked.format, asked.model, asked.body))
            return len(entries)

    def note_gone(self, unique):
        with self.changed:
            self.gone.setdefault(unique, time.time())
            self.changed.notify_all()

    def wait_gone(self, unique, limit):
        with self.changed:
            self.changed.wait_for(lambda: unique in self.gone, limit)
            return self.gone.get(unique)

    def hold(self, unique):
        with self.changed:
            return self.free.setdefault(unique, threading.Event())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    # Head and body go out together.
    wbufsize = -1

    def log_message(self, *_):
        pass

    @property
    def ledger(self):
        return self.server.ledger

    def do_GET(self):
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        _, room, verb, unique = (url.path.split("/") + ["", "", ""])[:4]
        if room != "control":
            return self.send_json(404, {"error": {"message": "no such path"}})
        if verb == "seen":
            return self.send_json(200, self.ledger.seen.get(unique, []))
        if verb == "hangup":
            limit = float(query.get("wait", ["3"])[0])
            return self.send_json(200, {"at": self.ledger.wait_gone(unique, limit)})
        if verb == "release":
            self.ledger.hold(unique).set()
            return self.send_json(200, {})
        self.send_json(404, {"error": {"message": "no such control"}})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        url = urlsplit(self.path)
        if url.path == "/v1/chat/completions" and body["model"].startswith(RESPONSES_ONLY):
            return self.send_json(404, OpenAi.error(404, ELSEWHERE))
        elif url.path == "/v1/responses":
            if unknown := body.keys() - RESPONSES_FIELDS:
                message = f"Unknown parameter: {', '.join(sorted(unknown))}."
                return self.send_json(400, OpenAi.error(400, message))
            asked = Asked("responses", body["model"], bool(body.get("stream")), body)
        elif url.path == "/v1/chat/completions":
            asked = Asked("openai", body["model"], bool(body.get("stream")), body)
        elif url.path == "/v1/messages":
            asked = Asked("anthropic", body["model"], bool(body.get("stream")), body)
        elif found := re.fullmatch(r"/v1(?:beta)?/models/([^:]+):(\w+)", url.path):
            stream = found[2] == "streamGenerateContent"
            asked = Asked("gemini", found[1], stream, body)
        else:
            return self.send_json(404, {"error": {"message": f"no such path: {url.path}"}})
        try:
            self.answer(asked, self.ledger.note(asked))
        except (Gone, ConnectionError):
            self.close_connection = True
            self.ledger.note_gone(asked.unique)

    def answer(self, asked, turn):
        wire = WIRES[asked.format](asked)
        if asked.scenario == "limit" and turn == 1:
            error = wire.error(429, "too many requests, come back in a second")
            return self.send_json(429, error, {"Retry-After": "1"})
        if asked.scenario == "fault":
            return self.send_json(500, wire.error(500, "the scripted fault"))
        answer = self.script(asked)
        if not asked.stream:
            for piece in [piece for piece in answer.pieces if callable(piece)]:
                piece()
                answer.pieces.remove(piece)
            return self.send_json(200, wire.whole(answer))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.piece(wire.start())
        for piece in answer.pieces:
            if callable(piece):
                piece()
            else:
                self.piece(wire.text(piece))
        for event in wire.calls(answer.calls):
            self.piece(event)
        for event in wire.end(answer):
            self.piece(event)
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def script(self, asked):
        """What the tag asks for."""
        if asked.images:
            return Answer([f"I see {', '.join(asked.images)}."])
        if asked.scenario == "tools":
            if asked.results:
                return Answer(["The tools say: ", "; ".join(asked.results), "."])
            return Answer([], CALLS)
        if asked.scenario == "json":
            if asked.schema is None and asked.tools:
                return Answer([], [(asked.tools[0], CITY)])
            return Answer([json.dumps(CITY)])
        if asked.scenario == "stream":
            # Nothing more until the test has seen the first piece, and then long enough nothing for
            # the client to see heartbeats.
            waits = [lambda: self.wait_free(asked.unique), lambda: time.sleep(SILENCE)]
            return Answer([PIECES[0], *waits, *PIECES[1:]])
        if asked.scenario in ("edit", "limit") and "hello.py" in str(asked.body):
            return Answer(EDIT.splitlines(keepends=True))
        if asked.scenario == "slow":
            pieces = []
            for number in range(SLOW_PIECES):
                pieces += [f"{number} ", self.wait_slowly]
            return Answer(pieces)
        return Answer([PLAIN])

    def wait_free(self, unique):
        if not self.ledger.hold(unique).wait(HOLD_LIMIT):
            raise Gone

    def wait_slowly(self):
        """A pause that ends at once when the caller hangs up."""
        readable, _, _ = select.select([self.connection], [], [], SLOW_PAUSE)
        if readable and not self.connection.recv(1, socket.MSG_PEEK):
            raise Gone

    def piece(self, data):
        if data:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()

    def send_json(self, status, value, headers=None):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()


class Upstream(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.ledger = Ledger()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def begin(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def handle_error(self, request, address):
        # A script that fails is a fault of the tests, and is seen; a caller who left is not.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, address)


if __name__ == "__main__":
    upstream = Upstream(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    print(upstream.url, flush=True)
    upstream.serve_forever()
