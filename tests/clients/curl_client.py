"""curl, as in a shell script."""

from commands import *

URL = f"{BASE}/chat/completions"


def post(body, key=KEY, *more):
    head = ["-H", f"Authorization: Bearer {key}", "-H", "Content-Type: application/json"]
    return ["curl", "-sSN", "--fail-with-body", *more, *head, "-d", json.dumps(body), URL]


def error(case, status, code, body, key=KEY):
    exit_code, output, errors = call(post(body, key))
    # 22: the server said 400 or more.
    same((exit_code, str(status) in errors), (22, True))
    same(json.loads(output)["error"]["code"], code)
    return json.loads(output)["error"]


def wrong_key(case):
    error(case, 401, "invalid_api_key", chat_body(case, "plain"), WRONG_KEY)


def no_model(case):
    body = chat_body(case, "plain") | {"model": NO_MODEL}
    same(error(case, 404, "model_not_found", body)["param"], "model")


def limited(case):
    begun = time.time()
    done = answer(post(chat_body(case, "limit"), KEY, "--retry", "3"))
    # What it was told before it tried again is printed too, without a line's end between.
    same(json.loads(done[done.rindex('{"id"') :])["choices"][0]["message"]["content"], PLAIN)
    case.retried(begun)


def fault(case):
    exit_code, output, _ = call(post(chat_body(case, "fault")))
    same(exit_code, 22)
    assert "the scripted fault" in json.loads(output)["error"]["message"]
    # The same for a stream that never began.
    exit_code, output, _ = call(post(chat_body(case, "fault", stream=True)))
    same(exit_code, 22)


version = answer(["curl", "--version"]).split()[1]
run(
    version,
    Http(post).checks() | {"401": wrong_key, "404": no_model, "429": limited, "500": fault},
)
