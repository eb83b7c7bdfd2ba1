"""LlamaIndex's OpenAILike."""

import time
from importlib.metadata import version

import openai
from harness import *
from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel


class City(BaseModel):
    """A city"""

    city: str
    population: int


get_weather = FunctionTool.from_defaults(weather, name="get_weather")


def chat(case, **options):
    options = {"model": case.model, "api_key": KEY, "max_retries": 0} | options
    return OpenAILike(
        api_base=BASE,
        is_chat_model=True,
        is_function_calling_model=True,
        context_window=100_000,
        **options,
    )


def user(text):
    return [ChatMessage(role="user", content=text)]


def plain(case):
    system = ChatMessage(role="system", content="Be brief.")
    got = chat(case).chat([system, *user(case.prompt("plain"))])
    same(got.message.content, PLAIN)
    check_usage(got.raw.usage)
    same(case.seen()[0]["system"], ["Be brief."])


def check_usage(usage):
    same((usage.prompt_tokens, usage.completion_tokens), (PROMPT_TOKENS, COMPLETION_TOKENS))


def stream(case):
    case.streamed(chunk.delta for chunk in chat(case).stream_chat(user(case.prompt("stream"))))


def usage(case):
    case.release()
    model = chat(case, additional_kwargs={"stream_options": {"include_usage": True}})
    chunks = list(model.stream_chat(user(case.prompt("stream"))))
    check_usage(chunks[-1].raw.usage)


def tools(case):
    for streamed in (False, True):
        model = chat(case)
        messages = user(case.prompt("tools"))
        got = tool_turn(model, messages, streamed)
        calls = model.get_tool_calls_from_response(got)
        same(len(calls), 2)
        messages.append(got.message)
        for call in calls:
            messages.append(
                ChatMessage(
                    role="tool",
                    content=weather(**call.tool_kwargs),
                    additional_kwargs={"tool_call_id": call.tool_id},
                )
            )
        same(tool_turn(model, messages, streamed).message.content, TOOL_ANSWER)
        case.tools_came_back()


def tool_turn(model, messages, streamed):
    asked = {"chat_history": messages, "allow_parallel_tool_calls": True}
    if not streamed:
        return model.chat_with_tools([get_weather], **asked)
    return list(model.stream_chat_with_tools([get_weather], **asked))[-1]


def json_(case):
    for native in (False, True):
        model = chat(case, should_use_structured_outputs=native).as_structured_llm(City)
        same(model.chat(user(case.prompt("json"))).raw.model_dump(), CITY)


def image(case):
    blocks = [TextBlock(text=case.prompt("plain")), ImageBlock(image=PNG)]
    same(chat(case).chat([ChatMessage(role="user", blocks=blocks)]).message.content, case.image)


def wrong_key(case):
    model = chat(case, api_key=WRONG_KEY)
    refused(401, lambda: model.chat(user(case.prompt("plain"))), openai.AuthenticationError)


def no_model(case):
    model = chat(case, model=NO_MODEL)
    refused(404, lambda: model.chat(user(case.prompt("plain"))), openai.NotFoundError)


def limited(case):
    begun = time.time()
    same(chat(case, max_retries=2).chat(user(case.prompt("limit"))).message.content, PLAIN)
    case.retried(begun)


def fault(case):
    model = chat(case)
    refused(500, lambda: model.chat(user(case.prompt("fault"))), openai.InternalServerError)


def hangup(case):
    # Its streams do not close what they read from, so the connections are ours to close.
    with openai.DefaultHttpxClient() as connections:
        chunks = chat(case, http_client=connections).stream_chat(user(case.prompt("slow")))
        for chunk in chunks:
            if chunk.delta:
                break
    case.hung_up()


run(
    version("llama-index-llms-openai-like"),
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
