"""BusyBox's wget, as on a small box without curl or jq."""

import re

from commands import *

URL = f"{BASE}/chat/completions"


def post(body, key=KEY):
    head = ["--header", f"Authorization: Bearer {key}", "--header", "Content-Type: application/json"]
    command = ["busybox", "wget", "-q", "-O", "-", *head]
    return [*command, "--post-data", json.dumps(body), URL]


def error(status, body, key=KEY):
    exit_code, _, errors = call(post(body, key))
    # The status is all that it tells of an error.
    same((exit_code, f" {status} " in errors), (1, True))


def wrong_key(case):
    error(401, chat_body(case, "plain"), WRONG_KEY)


def no_model(case):
    error(404, chat_body(case, "plain") | {"model": NO_MODEL})


def limited(case):
    begun = time.time()
    body = chat_body(case, "limit")
    error(429, body)
    # Its callers see no Retry-After, so a script has a wait of its own.
    time.sleep(2)
    done = json.loads(answer(post(body)))
    same(done["choices"][0]["message"]["content"], PLAIN)
    case.retried(begun)


def fault(case):
    error(500, chat_body(case, "fault"))


_, _, about = call(["busybox", "--help"])
version = re.search(r"BusyBox v(\S+)", about + answer(["busybox"]))[1]
run(
    version,
    Http(post).checks() | {"401": wrong_key, "404": no_model, "429": limited, "500": fault},
)
