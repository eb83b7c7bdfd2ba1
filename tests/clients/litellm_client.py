"""litellm as a client: its `openai/` provider pointed at weir."""

import time
from importlib.metadata import version

import litellm
from harness import *
from pydantic import BaseModel

litellm.telemetry = False
litellm.drop_params = False


class City(BaseModel):
    """A city"""

    city: str
    population: int


def ask(case, scenario, messages=None, model=None, **more):
    more = {"api_key": KEY, "max_retries": 0} | more
    messages = messages or [{"role": "user", "content": case.prompt(scenario)}]
    model = f"openai/{model or case.model}"
    return litellm.completion(model=model, messages=messages, api_base=BASE, **more)


def plain(case):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": case.prompt("plain")},
    ]
    got = ask(case, "plain", messages)
    same(got.choices[0].message.content, PLAIN)
    same(got.choices[0].finish_reason, "stop")
    check_usage(got.usage)
    same(case.seen()[0]["system"], ["Be brief."])


def check_usage(usage):
    same((usage.prompt_tokens, usage.completion_tokens), (PROMPT_TOKENS, COMPLETION_TOKENS))
    same(usage.prompt_tokens_details.cached_tokens, CACHED_TOKENS)


def stream(case):
    chunks = ask(case, "stream", stream=True)
    case.streamed(chunk.choices[0].delta.content for chunk in chunks)


def usage(case):
    case.release()
    chunks = list(ask(case, "stream", stream=True, stream_options={"include_usage": True}))
    check_usage([chunk for chunk in chunks if getattr(chunk, "usage", None)][-1].usage)


def tools(case):
    for streamed in (False, True):
        messages = [{"role": "user", "content": case.prompt("tools")}]
        got = tool_turn(case, messages, streamed)
        same(len(got.tool_calls), 2)
        messages.append(got)
        for call in got.tool_calls:
            city = json.loads(call.function.arguments)["city"]
            messages.append({"role": "tool", "tool_call_id": call.id, "content": weather(city)})
        same(tool_turn(case, messages, streamed).content, TOOL_ANSWER)
        case.tools_came_back()


def tool_turn(case, messages, streamed):
    got = ask(case, "tools", messages, tools=[TOOL], stream=streamed)
    if streamed:
        got = litellm.stream_chunk_builder(list(got), messages=messages)
    return got.choices[0].message


def json_(case):
    got = ask(case, "json", response_format=City)
    same(json.loads(got.choices[0].message.content), CITY)
    same(sorted(case.seen()[0]["schema"]["properties"]), ["city", "population"])


def image(case):
    parts = [
        {"type": "text", "text": case.prompt("plain")},
        {"type": "image_url", "image_url": {"url": PNG_URL}},
    ]
    got = ask(case, "plain", [{"role": "user", "content": parts}])
    same(got.choices[0].message.content, case.image)


def wrong_key(case):
    refused(401, lambda: ask(case, "plain", api_key=WRONG_KEY), litellm.AuthenticationError)


def no_model(case):
    refused(404, lambda: ask(case, "plain", model=NO_MODEL), litellm.NotFoundError)


def limited(case):
    begun = time.time()
    same(ask(case, "limit", max_retries=2).choices[0].message.content, PLAIN)
    case.retried(begun)


def fault(case):
    refused(500, lambda: ask(case, "fault"), litellm.InternalServerError)


def hangup(case):
    chunks = ask(case, "slow", stream=True)
    for chunk in chunks:
        if chunk.choices[0].delta.content:
            break
    # It has no `close` of its own: what it wraps is closed.
    getattr(chunks, "close", chunks.completion_stream.close)()
    case.hung_up()


run(
    version("litellm"),
    {
        "plain": plain,
        "stream": stream,
        "usage": usage,
        "tools": tools,
        "json": json_,
        "image": image,
        "401": wrong_key,
        "404": no_model,
        "429": limited,
        "500": fault,
        "hangup": hangup,
    },
)
