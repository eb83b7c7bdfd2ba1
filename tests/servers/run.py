"""Real servers behind weir: run.py [NAME...]

Installs them under target/servers/, versions pinned, and prints a table of what held. The model is
made here, of random weights. WEIR names the binary.
"""

import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = ROOT / "target" / "servers"
WEIR = Path(os.environ.get("WEIR", ROOT / "target" / "debug" / "weir")).resolve()

# Name -> packages of its environment.
SERVERS = {
    # llama.cpp's server itself, in a wheel.
    "llama.cpp": ["xllamacpp==2026.10.11549", "gguf==0.19.0"],
    "litellm": ["litellm[proxy]==1.106.12"],
}

# What servers want that do not start without a key.
KEY = "sk-" + secrets.token_hex(16)
# No wait of a test is longer.
LIMIT = 120
# A slot is free this soon after its caller left.
FREE = 1.0


def python(name):
    """The environment's interpreter; installs what is missing."""
    folder = TARGET / name
    mark = folder / "installed"
    wanted = "\n".join(SERVERS[name])
    if not mark.exists() or mark.read_text() != wanted:
        print(f"installing {name}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin" / "pip"), "install", "-q", "--disable-pip-version-check"]
        subprocess.run(pip + SERVERS[name], check=True)
        mark.write_text(wanted)
    return str(folder / "bin" / "python")


def model():
    path = TARGET / "tiny.gguf"
    if not path.exists():
        subprocess.run([python("llama.cpp"), str(HERE / "model.py"), str(path)], check=True)
    return str(path)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(what, look):
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come within {LIMIT} s")


def ask(port, method, path, body=None, accept="*/*"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    try:
        text = json.dumps(body) if body is not None else None
        headers = {"content-type": "application/json", "accept": accept}
        connection.request(method, path, text, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def is_up(port, path):
    try:
        return ask(port, "GET", path)[0] == 200
    except OSError:
        return False


class Process:
    def __init__(self, words, **more):
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(words, stdout=self.log, stderr=self.log, **more)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def kill(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def llama(port):
    words = [python("llama.cpp"), str(HERE / "llama_server.py"), model(), str(port)]
    return Process(words)


def litellm(port, behind):
    file = TARGET / "litellm.yaml"
    entry = {
        "model_name": "tiny",
        "litellm_params": {
            "model": "openai/tiny",
            "api_base": f"http://127.0.0.1:{behind}/v1",
            "api_key": "none",
        },
    }
    # JSON is YAML.
    file.write_text(json.dumps({"model_list": [entry]}))
    program = str(Path(python("litellm")).parent / "litellm")
    words = [program, "--config", str(file), "--host", "127.0.0.1", "--port", str(port)]
    # It asks for its price list elsewhere unless it is told not to, and does not start without a key.
    own = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": KEY}
    return Process(words, env={**os.environ, **own})


class Weir(Process):
    def __init__(self, upstream):
        self.port = free_port()
        self.file = tempfile.NamedTemporaryFile("w", suffix=".json", delete=False)
        entry = {
            "name": "box",
            "format": "openai",
            "base_url": f"http://127.0.0.1:{upstream}",
            "models": ["*"],
            "discover": True,
            "keys": [KEY],
        }
        json.dump({"listen": f"127.0.0.1:{self.port}", "upstreams": [entry]}, self.file)
        self.file.close()
        super().__init__([str(WEIR), "--config", self.file.name])
        until("weir", lambda: is_up(self.port, "/healthz"))

    def kill(self):
        super().kill()
        Path(self.file.name).unlink(missing_ok=True)


def chat(stream=False, tokens=16, **more):
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": tokens,
        "stream": stream,
    }
    return {**body, **more}


def listed(weir):
    status, body = ask(weir.port, "GET", "/v1/models")
    assert status == 200, body
    return [entry["id"] for entry in json.loads(body)["data"]]


def plain(weir):
    status, body = ask(weir.port, "POST", "/v1/chat/completions", chat())
    assert status == 200, body
    told = json.loads(body)
    assert told["object"] == "chat.completion" and told["usage"]["completion_tokens"], told
    assert told["choices"][0]["message"]["content"] is not None, told


def streamed(weir):
    body = chat(True, stream_options={"include_usage": True})
    status, text = ask(weir.port, "POST", "/v1/chat/completions", body)
    events = [line[6:] for line in text.split(b"\n") if line.startswith(b"data: ")]
    assert status == 200 and events[-1] == b"[DONE]", text[-300:]
    chunks = [json.loads(event) for event in events[:-1]]
    assert chunks[-1]["usage"]["completion_tokens"], chunks[-1]
    assert any(c["choices"] and c["choices"][0].get("finish_reason") for c in chunks), chunks


def tools(weir):
    # What it says is dice, so that it calls one cannot be asked of it.
    function = {"name": "f", "parameters": {"type": "object", "properties": {}}}
    tool = {"type": "function", "function": function}
    status, text = ask(weir.port, "POST", "/v1/chat/completions", chat(tools=[tool]))
    assert status == 200, text
    choice = json.loads(text)["choices"][0]
    called = bool(choice["message"].get("tool_calls"))
    assert (choice["finish_reason"] == "tool_calls") == called, choice


def too_long(weir):
    body = chat(messages=[{"role": "user", "content": "x" * 20_000}])
    status, text = ask(weir.port, "POST", "/v1/chat/completions", body)
    told = json.loads(text)["error"]
    assert status == 400 and told["code"] == "context_length_exceeded", (status, told)


def busy(port):
    """How many slots of llama.cpp's server are taken."""
    status, body = ask(port, "GET", "/slots")
    assert status == 200, body
    return sum(slot["is_processing"] for slot in json.loads(body))


def begin(weir, stream):
    connection = http.client.HTTPConnection("127.0.0.1", weir.port, timeout=LIMIT)
    # As long as its context, so that nothing but the hang-up can end it in time.
    body = json.dumps(chat(stream, 8_000, ignore_eos=True))
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    return connection


def drain(answer):
    try:
        answer.read()
    except (OSError, http.client.HTTPException):
        pass  # It is cut off in the end.


def hang_up(weir, server, stream):
    """Seconds until the slot is free, while the other one streams on."""
    other = begin(weir, True)
    answer = other.getresponse()
    reader = threading.Thread(target=drain, args=[answer], daemon=True)
    reader.start()
    leaver = begin(weir, stream)
    until("two taken slots", lambda: busy(server) == 2)
    began = time.monotonic()
    leaver.sock.shutdown(socket.SHUT_RDWR)
    leaver.close()
    until("a free slot", lambda: busy(server) <= 1)
    took = time.monotonic() - began
    other.sock.shutdown(socket.SHUT_RDWR)
    reader.join(LIMIT)
    until("both slots", lambda: busy(server) == 0)
    assert took <= FREE, f"the slot was free after {took:.1f} s"
    return f"free after {took:.1f} s"


def killed(weir, process):
    stream = begin(weir, True)
    answer = stream.getresponse()
    assert answer.readline().startswith(b"data: ")
    process.kill()
    rest = answer.read()
    assert b'"error"' in rest and b"[DONE]" not in rest, rest[-300:]


def attempt(table, server, what, check):
    try:
        said = check() or "yes"
    except (AssertionError, OSError, KeyError, ValueError, http.client.HTTPException) as fault:
        said = "NO"
        print(f"{server}: {what}: {fault}", file=sys.stderr)
    table.setdefault(what, {})[server] = said
    print(f"{server}: {what}: {said}", file=sys.stderr, flush=True)


def run_llama(table):
    name = "llama.cpp"
    python(name), model()
    port = free_port()
    # weir first: nobody is there yet.
    with Weir(port) as weir, llama(port) as process:
        def together():
            until("the server", lambda: is_up(port, "/health"))
            began = time.monotonic()
            until("its model", lambda: "tiny" in listed(weir))
            return f"listed after {time.monotonic() - began:.1f} s"

        attempt(table, name, "started together", together)
        attempt(table, name, "list: its model alone", lambda: exactly(listed(weir), ["tiny"]))
        attempt(table, name, "slots", lambda: slots(weir))
        attempt(table, name, "whole", lambda: plain(weir))
        attempt(table, name, "streamed", lambda: streamed(weir))
        attempt(table, name, "tools: taken", lambda: tools(weir))
        attempt(table, name, "prompt too long: 400 with its code", lambda: too_long(weir))
        attempt(table, name, "hang-up, whole", lambda: hang_up(weir, port, False))
        attempt(table, name, "hang-up, streamed", lambda: hang_up(weir, port, True))
        attempt(table, name, "killed in mid-stream: an error event", lambda: killed(weir, process))


def exactly(found, wanted):
    assert found == wanted, found


def slots(weir):
    status, body = ask(weir.port, "GET", "/status", accept="application/json")
    told = json.loads(body)["upstreams"][0]["keys"][0]["slots"]
    assert status == 200 and told == 2, told
    return f"{told}, as it told"


def run_litellm(table):
    name = "litellm"
    python(name), model()
    behind, port = free_port(), free_port()
    with llama(behind), litellm(port, behind):
        until("the server", lambda: is_up(behind, "/health"))
        until("the proxy", lambda: is_up(port, "/health/liveliness"))
        with Weir(port) as weir:
            until("its model", lambda: "tiny" in listed(weir))
            attempt(table, name, "list: its model alone", lambda: exactly(listed(weir), ["tiny"]))
            attempt(table, name, "whole", lambda: plain(weir))
            attempt(table, name, "streamed", lambda: streamed(weir))
            attempt(table, name, "prompt too long: 400 with its code", lambda: too_long(weir))


def main(names):
    began = time.monotonic()
    runs = {"llama.cpp": run_llama, "litellm": run_litellm}
    names = names or list(runs)
    table = {}
    for name in names:
        runs[name](table)
    print("| |", " | ".join(f"{name} {SERVERS[name][0].split('==')[1]}" for name in names), "|")
    print("|---" * (len(names) + 1) + "|")
    for what, told in table.items():
        print(f"| {what} |", " | ".join(told.get(name, "") for name in names), "|")
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    return int(any("NO" in told.values() for told in table.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
