"""Runs real coding agents against weir, with a scripted upstream of each format behind it.

    run.py            installs what is missing under target/agents, runs every agent, prints the table
    run.py NAME...    only these

Each agent is asked once per format, headless, in a folder and a HOME of its own: its upstream calls
the agent's tool that reads a file twice in one answer, and then tells what was read. What the agent
prints in the end proves that calls went there, results came back, and text was told. WEIR names the
binary; `FORMAT=gemini` runs one format.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = ROOT / "target" / "agents"
WEIR = Path(os.environ.get("WEIR", ROOT / "target" / "debug" / "weir")).resolve()
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

from script import FILES, AgentUpstream  # noqa: E402

KEY = "sk-the-callers-key"
# The longest that one run may take.
LIMIT = 90
# What stands behind the agent's model, by the format of the upstream.
MODELS = {
    "openai": "gpt-6.2-sol",
    "anthropic": "claude-opus-5-5",
    "gemini": "gemini-3.8-flash",
    "responses": "gpt-6.2-sol",
}
PROMPT = "Read first.txt and second.txt and tell what they say. #agent:{unique}"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text))


def claude_code(base, home, prompt):
    command = ["claude", "-p", prompt, "--allowedTools", "Read", "--model", "claude-opus-5-5"]
    return command, {
        "ANTHROPIC_BASE_URL": base,
        "ANTHROPIC_API_KEY": KEY,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
    }


def codex(model):
    def prepare(base, home, prompt):
        write(
            home / ".codex" / "config.toml",
            f'model = "{model}"\nmodel_provider = "weir"\n'
            f'[model_providers.weir]\nname = "weir"\nbase_url = "{base}/v1"\n'
            'env_key = "WEIR_KEY"\nwire_api = "responses"\n',
        )
        command = ["codex", "exec", "--skip-git-repo-check", "--sandbox", "danger-full-access", prompt]
        return command, {"WEIR_KEY": KEY}

    return prepare


def gemini_cli(base, home, prompt):
    write(home / ".gemini" / "settings.json", {"security": {"auth": {"selectedType": "gemini-api-key"}}})
    command = ["gemini", "-m", "gemini-3.8-flash", "-p", prompt, "--approval-mode", "yolo", "--skip-trust"]
    return command, {"GOOGLE_GEMINI_BASE_URL": base, "GEMINI_API_KEY": KEY}


def opencode(kind, package, options):
    def prepare(base, home, prompt):
        provider = {
            "npm": package,
            "name": "weir",
            "options": {"baseURL": base + options, "apiKey": KEY},
            "models": {"main": {"name": "main", "tool_call": True}},
        }
        config = {"provider": {"weir": provider}, "model": "weir/main", "small_model": "weir/main"}
        write(home / ".config" / "opencode" / "opencode.json", config)
        return ["opencode", "run", prompt], {"OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1"}

    return prepare


def qwen(kind):
    def prepare(base, home, prompt):
        write(home / ".qwen" / "settings.json", {"security": {"auth": {"selectedType": "openai"}}})
        command = ["qwen", "-m", "main", "-p", prompt, "--approval-mode", "yolo"]
        return command, {"OPENAI_BASE_URL": f"{base}/v1", "OPENAI_API_KEY": KEY, "OPENAI_MODEL": "main"}

    return prepare


def continue_cli(base, home, prompt):
    model = {
        "name": "main", "provider": "openai", "model": "main", "apiBase": f"{base}/v1",
        "apiKey": KEY, "roles": ["chat"], "capabilities": ["tool_use"],
    }
    # JSON is YAML.
    write(home / "config.yaml", {"name": "weir", "version": "1.0.0", "schema": "v1", "models": [model]})
    command = ["cn", "-p", "--auto", "--config", str(home / "config.yaml"), prompt]
    return command, {"CONTINUE_GLOBAL_DIR": str(home / ".continue"), "FORCE_NO_TTY": "true"}


def cline(base, home, prompt):
    login = ["cline", "auth", "-p", "openai-compatible", "-k", KEY, "-m", "main", "-b", f"{base}/v1"]
    start = ["cline", "-P", "openai-compatible", "-m", "main"]
    script = " ".join(map(shlex.quote, login)) + " >/dev/null && exec " + " ".join(map(shlex.quote, [*start, prompt]))
    return ["sh", "-c", script], {}


def python(program, variables):
    def prepare(base, home, prompt):
        environment = {name: value.replace("BASE", base) for name, value in variables.items()}
        return ["python3", str(HERE / program), prompt], environment

    return prepare


# Pairs that say nothing of weir: it relays, and the script has no words for what is asked.
SKIPPED = {("codex-gpt-6", "responses")}

# What the reading tool of an agent calls its path, where its name does not tell.
ARGUMENTS = {"continue": "filepath"}

# Name -> package and version, what it speaks, how it is started.
AGENTS = {
    "claude-code": ("@anthropic-ai/claude-code@2.1.332", "Messages", claude_code),
    # With a model that it does not know, and with one that it sends its tools among the messages.
    "codex": ("@openai/codex@0.171.0", "Responses", codex("main")),
    "codex-gpt-6": ("@openai/codex@0.171.0", "Responses", codex("gpt-6.2-sol")),
    "gemini-cli": ("@google/gemini-cli@0.61.0", "Gemini", gemini_cli),
    "opencode": ("opencode-ai@1.18.33", "Chat", opencode("chat", "@ai-sdk/openai-compatible", "/v1")),
    "opencode-anthropic": ("opencode-ai@1.18.33", "Messages", opencode("anthropic", "@ai-sdk/anthropic", "/v1")),
    "opencode-openai": ("opencode-ai@1.18.33", "Responses", opencode("openai", "@ai-sdk/openai", "/v1")),
    "opencode-google": ("opencode-ai@1.18.33", "Gemini", opencode("google", "@ai-sdk/google", "/v1beta")),
    "qwen-code": ("@qwen-code/qwen-code@0.24.4", "Chat", qwen("openai")),
    "continue": ("@continuedev/cli@1.5.47", "Chat", continue_cli),
    "cline": ("cline@3.0.65", "Chat", cline),
    "openai-agents-sdk": (
        "openai-agents==0.24.0", "Responses",
        python("openai_agents.py", {"OPENAI_BASE_URL": "BASE/v1", "OPENAI_API_KEY": KEY}),
    ),
    "claude-agent-sdk": (
        "claude-agent-sdk==0.2.189", "Messages",
        python("claude_agent.py", {"ANTHROPIC_BASE_URL": "BASE", "ANTHROPIC_API_KEY": KEY,
                                   "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}),
    ),
}


def main(arguments):
    unknown = [name for name in arguments if name not in AGENTS]
    if unknown:
        sys.exit(f"no such agent: {', '.join(unknown)}")
    if not WEIR.is_file():
        sys.exit(f"{WEIR} is missing: build weir first, or name it in WEIR")
    if not (shutil.which("node") and shutil.which("npm")):
        sys.exit("the agents need node and npm")
    wanted = arguments or list(AGENTS)
    formats = [os.environ["FORMAT"]] if "FORMAT" in os.environ else list(MODELS)
    begun = time.time()
    for package in dict.fromkeys(AGENTS[name][0] for name in wanted):
        install(package)
    installed = time.time()
    rows, failures = {}, []
    for name in wanted:
        for format in formats:
            if (name, format) in SKIPPED:
                rows.setdefault(name, {})[format] = None
                continue
            problem = attempt(name, format)
            rows.setdefault(name, {})[format] = problem is None
            print(f"{name} {format}: {problem or 'ok'}", flush=True)
            if problem:
                failures.append(f"{name} with {format} behind: {problem}")
    table(rows, formats)
    print(f"installing took {installed - begun:.0f} s, running {time.time() - installed:.0f} s")
    sys.exit(1 if failures else 0)


def folder_of(package):
    return TARGET / package.lstrip("@").replace("/", "-")


def install(package):
    folder = folder_of(package)
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    if "==" in package:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(folder / "bin" / "pip"), "-q", "install", package], check=True)
        (folder / "done").touch()
        return
    command = ["npm", "install", "--no-fund", "--no-audit", "--loglevel=error", "--prefix", str(folder), package]
    subprocess.run(command, check=True, cwd=folder, stdin=subprocess.DEVNULL)
    (folder / "done").touch()


def attempt(name, format):
    """Runs one agent with one format behind it; what went wrong, or None."""
    package, _, prepare = AGENTS[name]
    unique = f"{name}-{format}"
    upstream = AgentUpstream(format).begin()
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        home, work = scratch / "home", scratch / "work"
        home.mkdir()
        work.mkdir()
        secrets = [f"{word}-{os.urandom(4).hex()}" for word in ("apple", "pear")]
        for file, secret in zip(FILES, secrets):
            (work / file).write_text(secret + "\n")
        upstream.runs[unique] = {"secrets": secrets, "folder": str(work), "argument": ARGUMENTS.get(name)}
        config = {
            "client_keys": [{"name": "agents", "key": KEY}],
            "upstreams": [
                {"name": "up", "format": format, "base_url": upstream.url, "keys": ["sk-the-upstreams"],
                 "models": [MODELS[format]]}
            ],
            "models": {"*": [f"up/{MODELS[format]}"]},
        }
        write(scratch / "weir.json", config)
        log = open(scratch / "log", "w+")
        weir = subprocess.Popen(
            [str(WEIR), "--config", str(scratch / "weir.json"), "--listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE, stderr=log, text=True, env={"PATH": os.environ["PATH"]},
        )
        try:
            base = weir.stdout.readline().strip()
            command, environment = prepare(base, home, PROMPT.format(unique=unique))
            folder = folder_of(package)
            bin = folder / "bin" if "==" in package else folder / "node_modules" / ".bin"
            basic = {
                "PATH": f"{bin}:{os.environ['PATH']}", "HOME": str(home), "NO_PROXY": "*", "CI": "1",
                "TERM": "dumb", "XDG_CONFIG_HOME": str(home / ".config"),
            }
            ended = run(command, basic | environment, work)
            told = all(secret in ended.out for secret in secrets)
            log.seek(0)
            tail = [line for line in log.read().splitlines() if " status=200" not in line][-6:]
            if not told:
                return f"exit {ended.code}: {ended.out[-1500:]!r} {ended.err[-1500:]!r} {tail}"
            return wrong_with(upstream.ledger.seen.get(unique, []), format, secrets)
        finally:
            end_those_of(scratch)
            weir.kill()
            weir.wait()
            log.close()
            upstream.shutdown()
            upstream.server_close()


def end_those_of(scratch):
    """Ends what an agent left running: everything that was told of its folder."""
    told = str(scratch).encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if told in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:
            continue


def wrong_with(seen, format, secrets):
    """What the upstream's ledger says against it."""
    with_results = [entry for entry in seen if entry["results"]]
    if not with_results:
        return "no request had results"
    if not all(secret in " ".join(with_results[-1]["results"]) for secret in secrets):
        return "a result is missing"
    # What the vendor signed has to come back with its calls.
    if format in ("gemini", "responses") and not with_results[-1]["signatures"]:
        return "the reasoning's signature did not come back"
    return None


class Ended:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err


def run(command, environment, folder):
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=LIMIT)
        return Ended(process.returncode, out, err)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        return Ended(f"none within {LIMIT} s", out, err)


def table(rows, formats):
    print("\n| agent | version | speaks | " + " | ".join(formats) + " |")
    print("|---|---|---|" + "---|" * len(formats))
    for name, cells in rows.items():
        package, speaks, _ = AGENTS[name]
        version = package.replace("==", "@").rsplit("@", 1)[1]
        words = [{True: "works", False: "FAILED", None: "-"}[cells[format]] for format in formats]
        print(f"| {name} | {version} | {speaks} | " + " | ".join(words) + " |")
    print()


if __name__ == "__main__":
    main(sys.argv[1:])
