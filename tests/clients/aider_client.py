"""aider, a coding agent, run headless: it edits a file as the upstream says."""

import os
import sys
from importlib.metadata import version
from pathlib import Path

from commands import *

AIDER = str(Path(sys.executable).with_name("aider"))
SCRATCH = Path(os.environ["SCRATCH"])
# With a list of models at hand it does not look for one in the world.
caches = SCRATCH / ".aider" / "caches"
caches.mkdir(parents=True, exist_ok=True)
(caches / "model_prices_and_context_window.json").write_text('{"none": {}}')
QUIET = (
    "--yes-always --no-git --no-pretty --no-check-update --no-show-model-warnings "
    "--no-show-release-notes --analytics-disable --no-suggest-shell-commands "
    "--no-detect-urls --no-gitignore --map-tokens 0 --edit-format whole "
    "--no-check-model-accepts-settings"
).split()
# It would leave these in the checkout around it.
QUIET += ["--chat-history-file", str(SCRATCH / "chat"), "--input-history-file", str(SCRATCH / "in")]


def ask(case, scenario, *more, key=KEY, model=None, files=("hello.py",)):
    folder = SCRATCH / case.unique
    folder.mkdir(exist_ok=True)
    (folder / "hello.py").write_text("print('old')\n")
    (folder / "picture.png").write_bytes(PNG)
    os.chdir(folder)
    model = f"openai/{model or case.model}"
    where = ["--openai-api-base", BASE, "--openai-api-key", key, "--model", model]
    return [AIDER, *QUIET, *where, *more, "--message", case.prompt(scenario), *files]


def edited(case):
    return (SCRATCH / case.unique / "hello.py").read_text() == "print('hello from the upstream')\n"


def plain(case):
    output = answer(ask(case, "edit", "--no-stream"))
    assert edited(case), output
    sent, received = f"Tokens: {PROMPT_TOKENS} sent", f"{COMPLETION_TOKENS} received"
    assert sent in output and received in output, output
    if case.format == "openai":
        same(case.seen()[0]["stream"], False)


def stream(case):
    output = answer(ask(case, "edit"))
    assert edited(case), output
    same(case.seen()[0]["stream"], True)


def error(command, word):
    _, output, errors = call(command)
    assert word in output.decode() + errors, output.decode() + errors


def wrong_key(case):
    error(ask(case, "edit", key=WRONG_KEY), "AuthenticationError")


def no_model(case):
    error(ask(case, "edit", model=NO_MODEL), "NotFoundError")
    same(edited(case), False)


def limited(case):
    output = answer(ask(case, "limit"))
    assert edited(case), output
    at = [entry["at"] for entry in case.seen()]
    # It asks more often than it was told to, and weir spares the upstream all of that.
    same(len(at), 2)
    assert at[1] - at[0] > 0.9, f"asked again after {at[1] - at[0]:.2f} s"


def hangup(case):
    leave(case, ask(case, "slow"), b"1 ")


# The first start is slow: what is compiled then is there for the others.
call([AIDER, "--version"])
run(
    version("aider-chat"),
    {
        "plain": plain,
        "stream": stream,
        "401": wrong_key,
        "404": no_model,
        "429": limited,
        "hangup": hangup,
    },
    {
        "usage": "counts the tokens of streams itself",
        "tools": "edits by text alone",
        "json": "edits by text alone",
        "image": "only to models that it knows to see",
        "500": "asks again for minutes, by design",
    }.items(),
)
