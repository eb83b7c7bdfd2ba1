"""The official Python SDK."""

import time

import openai
from harness import *
from openai import OpenAI

client = OpenAI(base_url=BASE, api_key=KEY, max_retries=0)


def user(text):
    return [{"role": "user", "content": text}]


def plain(case):
    messages = [{"role": "system", "content": "Be brief."}, *user(case.prompt("plain"))]
    done = client.chat.completions.create(model=case.model, messages=messages)
    same(done.choices[0].message.content, PLAIN)
    same(done.choices[0].finish_reason, "stop")
    same(done.model, case.model)
    check_usage(done.usage)
    same(case.seen()[0]["system"], ["Be brief."])
    if case.format == "responses":
        # The SDK's other API, which weir passes on.
        done = client.responses.create(model=case.model, input=case.prompt("plain"))
        same((done.output_text, done.usage.output_tokens), (PLAIN, COMPLETION_TOKENS))


def check_usage(usage):
    same(usage.prompt_tokens, PROMPT_TOKENS)
    same(usage.completion_tokens, COMPLETION_TOKENS)
    same(usage.total_tokens, PROMPT_TOKENS + COMPLETION_TOKENS)
    same(usage.prompt_tokens_details.cached_tokens, CACHED_TOKENS)


def stream(case):
    chunks = client.chat.completions.create(
        model=case.model, messages=user(case.prompt("stream")), stream=True
    )
    case.streamed(chunk.choices[0].delta.content for chunk in chunks)
    if case.format == "responses":
        events = client.responses.create(
            model=case.model, input=case.prompt("stream"), stream=True
        )
        case.streamed(getattr(event, "delta", None) for event in events)


def usage(case):
    case.release()
    chunks = list(
        client.chat.completions.create(
            model=case.model,
            messages=user(case.prompt("stream")),
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    same([chunk.choices for chunk in chunks].count([]), 1)
    check_usage(chunks[-1].usage)


def tools(case):
    for streamed in (False, True):
        messages = user(case.prompt("tools", "How is the weather in Oslo and Lima?"))
        done = tool_turn(case, messages, streamed)
        calls = done.tool_calls
        same([call.function.name for call in calls], ["get_weather"] * 2)
        messages.append(done)
        for call in calls:
            city = json.loads(call.function.arguments)["city"]
            messages.append({"role": "tool", "tool_call_id": call.id, "content": weather(city)})
        same(tool_turn(case, messages, streamed).content, TOOL_ANSWER)
        case.tools_came_back()


def tool_turn(case, messages, streamed):
    asked = {"model": case.model, "messages": messages, "tools": [TOOL]}
    if not streamed:
        return client.chat.completions.create(**asked).choices[0].message
    # The SDK's own gathering of a stream, which is strict about tool call indexes.
    with client.chat.completions.stream(**asked) as events:
        for _ in events:
            pass
        return events.get_final_completion().choices[0].message


def json_(case):
    form = {
        "type": "json_schema",
        "json_schema": {"name": "city", "schema": SCHEMA, "strict": True},
    }
    done = client.chat.completions.create(
        model=case.model, messages=user(case.prompt("json")), response_format=form
    )
    same(json.loads(done.choices[0].message.content), CITY)
    same(sorted(case.seen()[0]["schema"]["properties"]), ["city", "population"])


def image(case):
    parts = [
        {"type": "text", "text": case.prompt("plain", "What is this?")},
        {"type": "image_url", "image_url": {"url": PNG_URL}},
    ]
    done = client.chat.completions.create(
        model=case.model, messages=[{"role": "user", "content": parts}]
    )
    same(done.choices[0].message.content, case.image)


def ask(case, scenario, **options):
    model = options.pop("model", case.model)
    return client.with_options(**options).chat.completions.create(
        model=model, messages=user(case.prompt(scenario))
    )


def wrong_key(case):
    error = refused(401, lambda: ask(case, "plain", api_key=WRONG_KEY), openai.AuthenticationError)
    same(error.code, "invalid_api_key")


def no_model(case):
    error = refused(404, lambda: ask(case, "plain", model=NO_MODEL), openai.NotFoundError)
    same((error.code, error.param), ("model_not_found", "model"))


def limited(case):
    begun = time.time()
    same(ask(case, "limit", max_retries=2).choices[0].message.content, PLAIN)
    case.retried(begun)


def fault(case):
    error = refused(500, lambda: ask(case, "fault"), openai.InternalServerError)
    assert "the scripted fault" in error.message, error.message
    same(len(case.seen()), 2)


def hangup(case):
    chunks = client.chat.completions.create(
        model=case.model, messages=user(case.prompt("slow")), stream=True
    )
    for chunk in chunks:
        if chunk.choices[0].delta.content:
            break
    chunks.close()
    case.hung_up()


run(
    openai.__version__,
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
