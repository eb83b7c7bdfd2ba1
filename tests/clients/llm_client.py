"""The `llm` command line tool, told of weir's models by a file."""

import os
import re
import sys
from importlib.metadata import version
from pathlib import Path

from commands import *

LLM = str(Path(sys.executable).with_name("llm"))
home = Path(os.environ["SCRATCH"], "llm")
home.mkdir(exist_ok=True)
os.environ["LLM_USER_PATH"] = str(home)
FUNCTION = '''
def get_weather(city: str) -> str:
    "The weather in a city"
    return city + ": " + str({"Oslo": 4, "Lima": 22}[city]) + " C"
'''
MODEL = """\
- model_id: weir-{0}
  model_name: {0}
  api_base: {1}
  api_key_name: weir
  vision: true
  supports_schema: true
  supports_tools: true
"""
names = [NO_MODEL]
for model in MODELS.values():
    names += [model, f"{model}-limited", f"{model}-faulty"]
extra = "".join(MODEL.format(name, BASE) for name in names)
(home / "extra-openai-models.yaml").write_text(extra)
(home / "picture.png").write_bytes(PNG)


def ask(case, scenario, *more, key=KEY, model=None):
    model = f"weir-{model or case.model}"
    return [LLM, "prompt", "-m", model, "--key", key, *more, case.prompt(scenario)]


def plain(case):
    command = ask(case, "plain", "--no-stream", "-s", "Be brief.", "-u")
    status, output, errors = call(command)
    same((status, output.decode().strip()), (0, PLAIN))
    check_printed(errors)
    same(case.seen()[0]["system"], ["Be brief."])


def check_printed(errors):
    numbers = re.search(r"([\d,]+) input, ([\d,]+) output", errors)
    assert numbers, errors
    same((int(numbers[1]), int(numbers[2])), (PROMPT_TOKENS, COMPLETION_TOKENS))


def stream(case):
    got = [data for data in streamed(case)]
    same(b"".join(got).decode().strip(), STREAMED)


def streamed(case):
    first = True
    for data in pieces(ask(case, "stream")):
        if first:
            case.release()
        first = False
        yield data


def usage(case):
    case.release()
    status, output, errors = call(ask(case, "stream", "-u"))
    same((status, output.decode().strip()), (0, STREAMED))
    check_printed(errors)


def tools(case):
    for mode in (["--no-stream"], []):
        output = answer(ask(case, "tools", "--functions", FUNCTION, *mode))
        same(output.strip(), TOOL_ANSWER)
        case.tools_came_back()


def json_(case):
    same(json.loads(answer(ask(case, "json", "--schema", json.dumps(SCHEMA)))), CITY)


def image(case):
    command = ask(case, "plain", "-a", str(home / "picture.png"))
    same(answer(command).strip(), case.image)


def error(command, text):
    status, _, errors = call(command)
    same((status, text in errors), (1, True))


def wrong_key(case):
    error(ask(case, "plain", key=WRONG_KEY), "401")


def no_model(case):
    error(ask(case, "plain", model=NO_MODEL), NO_MODEL)


def limited(case):
    begun = time.time()
    same(answer(ask(case, "limit")).strip(), PLAIN)
    case.retried(begun)


def fault(case):
    error(ask(case, "fault"), "the scripted fault")


def hangup(case):
    leave(case, ask(case, "slow"), b"1 ")


# The first start is slow: what is compiled then is there for the others.
call([LLM, "--version"])
run(
    version("llm"),
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
