"""Holds what weir sends to Claude and Gemini against the official SDKs' own request types.

Every recorded Chat Completions request goes through the built binary to several models of both
providers; what arrives at the upstream must be a request that `anthropic` and `google-genai`
could have made, with no key and no value that they do not know. For Gemini the SDK is then made
to write the same request, and must write the same JSON. The requests that the clients' own tests
led to are held to the same, and so are those in tests/golden.

The recordings are in the folder that WEIR_RECORDINGS names, else in ../shared/recordings beside
the checkout; without them only the others are looked at. Exits 1 when something did
not fit, and leaves its counts in target/clients/validate.json.
"""

import base64
import collections
import importlib
import json
import os
import pkgutil
import re
import sys
import tempfile
import threading
import urllib.error
import urllib.request
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anthropic.types
import pydantic
from anthropic.types.message_create_params import (
    MessageCreateParamsNonStreaming,
    MessageCreateParamsStreaming,
)
from google import genai
from google.genai import models as genai_models
from google.genai import types as genai_types
from run import KEY, ROOT, TARGET, Weir
from typing_extensions import is_typeddict
from wires import WIRES, Answer, Asked

CLAUDE = "claude-opus-5-5 claude-sonnet-4-5 claude-haiku-4-5 claude-opus-4-1-20250805".split()
GEMINI = "gemini-2.5-pro gemini-2.5-flash gemini-3-pro-preview gemini-4-argon".split()

# What may be refused rather than translated: the message, and why that is honest.
REFUSALS = [
    (r'"file_url" is not a part', "a part of Perplexity's own; the API has `file`"),
    (r"audio input is not supported", "Claude hears nothing"),
    (r"audio output is not supported|does not answer with \"audio\"", "the model speaks no audio"),
    (r"gives one answer at a time", "no `n` there, and fewer answers than asked for are a loss"),
    (r"openrouter:web_search", "a tool that only OpenRouter runs"),
]

# What the types do not have and weir sends all the same, and why. A value of each is checked here.
BESIDE_THE_TYPES = {
    # Still taken by models up to Claude 4.x under this API version; since 1.0 the SDK passes
    # them in `extra_body`. weir leaves them out for the models that refuse them.
    "temperature": lambda value: 0 <= value <= 1,
    "top_p": lambda value: 0 <= value <= 1,
    "top_k": lambda value: isinstance(value, int) and value > 0,
}
# These may never be sent them.
NO_SAMPLING = ["claude-opus-5-5"]


# Anthropic: typed dictionaries


def anthropic_adapters():
    """The SDK's request types, whole and streamed, with unknown keys forbidden throughout."""
    strict = pydantic.ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    for found in pkgutil.walk_packages(anthropic.types.__path__, "anthropic.types."):
        if ".beta" in found.name:
            continue
        for kind in vars(importlib.import_module(found.name)).values():
            # Those with a config of their own are open by intention: JSON Schemas.
            if is_typeddict(kind) and "__pydantic_config__" not in vars(kind):
                kind.__pydantic_config__ = strict
    kinds = (MessageCreateParamsNonStreaming, MessageCreateParamsStreaming)
    return [pydantic.TypeAdapter(kind) for kind in kinds]


def complaints(error, at=""):
    for problem in error.errors(include_url=False, include_context=False):
        where = ".".join(str(step) for step in problem["loc"])
        given = json.dumps(problem["input"], default=str)[:120]
        yield f"{at}{where}: {problem['msg']} ({given})"


def check_anthropic(adapters, model, body):
    found, rest = [], dict(body)
    for key, fits in BESIDE_THE_TYPES.items():
        if key in rest and (model in NO_SAMPLING or not fits(rest[key])):
            found.append(f"{key}: not for this model, or out of range ({rest[key]})")
        rest.pop(key, None)
    try:
        valid = adapters[bool(body.get("stream"))].validate_python(rest)
    except pydantic.ValidationError as error:
        return found + list(complaints(error))
    exhaust(valid, "", found)
    for number, tool in enumerate(body.get("tools", [])):
        # The SDK's type is `or any object`, which the API is not.
        if "input_schema" in tool and tool["input_schema"].get("type") != "object":
            found.append(f"tools.{number}.input_schema: must be of type object")
    return found


def exhaust(value, at, found):
    """Iterables are only validated as they are read."""
    if isinstance(value, dict):
        for key, inner in value.items():
            exhaust(inner, f"{at}{key}.", found)
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            exhaust(inner, f"{at}{number}.", found)
    elif isinstance(value, pydantic.BaseModel):
        # Blocks of answers may be sent as they came, and their types take any key besides.
        found.append(f"{at[:-1]}: fits only as a block of an answer ({value.model_extra})")
    elif hasattr(value, "__next__"):
        try:
            for number, inner in enumerate(value):
                exhaust(inner, f"{at}{number}.", found)
        except pydantic.ValidationError as error:
            found += complaints(error, at)


# Gemini: models that forbid unknown keys by themselves

# What stands beside `generationConfig`, and is in the SDK's config with the rest.
BESIDE = (
    "systemInstruction tools toolConfig safetySettings cachedContent serviceTier store labels "
    "continuationToken"
).split()


def check_gemini(client, model, body):
    config = dict(body.get("generationConfig", {}))
    unknown = [key for key in body if key not in [*BESIDE, "contents", "generationConfig"]]
    twice = [key for key in config if key in BESIDE]
    if unknown or twice:
        return [f"keys out of place: {unknown + twice}"]
    config |= {key: body[key] for key in BESIDE if key in body}
    with warnings.catch_warnings():
        # An unknown value of an enumeration is only a warning to the SDK.
        warnings.simplefilter("error")
        try:
            asked = genai_types._GenerateContentParameters(
                model=model,
                contents=[genai_types.Content.model_validate(c) for c in body["contents"]],
                config=genai_types.GenerateContentConfig.model_validate(config),
            )
            written = genai_models._GenerateContentParameters_to_mldev(client, asked)
        except pydantic.ValidationError as error:
            return list(complaints(error))
        except (UserWarning, ValueError) as error:
            return [str(error)]
    written = {key: value for key, value in written.items() if not key.startswith("_")}
    if not written.get("generationConfig"):
        # The SDK writes it even when it is empty.
        written.pop("generationConfig", None)
    return list(differences(json.loads(json.dumps(written, default=plain)), body, ""))


def plain(value):
    """What the SDK still holds as bytes or as a model of its own."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.model_dump(mode="json", by_alias=True, exclude_none=True)


def differences(written, sent, at):
    if isinstance(written, dict) and isinstance(sent, dict):
        for key in {**written, **sent}:
            if key not in written:
                yield f"{at}{key}: the SDK would not send it ({json.dumps(sent[key])[:120]})"
            elif key not in sent:
                yield f"{at}{key}: the SDK would send it too ({json.dumps(written[key])[:120]})"
            else:
                yield from differences(written[key], sent[key], f"{at}{key}.")
    elif isinstance(written, list) and isinstance(sent, list) and len(written) == len(sent):
        if at == "tools.":
            # The SDK puts functions last; the order among kinds of tools means nothing.
            written, sent = sorted(written, key=sorted), sorted(sent, key=sorted)
        for number, pair in enumerate(zip(written, sent)):
            yield from differences(*pair, f"{at}{number}.")
    elif at.endswith("thinkingLevel.") and written == str(sent).upper():
        # The REST documents write it small and the SDK large: both are taken.
        return
    elif written != sent and not same_bytes(written, sent):
        yield f"{at[:-1]}: sent {json.dumps(sent)[:80]}, the SDK writes {json.dumps(written)[:80]}"


def same_bytes(one, other):
    """The SDK writes base64 in the alphabet for URLs."""
    texts = isinstance(one, str) and isinstance(other, str)
    table = str.maketrans("-_", "+/", "=")
    return texts and one.translate(table) == other.translate(table)


# Bodies that must not pass, so that a judge who has fallen asleep is noticed

TOLD = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
ASKED = {"model": "claude-opus-5-5", "max_tokens": 1, "messages": TOLD}
CALL = {"type": "tool_use", "id": "i", "name": "f", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "i"}
SAID = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
WRONG = {
    "anthropic": [
        ASKED | {"n": 1},
        ASKED | {"temperature": 0.5},
        ASKED | {"stream": "yes"},
        ASKED | {"tool_choice": {"type": "required"}},
        ASKED | {"thinking": {"type": "adaptive", "budget": 1}},
        ASKED | {"tools": [{"name": "f", "input_schema": {"type": "string"}}]},
        ASKED | {"tools": [{"name": "f", "input_schema": {"type": "object"}, "parameters": {}}]},
        ASKED | {"output_config": {"format": {"type": "json_schema", "schema": {}, "name": "x"}}},
        ASKED | {"messages": [{"role": "user", "content": [{"type": "text", "text": "", "x": 1}]}]},
        ASKED | {"messages": [{"role": "user", "content": [CALL | {"strict": True}]}]},
        ASKED | {"messages": [{"role": "user", "content": [RESULT | {"content": [{"text": ""}]}]}]},
        ASKED | {"messages": [{"role": "user", "content": [RESULT | {"name": "f"}]}]},
        ASKED | {"messages": [{"role": "tool", "content": "x"}]},
        {"model": "claude-opus-5-5", "messages": TOLD},
    ],
    "gemini": [
        SAID | {"model": "gemini-2.5-pro"},
        SAID | {"generationConfig": {"n": 1}},
        SAID | {"generationConfig": {"tools": []}},
        SAID | {"generationConfig": {"max_output_tokens": 1}},
        SAID | {"generationConfig": {"thinkingConfig": {"thinkingLevel": "endless"}}},
        SAID | {"generationConfig": {"thinkingConfig": {"effort": "low"}}},
        SAID | {"toolConfig": {"functionCallingConfig": {"mode": "REQUIRED"}}},
        SAID | {"tools": [{"functionDeclarations": [{"name": "f", "strict": True}]}]},
        {"contents": [{"role": "user", "parts": [{"text": "hi", "cache": 1}]}]},
        {"contents": [{"role": "user", "parts": [{"inlineData": {"data": "!", "mimeType": "a/b"}}]}]},
    ],
}


# The run


class Capture(BaseHTTPRequestHandler):
    """Keeps the body it got and answers with a word."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.got.append(body)
        gemini = re.search(r"/models/([^:]+):(\w+)", self.path)
        format = "gemini" if gemini else "anthropic"
        asked = Asked.__new__(Asked)
        asked.body, asked.unique, asked.results = body, "v", []
        asked.model = gemini[1] if gemini else body["model"]
        stream = gemini[2] == "streamGenerateContent" if gemini else body.get("stream")
        wire, answer = WIRES[format](asked), Answer(["ok"])
        if stream:
            parts = [wire.start(), wire.text("ok"), *wire.end(answer)]
            data, kind = b"".join(parts), "text/event-stream"
        else:
            data, kind = json.dumps(wire.whole(answer)).encode(), "application/json"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()


def recordings():
    folder = Path(os.environ.get("WEIR_RECORDINGS", ROOT.parent / "shared" / "recordings"))
    if not (folder / "openai").is_dir():
        print(f"no recordings at {folder}: only the others are validated")
        return
    for path in sorted((folder / "openai").glob("*.json")):
        body = json.loads(path.read_text())["request"]["body"]
        # Of some only the answer was stored.
        if isinstance(body, dict):
            yield path.name, body


def send(weir, body):
    request = urllib.request.Request(
        f"{weir.url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status, reply.read(), reply.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def main():
    adapters = anthropic_adapters()
    client = genai.Client(api_key="none")._api_client
    capture = ThreadingHTTPServer(("127.0.0.1", 0), Capture)
    capture.daemon_threads, capture.got = True, []
    threading.Thread(target=capture.serve_forever, daemon=True).start()
    counts, problems = collections.Counter(), collections.defaultdict(list)
    refused, beside = collections.defaultdict(list), collections.Counter()

    def judged(format, model, body):
        if format == "anthropic":
            return check_anthropic(adapters, model, body)
        return check_gemini(client, model, body)

    def judge(format, model, body, where):
        found = judged(format, model, body)
        if format == "anthropic":
            beside.update(key for key in BESIDE_THE_TYPES if key in body)
        counts[format, "FAILED" if found else "ok"] += 1
        for complaint in found:
            # One line per kind of complaint, whichever message it is in.
            problems[format, re.sub(r"\b\d+\b", "*", complaint.split(" (")[0])].append(
                (where, model, complaint)
            )

    for format, bodies in WRONG.items():
        model = {"anthropic": CLAUDE, "gemini": GEMINI}[format][0]
        for body in bodies:
            if not judged(format, model, body):
                problems[format, "the check itself: this passed"].append(("", "", json.dumps(body)))
                counts[format, "FAILED"] += 1
        good = ASKED if format == "anthropic" else SAID
        if complaint := judged(format, model, good):
            sys.exit(f"the check itself refuses the simplest request: {complaint}")

    with tempfile.TemporaryDirectory() as folder:
        weir = Weir(f"http://127.0.0.1:{capture.server_address[1]}", folder)
        for name, body in recordings():
            for model in CLAUDE + GEMINI:
                format = "anthropic" if model in CLAUDE else "gemini"
                capture.got.clear()
                status, answer, headers = send(weir, body | {"model": model})
                if status == 200 and capture.got:
                    judge(format, model, capture.got[0], name)
                    continue
                error = json.loads(answer)["error"]
                message = error["message"].replace(model, "MODEL")
                known = [reason for pattern, reason in REFUSALS if re.search(pattern, message)]
                title = f"{status} {error['param']}: {message[:160]}"
                fine = status == 400 and not capture.got and known
                counts[format, "refused" if fine else "FAILED"] += 1
                if fine:
                    refused[f"{title}\n      fine: {known[0]}"].append((name, model))
                else:
                    problems[format, title].append((name, model, ""))
        weir.stop()
    bodies = TARGET / "bodies.json"
    for name, format, model, body in json.loads(bodies.read_text()) if bodies.is_file() else []:
        if format in ("anthropic", "gemini"):
            judge(format, model, body, f"a request of {name}")

    for format in ("anthropic", "gemini"):
        for path in sorted((ROOT / "tests" / "golden" / format).glob("*.sent.json")):
            asked = json.loads(path.with_name(path.name.replace(".sent.", ".request.")).read_text())
            body = path.read_text()
            # What a caller adds there is the caller's, and some signatures are only words.
            if "extra_body" not in asked and not re.search(r'"(SIG|TS)\w*"', body):
                judge(format, asked["model"], json.loads(body), path.name)

    versions = {"anthropic": anthropic.__version__, "gemini": genai.__version__}
    for format, version in versions.items():
        fit, bad = counts[format, "ok"], counts[format, "FAILED"]
        print(f"{format} {version}: {fit} fit, {counts[format, 'refused']} refused, {bad} do not")
    for key, times in beside.items():
        print(f"  {key} sent {times} times, which Claude takes and the SDK's types do not have")
    for title, places in sorted(refused.items()):
        files = sorted({name for name, _ in places})
        print(f"  refused {len(places)} times: {title}\n      in {', '.join(files)[:200]}")
    for (format, title), places in sorted(problems.items()):
        name, model, detail = places[0]
        print(f"FAILED {format}, {len(places)} times: {title}\n      {name} {model} {detail}")
    passed = sum(number for (_, kind), number in counts.items() if kind != "FAILED")
    failed = sum(number for (_, kind), number in counts.items() if kind == "FAILED")
    (TARGET / "validate.json").write_text(json.dumps({"passed": passed, "failed": failed}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
