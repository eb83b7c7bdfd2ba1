"""LangChain's ChatOpenAI."""

import time
from importlib.metadata import version

import openai
from harness import *
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class City(BaseModel):
    """A city"""

    city: str
    population: int


@tool
def get_weather(city: str) -> str:
    """The weather in a city"""
    return weather(city)


def chat(case, **options):
    options = {"model": case.model, "api_key": KEY, "max_retries": 0} | options
    return ChatOpenAI(base_url=BASE, use_responses_api=False, **options)


def plain(case):
    got = chat(case).invoke([SystemMessage("Be brief."), HumanMessage(case.prompt("plain"))])
    same(got.content, PLAIN)
    same(got.response_metadata["finish_reason"], "stop")
    check_usage(got.usage_metadata)
    same(case.seen()[0]["system"], ["Be brief."])


def check_usage(usage):
    same(usage["input_tokens"], PROMPT_TOKENS)
    same(usage["output_tokens"], COMPLETION_TOKENS)
    same(usage["input_token_details"]["cache_read"], CACHED_TOKENS)


def stream(case):
    case.streamed(chunk.content for chunk in chat(case).stream(case.prompt("stream")))


def usage(case):
    case.release()
    total = None
    for chunk in chat(case, stream_usage=True).stream(case.prompt("stream")):
        total = chunk if total is None else total + chunk
    check_usage(total.usage_metadata)


def tools(case):
    for streamed in (False, True):
        model = chat(case, streaming=streamed).bind_tools([get_weather])
        messages = [HumanMessage(case.prompt("tools"))]
        got = model.invoke(messages)
        same(len(got.tool_calls), 2)
        messages.append(got)
        for call in got.tool_calls:
            result = get_weather.invoke(call["args"])
            messages.append(ToolMessage(result, tool_call_id=call["id"]))
        same(model.invoke(messages).content, TOOL_ANSWER)
        case.tools_came_back()


def json_(case):
    for method in ("json_schema", "function_calling"):
        model = chat(case).with_structured_output(City, method=method)
        same(model.invoke(case.prompt("json")).model_dump(), CITY)


def image(case):
    parts = [
        {"type": "text", "text": case.prompt("plain")},
        {"type": "image_url", "image_url": {"url": PNG_URL}},
    ]
    same(chat(case).invoke([HumanMessage(parts)]).content, case.image)


def wrong_key(case):
    model = chat(case, api_key=WRONG_KEY)
    refused(401, lambda: model.invoke(case.prompt("plain")), openai.AuthenticationError)


def no_model(case):
    model = chat(case, model=NO_MODEL)
    refused(404, lambda: model.invoke(case.prompt("plain")), openai.NotFoundError)


def limited(case):
    begun = time.time()
    same(chat(case, max_retries=2).invoke(case.prompt("limit")).content, PLAIN)
    case.retried(begun)


def fault(case):
    model = chat(case)
    refused(500, lambda: model.invoke(case.prompt("fault")), openai.InternalServerError)


def hangup(case):
    chunks = chat(case).stream(case.prompt("slow"))
    for chunk in chunks:
        if chunk.content:
            break
    chunks.close()
    case.hung_up()


run(
    version("langchain-openai"),
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
