"""A scripted upstream that speaks Chat Completions, Responses, Anthropic Messages and Gemini.

What it answers is decided by a tag in the prompt, `#scenario:unique`, so that every client can
ask for it through whatever it does to a request. It keeps all that it received under `unique`,
and tells it under /control/, together with the moment at which a caller hung up.

Standard library only. Run by itself it listens on the port given and prints its address.
"""

import json
import re
import select
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from wires import WIRES, Answer, Asked, OpenAi

PLAIN = "Hello from the upstream."
# Letters of two, three and four bytes, so that a cut inside one would show.
PIECES = ["Grüße", " – one,", " two,", " three", " 🎉."]
CITY = {"city": "Oslo", "population": 709000}
CALLS = [("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Lima"})]
# What a coding agent takes for the new text of a file.
EDIT = "hello.py\n```\nprint('hello from the upstream')\n```\n"
HOLD_LIMIT = 5.0
# Three intervals of heartbeats.
KEEPALIVE_MS, SILENCE = 50, 0.15
SLOW_PIECES, SLOW_PAUSE = 200, 0.1
# Models that are not to be had at /chat/completions, and what is said there.
RESPONSES_ONLY = "reasoner"
ELSEWHERE = "This model is only supported in v1/responses and not in v1/chat/completions."
# What a request to /responses may hold; the vendor refuses everything else.
RESPONSES_FIELDS = set(
    "client_metadata include input instructions max_output_tokens metadata model parallel_tool_calls prompt_cache_key "
    "reasoning safety_identifier service_tier store stream stream_options temperature text "
    "tool_choice tools top_logprobs top_p user".split()
)


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
        self.piece(wire.thought(answer.thought))
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
