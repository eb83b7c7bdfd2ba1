"""GNU wget, as in a shell script."""

from commands import *

URL = f"{BASE}/chat/completions"


def post(body, key=KEY, *more):
    head = [f"--header=Authorization: Bearer {key}", "--header=Content-Type: application/json"]
    more = more or ("--tries=1",)
    command = ["wget", "-nv", "-O", "-", "--content-on-error", *more, *head]
    return [*command, f"--post-data={json.dumps(body)}", URL]


def error(status, code, body, key=KEY):
    exit_code, output, errors = call(post(body, key))
    if status == 401:
        # It takes this for a wish to log in, and shows nothing of the answer.
        same((exit_code, "Authentication Failed" in errors), (6, True))
    else:
        same((exit_code, str(status) in errors), (8, True))
        same(json.loads(output)["error"]["code"], code)


def wrong_key(case):
    error(401, "invalid_api_key", chat_body(case, "plain"), WRONG_KEY)


def no_model(case):
    error(404, "model_not_found", chat_body(case, "plain") | {"model": NO_MODEL})


def limited(case):
    begun = time.time()
    body = chat_body(case, "limit")
    # It does not read Retry-After; its own wait grows by a second per try.
    waits = ("--tries=4", "--waitretry=2", "--retry-on-http-error=429", "--no-content-on-error")
    done = answer(post(body, KEY, *waits))
    same(json.loads(done[done.rindex('{"id"') :])["choices"][0]["message"]["content"], PLAIN)
    case.retried(begun)


def fault(case):
    exit_code, output, _ = call(post(chat_body(case, "fault")))
    same(exit_code, 8)
    assert "the scripted fault" in json.loads(output)["error"]["message"]


version = answer(["wget", "--version"]).split()[2]
run(
    version,
    Http(post).checks() | {"401": wrong_key, "404": no_model, "429": limited, "500": fault},
)
