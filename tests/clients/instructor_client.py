"""instructor: an answer that is an object, by tools and by schema, whole and in parts."""

import time
from importlib.metadata import version

import instructor
import openai
from harness import *
from instructor import Image
from openai import OpenAI
from pydantic import BaseModel


class City(BaseModel):
    """A city"""

    city: str
    population: int


class GetWeather(BaseModel):
    """The weather in a city"""

    city: str


def made(mode=instructor.Mode.TOOLS, **options):
    options = {"base_url": BASE, "api_key": KEY, "max_retries": 0} | options
    return instructor.from_openai(OpenAI(**options), mode=mode)


def user(text):
    return [{"role": "user", "content": text}]


def create(case, client, scenario="json", **more):
    more = {"model": case.model, "response_model": City, "max_retries": 1} | more
    return client.create(messages=user(case.prompt(scenario)), **more)


def plain(case):
    client = made()
    messages = [{"role": "system", "content": "Be brief."}, *user(case.prompt("json"))]
    got, raw = client.create_with_completion(
        model=case.model, messages=messages, response_model=City
    )
    same(got.model_dump(), CITY)
    usage = raw.usage
    same((usage.prompt_tokens, usage.completion_tokens), (PROMPT_TOKENS, COMPLETION_TOKENS))
    same(case.seen()[0]["system"][0], "Be brief.")


def stream(case):
    parts = list(
        made().create_partial(
            model=case.model, messages=user(case.prompt("json")), response_model=City
        )
    )
    same(parts[-1].model_dump(), CITY)
    assert len(parts) > 1, "came in one piece"


def tools(case):
    client = made(instructor.Mode.PARALLEL_TOOLS)
    from typing import Iterable

    got = list(create(case, client, "tools", response_model=Iterable[get_weather]))
    same([call.city for call in got], ["Oslo", "Lima"])


class get_weather(GetWeather):  # noqa: N801: the class's name is the tool's
    """The weather in a city"""


def json_(case):
    for mode in ("TOOLS", "JSON", "JSON_SCHEMA", "MD_JSON", "TOOLS_STRICT"):
        if hasattr(instructor.Mode, mode):
            got = create(case, made(getattr(instructor.Mode, mode)))
            same((mode, got.model_dump()), (mode, CITY))


def image(case):
    class Seen(BaseModel):
        """What was seen"""

        text: str

    content = ["What is this? " + case.prompt("picture"), Image.from_base64(PNG_URL)]
    client = made()
    got = client.create(
        model=case.model, messages=[{"role": "user", "content": content}], response_model=None
    )
    same(got.choices[0].message.content, case.image)


def wrong_key(case):
    client = made(api_key=WRONG_KEY)
    refused(401, lambda: create(case, client), openai.AuthenticationError)


def no_model(case):
    refused(404, lambda: create(case, made(), model=NO_MODEL), openai.NotFoundError)


def limited(case):
    begun = time.time()
    client = made(max_retries=2)
    got = create(case, client, "limit", response_model=None)
    same(got.choices[0].message.content, PLAIN)
    case.retried(begun)


def fault(case):
    refused(500, lambda: create(case, made(), "fault"), openai.InternalServerError)


def hangup(case):
    chunks = create(case, made(), "slow", response_model=None, stream=True)
    for chunk in chunks:
        if chunk.choices[0].delta.content:
            break
    chunks.close()
    case.hung_up()


run(
    version("instructor"),
    {
        "plain": plain,
        "stream": stream,
        "tools": tools,
        "json": json_,
        "image": image,
        "401": wrong_key,
        "404": no_model,
        "429": limited,
        "500": fault,
        "hangup": hangup,
    },
    {"usage": "gives no usage of streams"}.items(),
)
