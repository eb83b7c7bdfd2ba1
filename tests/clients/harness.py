"""What every client's test needs: names to use, the upstream's ledger, and telling results.

A client's test defines one function per check, each taking a `Case`, and hands them to `run`,
which calls each once per format of the upstream and prints one JSON line per result. Standard
library only, since it is imported in every client's own environment.
"""

import base64
import json
import os
import sys
import time
import traceback
import urllib.request
import uuid

from upstream import CITY, PIECES, PLAIN
from wires import CACHED_TOKENS, COMPLETION_TOKENS, PROMPT_TOKENS, SIGNATURE

CHECKS = (
    "plain stream usage tools json image 401 404 429 500 hangup".split()
)
STREAMED = "".join(PIECES)
TOOL_ANSWER = "The tools say: Oslo: 4 C; Lima: 22 C."
# A valid picture of one pixel.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PNG_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "population": {"type": "integer"}},
    "required": ["city", "population"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}

BASE = os.environ.get("WEIR_URL", "")
KEY = os.environ.get("WEIR_KEY", "")
UPSTREAM = os.environ.get("UPSTREAM_URL", "")
MODELS = {
    "anthropic": "claude-sonnet-4-5",
    "gemini": "gemini-2.5-flash",
    "openai": "gpt-5",
    # Refused at /chat/completions, so that weir takes it elsewhere.
    "responses": "reasoner",
}
# The 401 of a wrong key, and a model that is routed nowhere.
WRONG_KEY = "wrong-key"
NO_MODEL = "no-such-model"
# How soon the upstream must see that a caller hung up.
HANGUP_LIMIT = 1.0


def weather(city: str) -> str:
    """The weather in a city"""
    return f"{city}: {({'Oslo': 4, 'Lima': 22})[city]} C"


def control(path):
    with urllib.request.urlopen(f"{UPSTREAM}/control/{path}", timeout=10) as reply:
        return json.load(reply)


class Case:
    """One check against one format of the upstream."""

    def __init__(self, check, format):
        self.check, self.format = check, format
        self.unique = uuid.uuid4().hex[:12]
        # Faults rest a key for the model that met them, so they get models of their own.
        self.model = MODELS[format] + {"429": "-limited", "500": "-faulty"}.get(check, "")
        self.image = f"I see image/png {len(PNG)} {_digest(PNG)}."

    def prompt(self, scenario, text="Please answer."):
        return f"{text} #{scenario}:{self.unique}"

    def seen(self):
        return control(f"seen/{self.unique}")

    def release(self):
        """Lets the upstream send what follows the first piece of a stream."""
        control(f"release/{self.unique}")

    def streamed(self, pieces):
        """Checks a stream piece by piece: the upstream goes on only once the first one is here."""
        got = []
        for piece in pieces:
            if piece and not got:
                self.release()
            if piece:
                got.append(piece)
        same("".join(got), STREAMED)
        assert len(got) > 1, f"came in one piece: {got}"

    def hung_up(self):
        """Call right after hanging up."""
        begun = time.time()
        at = control(f"hangup/{self.unique}?wait=4")["at"]
        assert at is not None, "the upstream never saw the hang-up"
        assert at - begun < HANGUP_LIMIT, f"seen after {at - begun:.2f} s"

    def tools_came_back(self):
        """Checks the upstream's side of a tool loop."""
        last = self.seen()[-1]
        same((last["format"], last["results"]), (self.format, ["Oslo: 4 C", "Lima: 22 C"]))
        if self.format in ("gemini", "responses"):
            # Clients drop it, so the gateway has to remember it.
            assert SIGNATURE in last["signatures"], "the thought signature is lost"

    def retried(self, begun):
        """Checks that a client waited as Retry-After said and then asked again."""
        at = [entry["at"] for entry in self.seen()]
        same(len(at), 2)
        assert at[1] - at[0] > 0.9, f"asked again after {at[1] - at[0]:.2f} s"
        assert time.time() - begun < 30, "took too long"


def _digest(data):
    import hashlib

    return hashlib.sha256(data).hexdigest()[:8]


def same(got, expected):
    assert got == expected, f"got {got!r}, expected {expected!r}"


def refused(status, call, *kinds):
    """Checks that `call` raises an error that tells `status`, of one of `kinds` if given."""
    try:
        got = call()
    except Exception as error:  # noqa: BLE001: every client has its own
        chain, seen = error, []
        while chain is not None and len(seen) < 8:
            seen.append(chain)
            code = getattr(chain, "status_code", None) or getattr(chain, "code", None)
            if str(code) == str(status):
                assert not kinds or isinstance(chain, kinds), f"is a {type(chain)}"
                return chain
            chain = chain.__cause__ or chain.__context__
        raise AssertionError(f"no status {status} in {seen!r}") from error
    raise AssertionError(f"answered {got!r}")


def run(version, checks, skipped=()):
    """Runs `checks`, a mapping from the name of a check to its function, and tells the results.

    `skipped` names what the client cannot do by itself, with the reason.
    """
    print(json.dumps({"version": version}), flush=True)
    only = os.environ.get("ONLY")
    for format in MODELS:
        for name in CHECKS:
            if only and only not in (name, f"{format}.{name}"):
                continue
            if name in dict(skipped):
                tell(format, name, skipped=dict(skipped)[name])
                continue
            begun = time.time()
            try:
                checks[name](Case(name, format))
                tell(format, name, ok=True, seconds=time.time() - begun)
            except Exception as error:  # noqa: BLE001: a failed check is a result
                where = traceback.extract_tb(error.__traceback__)[-1]
                if os.environ.get("ONLY"):
                    traceback.print_exc()
                text = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
                tell(format, name, ok=False, error=text, seconds=time.time() - begun)
    sys.stdout.flush()
    # Clients that keep threads or loops alive must not keep the run waiting.
    os._exit(0)


def tell(format, name, **result):
    print(json.dumps({"format": format, "check": name} | result), flush=True)


__all__ = [name for name in dir() if not name.startswith("_")]
