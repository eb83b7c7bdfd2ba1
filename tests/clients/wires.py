"""What the scripted upstream understands and says in each format: one class per format, and `Asked`
for what a request of any of them asks for. Standard library only."""

import base64
import hashlib
import json
import re

TAG = re.compile(r"#([a-z0-9]+):([A-Za-z0-9_-]+)")

PROMPT_TOKENS, CACHED_TOKENS, COMPLETION_TOKENS = 11, 3, 7
# Signed like Gemini signs, and sealed like OpenAI seals: base64.
SIGNATURE = base64.b64encode(b"signature of the first call").decode()


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
        self.tools = [tool["function"]["name"] for tool in body.get("tools") or []]
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
                    output = "".join(part.get("text", "") for part in output)
                self.results.append(output)
            elif item.get("type") == "reasoning":
                self.signatures.append(item["encrypted_content"])
            elif item.get("role") in ("user", "developer", "system"):
                texts = self.texts if item["role"] == "user" else self.system
                content = item.get("content") or []
                if isinstance(content, str):
                    content = [{"type": "input_text", "text": content}]
                for part in content:
                    if part["type"] == "input_text":
                        texts.append(part["text"])
                    elif part["type"] == "input_image":
                        head, data = part["image_url"].split(",", 1)
                        self.image(head.removeprefix("data:").split(";")[0], data)
        self.tools = [tool["name"] for tool in body.get("tools") or [] if "name" in tool]
        form = (body.get("text") or {}).get("format") or {}
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
                        inner = "".join(piece.get("text", "") for piece in inner)
                    self.results.append(inner)
                elif part["type"] == "thinking":
                    self.signatures.append(part["signature"])
        self.tools = [tool["name"] for tool in body.get("tools") or []]
        self.schema = ((body.get("output_config") or {}).get("format") or {}).get("schema")

    def read_gemini(self, body):
        instruction = body.get("systemInstruction") or {}
        self.system = [part["text"] for part in instruction.get("parts", [])]
        for content in body["contents"]:
            for part in content["parts"]:
                if "text" in part and content.get("role", "user") == "user":
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
    """Texts in pieces and tool calls. A piece may be a function to wait in. A thought, if there is
    one, comes before them."""

    def __init__(self, pieces=(), calls=(), thought=""):
        self.pieces, self.calls, self.thought = list(pieces), list(calls), thought


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

    def thought(self, text):
        """What a stream says of a thought."""
        return b""

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

    def thought(self, text):
        return self.chunk({"reasoning_content": text}) if text else b""

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

    def __init__(self, asked):
        super().__init__(asked)
        # How many are done, and whether one of text is open.
        self.blocks, self.opened = 0, False

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
        return self.event("message_start", message=begun) + self.event("ping")

    def thought(self, text):
        if not text:
            return b""
        block = {"type": "thinking", "thinking": "", "signature": ""}
        said = {"type": "thinking_delta", "thinking": text}
        signed = {"type": "signature_delta", "signature": SIGNATURE}
        self.blocks = 1
        return b"".join(self.block(0, block, [said, signed]))

    def text(self, piece):
        out = b""
        if not self.opened:
            opening = {"type": "text", "text": ""}
            out = self.event("content_block_start", index=self.blocks, content_block=opening)
            self.opened = True
        delta = {"type": "text_delta", "text": piece}
        return out + self.event("content_block_delta", index=self.blocks, delta=delta)

    def close(self):
        if self.opened:
            yield self.event("content_block_stop", index=self.blocks)
            self.opened = False
            self.blocks += 1

    def calls(self, calls):
        yield from self.close()
        for index, (name, arguments) in enumerate(calls, start=self.blocks):
            text = json.dumps(arguments)
            deltas = [
                {"type": "input_json_delta", "partial_json": part}
                for part in ("", text[:5], text[5:])
            ]
            block = {"type": "tool_use", "id": self.named("toolu"), "name": name, "input": {}}
            yield from self.block(index, block, deltas)

    def end(self, answer):
        yield from self.close()
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

    def thought(self, text):
        part = {"text": text, "thought": True}
        return self.event(self.reply([part], False)) if text else b""

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
