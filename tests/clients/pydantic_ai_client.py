"""pydantic-ai: agents that run their tools themselves."""

import asyncio
import time
from importlib.metadata import version

from harness import *
from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, ModelHTTPError, NativeOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


class City(BaseModel):
    """A city"""

    city: str
    population: int


def agent(case, key=KEY, model=None, max_retries=0, **more):
    client = AsyncOpenAI(base_url=BASE, api_key=key, max_retries=max_retries)
    provider = OpenAIProvider(openai_client=client)
    return Agent(OpenAIChatModel(model or case.model, provider=provider), **more)


# One loop for all, since an agent's connections live in the loop that opened them.
loop = asyncio.new_event_loop()


def go(future):
    return loop.run_until_complete(future)


def plain(case):
    got = go(agent(case, instructions="Be brief.").run(case.prompt("plain")))
    same(got.output, PLAIN)
    check_usage(got)
    same(case.seen()[0]["system"], ["Be brief."])


def check_usage(got):
    # A method in old versions, a property in new ones.
    usage = got.usage() if callable(got.usage) else got.usage
    same((usage.input_tokens, usage.output_tokens), (PROMPT_TOKENS, COMPLETION_TOKENS))
    same(usage.cache_read_tokens, CACHED_TOKENS)


def stream(case):
    async def pieces():
        got = []
        async with agent(case).run_stream(case.prompt("stream")) as answer:
            async for piece in answer.stream_text(delta=True, debounce_by=None):
                if not got:
                    case.release()
                got.append(piece)
        return got

    case.streamed(go(pieces()))


def usage(case):
    case.release()

    async def whole():
        async with agent(case).run_stream(case.prompt("stream")) as answer:
            same(await answer.get_output(), STREAMED)
            return answer

    check_usage(go(whole()))


def tools(case):
    made = agent(case)
    made.tool_plain(weather, name="get_weather")
    same(go(made.run(case.prompt("tools"))).output, TOOL_ANSWER)
    case.tools_came_back()

    async def streamed():
        async with made.run_stream(case.prompt("tools")) as answer:
            return await answer.get_output()

    same(go(streamed()), TOOL_ANSWER)
    case.tools_came_back()


def json_(case):
    for output in (ToolOutput(City), NativeOutput(City)):
        got = go(agent(case, output_type=output).run(case.prompt("json"))).output
        same(got.model_dump(), CITY)


def image(case):
    content = [case.prompt("plain"), BinaryContent(PNG, media_type="image/png")]
    same(go(agent(case).run(content)).output, case.image)


def wrong_key(case):
    made = agent(case, key=WRONG_KEY)
    refused(401, lambda: go(made.run(case.prompt("plain"))), ModelHTTPError)


def no_model(case):
    made = agent(case, model=NO_MODEL)
    refused(404, lambda: go(made.run(case.prompt("plain"))), ModelHTTPError)


def limited(case):
    begun = time.time()
    same(go(agent(case, max_retries=2).run(case.prompt("limit"))).output, PLAIN)
    case.retried(begun)


def fault(case):
    refused(500, lambda: go(agent(case).run(case.prompt("fault"))), ModelHTTPError)


def hangup(case):
    async def leave():
        async with agent(case).run_stream(case.prompt("slow")) as answer:
            async for _ in answer.stream_text(delta=True, debounce_by=None):
                break
            raise Left

    class Left(Exception):
        pass

    try:
        go(leave())
    except Left:
        case.hung_up()


run(
    version("pydantic-ai-slim"),
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
