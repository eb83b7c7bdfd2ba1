"""Checks for clients that are commands: what they print, how they exit, and what they say."""

import subprocess
import time

from harness import *


# A start of a Python program can take long on a busy machine.
LIMIT = 120


def call(command, stdin=b"", limit=LIMIT):
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=limit)
    return done.returncode, done.stdout, done.stderr.decode(errors="replace")


def answer(command, **more):
    status, output, errors = call(command, **more)
    assert status == 0, f"exit {status}: {errors or output!r}"
    return output.decode()


def pieces(command):
    """What the command prints as it prints it."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        while data := process.stdout.read1():
            yield data
        status = process.wait()
    assert status == 0, f"exit {status}"


def leave(case, command, first):
    """Ends the command once it has printed `first`, and checks that the upstream sees it."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    got = b""
    while first not in got:
        data = process.stdout.read1()
        assert data, f"ended after {got!r}"
        got += data
    process.kill()
    process.stdout.close()
    process.wait()
    case.hung_up()


# Clients that know HTTP and nothing of chats


def chat_body(case, scenario, **more):
    messages = [{"role": "user", "content": case.prompt(scenario)}]
    return {"model": case.model, "messages": messages} | more


def data_of(stream):
    """The chunks of an event stream, which must end as one should."""
    events = [event for event in stream.split("\n\n") if event and not event.startswith(":")]
    assert all(event.startswith("data: ") for event in events), stream
    same(events[-1], "data: [DONE]")
    return [json.loads(event[6:]) for event in events[:-1]]


def texts(stream):
    for chunk in data_of(stream):
        for choice in chunk["choices"]:
            yield choice["delta"].get("content") or ""


def check_usage(usage):
    same((usage["prompt_tokens"], usage["completion_tokens"]), (PROMPT_TOKENS, COMPLETION_TOKENS))
    same(usage["prompt_tokens_details"]["cached_tokens"], CACHED_TOKENS)


class Http:
    """The checks of a command that sends what it is told to.

    `post(body, key)` gives the command, `refusal(status, ...)` what it must do about an error.
    """

    def __init__(self, post):
        self.post = post

    def ask(self, case, scenario, **more):
        return json.loads(answer(self.post(chat_body(case, scenario, **more))))

    def plain(self, case):
        done = self.ask(case, "plain")
        same(done["choices"][0]["message"]["content"], PLAIN)
        same(done["choices"][0]["finish_reason"], "stop")
        check_usage(done["usage"])

    def stream(self, case):
        got = b""
        for data in pieces(self.post(chat_body(case, "stream", stream=True))):
            if PIECES[0].encode() in got + data and PIECES[0].encode() not in got:
                case.release()
            got += data
        same("".join(texts(got.decode())), STREAMED)

    def usage(self, case):
        case.release()
        body = chat_body(case, "stream", stream=True, stream_options={"include_usage": True})
        last = data_of(answer(self.post(body)))[-1]
        same(last["choices"], [])
        check_usage(last["usage"])

    def tools(self, case):
        body = chat_body(case, "tools", tools=[TOOL])
        message = json.loads(answer(self.post(body)))["choices"][0]["message"]
        # Only what the API knows goes back, as from a caller who rebuilds the message.
        calls = [
            {key: call[key] for key in ("id", "type", "function")} for call in message["tool_calls"]
        ]
        same(len(calls), 2)
        body["messages"].append({"role": "assistant", "content": None, "tool_calls": calls})
        for made in calls:
            result = weather(**json.loads(made["function"]["arguments"]))
            told = {"role": "tool", "tool_call_id": made["id"], "content": result}
            body["messages"].append(told)
        done = json.loads(answer(self.post(body)))
        same(done["choices"][0]["message"]["content"], TOOL_ANSWER)
        case.tools_came_back()

    def json(self, case):
        schema = {"name": "city", "schema": SCHEMA, "strict": True}
        form = {"type": "json_schema", "json_schema": schema}
        done = self.ask(case, "json", response_format=form)
        same(json.loads(done["choices"][0]["message"]["content"]), CITY)

    def image(self, case):
        body = chat_body(case, "plain")
        text = {"type": "text", "text": case.prompt("plain")}
        picture = {"type": "image_url", "image_url": {"url": PNG_URL}}
        body["messages"][0]["content"] = [text, picture]
        done = json.loads(answer(self.post(body)))
        same(done["choices"][0]["message"]["content"], case.image)

    def hangup(self, case):
        leave(case, self.post(chat_body(case, "slow", stream=True)), b"1 ")

    def checks(self):
        names = "plain stream usage tools json image hangup".split()
        return {name: getattr(self, name) for name in names}


__all__ = [name for name in dir() if not name.startswith("_")]
