"""Runs real clients against weir and a scripted upstream, and prints what worked.

    run.py                     installs what is missing, runs every client and `validate.py`
    run.py NAME...             only these (a client's name, or `validate`)
    run.py --lock              writes the lock files anew from the newest versions
    run.py --readme            only tells which blocks of the pages it would run

Each Python client has an environment of its own under target/clients/, made from its lock file in
locks/; the Node clients share one, made from node/package-lock.json. Packages are named, never
where they come from. Each client gets a weir and an upstream of its own, so that a rate limit
that one of them provokes is no other's. WEIR names the binary; `JOBS` is how many run at once,
and `ONLY=json` or `ONLY=gemini.json` runs one check.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = ROOT / "target" / "clients"
WEIR = Path(os.environ.get("WEIR", ROOT / "target" / "debug" / "weir")).resolve()
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

import models  # noqa: E402
import readme  # noqa: E402
from harness import CHECKS, MODELS  # noqa: E402
from upstream import KEEPALIVE_MS, Upstream  # noqa: E402

KEY = "sk-the-callers-key"
# The longest that one client may take.
LIMIT = 600

# Name of the environment -> what is asked for when it is locked.
PYTHON = {
    "openai": ["openai"],
    "langchain": ["langchain-openai"],
    "llamaindex": ["llama-index-llms-openai-like"],
    "instructor": ["instructor"],
    "pydantic-ai": ["pydantic-ai-slim[openai]"],
    "litellm": ["litellm"],
    "llm": ["llm"],
    "aider": ["aider-chat"],
    "validate": ["anthropic", "google-genai"],
}

# Name in the table -> environment (None: the system's), program.
CLIENTS = {
    "openai-python": ("openai", "openai_python.py"),
    "openai-node": ("node", "openai_node.mjs"),
    "langchain": ("langchain", "langchain_client.py"),
    "llamaindex": ("llamaindex", "llamaindex_client.py"),
    "vercel-ai": ("node", "vercel_ai.mjs"),
    "instructor": ("instructor", "instructor_client.py"),
    "pydantic-ai": ("pydantic-ai", "pydantic_ai_client.py"),
    "litellm": ("litellm", "litellm_client.py"),
    "llm": ("llm", "llm_client.py"),
    "aider": ("aider", "aider_client.py"),
    # These come with the system, in packages of their own names.
    "curl": (None, "curl_client.py"),
    "wget": (None, "wget_client.py"),
    "busybox-wget": (None, "busybox_client.py"),
}


def main(arguments):
    if arguments == ["--lock"]:
        return lock()
    if arguments == ["--readme"]:
        for block in readme.blocks():
            print(block.page, block.line, block.language, block.client)
        return 0
    wanted = arguments or [*CLIENTS, "validate"]
    unknown = [name for name in wanted if name not in CLIENTS and name != "validate"]
    if unknown:
        sys.exit(f"no such client: {', '.join(unknown)}")
    if not WEIR.is_file():
        sys.exit(f"{WEIR} is missing: build weir first, or name it in WEIR")
    TARGET.mkdir(parents=True, exist_ok=True)
    begun = time.time()
    clients = [name for name in wanted if name in CLIENTS]
    environments = {CLIENTS[name][0] for name in clients} - {None}
    if "validate" in wanted:
        environments.add("validate")
    programs = [name.split("-")[0] for name in clients if CLIENTS[name][0] is None]
    provide(programs + ["node", "npm"] * ("node" in environments))
    install(sorted(environments))
    installed = time.time()
    bodies = []
    with ThreadPoolExecutor(int(os.environ.get("JOBS", 3))) as pool:
        # Those that are started anew for each check take longest, and begin first.
        order = sorted(clients, key=lambda name: name not in ("aider", "llm"))
        done = dict(zip(order, pool.map(lambda name: run(name, bodies), order)))
        results = {name: done[name] for name in clients}
    passed, failed, skipped = table(results)
    if not os.environ.get("ONLY"):
        counts = try_readme(clients)
        passed, failed = passed + counts[0], failed + counts[1]
    (TARGET / "bodies.json").write_text(json.dumps(bodies))
    if "validate" in wanted:
        environment = os.environ | {"WEIR": str(WEIR)}
        program = [str(python("validate")), str(HERE / "validate.py")]
        done = subprocess.run(program, env=environment, stdout=subprocess.PIPE, text=True)
        print(done.stdout)
        counts = json.loads((TARGET / "validate.json").read_text()) if done.returncode < 2 else {}
        passed += counts.get("passed", 0)
        failed += counts.get("failed", 1)
    if not arguments:
        models.compare(WEIR)
    print(f"installing took {installed - begun:.0f} s, running {time.time() - installed:.0f} s")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


# Installing


def python(name):
    return TARGET / name / "bin" / "python"


def provide(programs):
    """Programs of the system: installed where that is ours to do, else asked for."""
    missing = [program for program in programs if not shutil.which(program)]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet(["apt-get", "update", "-qq"])
        packages = ["nodejs" if program == "node" else program for program in missing]
        quiet(["apt-get", "install", "-y", "-qq", *packages])
    elif missing:
        sys.exit(f"not installed: {', '.join(missing)}")


def install(names):
    for name in names:
        wish = HERE / "node" / "package-lock.json" if name == "node" else HERE / f"locks/{name}.txt"
        mark = TARGET / name / "installed"
        digest = hashlib.sha256(wish.read_bytes()).hexdigest()
        if mark.is_file() and mark.read_text() == digest:
            continue
        print(f"installing {name} ...", flush=True)
        shutil.rmtree(TARGET / name, ignore_errors=True)
        if name == "node":
            shutil.copytree(HERE / "node", TARGET / "node")
            quiet(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], TARGET / "node")
        else:
            quiet([sys.executable, "-m", "venv", "--without-pip", str(TARGET / name)])
            pip = [sys.executable, "-m", "pip", "--python", str(python(name))]
            pip += ["install", "-q", "--disable-pip-version-check", "--no-compile"]
            # The lock names everything, and what it names need not be resolved again.
            quiet([*pip, "--no-deps", "-r", str(wish)])
        mark.write_text(digest)


def quiet(command, folder=None):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def lock():
    for name, packages in PYTHON.items():
        with tempfile.TemporaryDirectory() as folder:
            quiet([sys.executable, "-m", "venv", folder])
            pip = [f"{folder}/bin/python", "-m", "pip", "--disable-pip-version-check"]
            quiet([*pip, "install", "-q", *packages])
            (HERE / f"locks/{name}.txt").write_text(quiet([*pip, "freeze"]))
        print(f"locked {name}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(HERE / "node" / "package.json", folder)
        quiet(["npm", "update", "--package-lock-only", "--save", "--ignore-scripts"], folder)
        lock = json.loads(Path(folder, "package-lock.json").read_text())
        for package in lock["packages"].values():
            # Where it came from is the business of whoever installs it.
            package.pop("resolved", None)
            package.pop("funding", None)
        shutil.copy(Path(folder, "package.json"), HERE / "node" / "package.json")
        text = json.dumps(lock, indent=2) + "\n"
        (HERE / "node" / "package-lock.json").write_text(text)
    return 0


# Running


class Weir:
    """The built binary with an upstream per format, all of them at `url`."""

    def __init__(self, url, folder, **more):
        formats = {"anthropic": "claude-*", "gemini": "gemini-*", "openai": "gpt-*"}
        upstreams = [
            {"name": name, "format": name, "base_url": url, "keys": ["k"], "models": [pattern]}
            for name, pattern in formats.items()
        ]
        # Models that have to be asked at /responses, which weir is told when it asks.
        upstreams.append(
            {"name": "responses", "format": "openai", "base_url": url, "keys": ["k"]}
            | {"models": ["reasoner*"]}
        )
        config = {"listen": "127.0.0.1:0", "client_keys": [KEY], "upstreams": upstreams}
        # A fault is tried twice, and soon: what is tested is how it is told.
        config |= {"retries": 1, "backoff_ms": 10, "keepalive_ms": KEEPALIVE_MS} | more
        path = Path(folder, "weir.json")
        path.write_text(json.dumps(config))
        self.log = open(Path(folder, "weir.log"), "w")
        command = [str(WEIR), "--verbose", "--config", str(path)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline().strip()
        if not line:
            sys.exit(f"weir did not start: {Path(folder, 'weir.log').read_text()}")
        self.url = "http://" + line.split("://")[-1].split()[-1].rstrip("/")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.log.close()


def own_environment():
    """What this process was started with, less what would make the clients slow."""
    kept = dict(os.environ)
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    # What is compiled stays out of the source tree.
    return kept | {"PYTHONPYCACHEPREFIX": str(TARGET / "pycache")}


def run(name, bodies):
    environment, program = CLIENTS[name]
    folder = TARGET / "runs" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    upstream = Upstream().begin()
    weir = Weir(upstream.url, folder)
    told = {
        "WEIR_URL": f"{weir.url}/v1",
        "WEIR_KEY": KEY,
        "UPSTREAM_URL": upstream.url,
        "SCRATCH": str(folder),
        "PYTHONPATH": str(HERE),
        "HOME": str(folder),
        # Nothing is to be told to anyone.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_TELEMETRY": "False",
        "NO_PROXY": "*",
    }
    if environment == "node":
        # Modules are found from where the program lies.
        for file in ("harness.mjs", program):
            shutil.copy(HERE / file, TARGET / "node" / file)
        command = ["node", str(TARGET / "node" / program)]
    else:
        own = python(environment) if environment else sys.executable
        command = [str(own), str(HERE / program)]
    begun = time.time()
    with open(folder / "stderr", "w") as errors:
        try:
            done = subprocess.run(
                command,
                env=own_environment() | told,
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=errors,
                stdin=subprocess.DEVNULL,
                timeout=LIMIT,
            )
            output = done.stdout
        except subprocess.TimeoutExpired as late:
            output = late.stdout or b""
    weir.stop()
    upstream.shutdown()
    bodies += [[name, *body] for body in upstream.ledger.bodies]
    results = []
    for line in output.decode(errors="replace").splitlines():
        try:
            results.append(json.loads(line))
        except ValueError:
            continue
    version = next((result["version"] for result in results if "version" in result), "?")
    seconds = time.time() - begun
    print(f"{name} {version}: {seconds:.0f} s", flush=True)
    return {"version": version, "results": results, "seconds": seconds, "folder": folder}


def try_readme(clients):
    """Runs what the README tells the users of these clients, and counts."""
    wrong = []
    blocks = [block for block in readme.blocks() if block.client in clients]
    demo = readme.Demo(WEIR)

    def attempt(block):
        environment = CLIENTS[block.client][0]
        own = python(environment) if environment not in (None, "node") else None
        return readme.attempt(block, demo.address, own_environment(), own, TARGET / "node")

    with ThreadPoolExecutor(int(os.environ.get("JOBS", 3))) as pool:
        for block, problem in zip(blocks, pool.map(attempt, blocks)):
            if problem:
                wrong.append(f"FAILED {block.page} line {block.line}, {block.client}: {problem}")
    demo.stop()
    for name in clients:
        if not any(block.client == name for block in blocks):
            wrong.append(f"FAILED {name} has no block in the manual")
    print("\n".join([f"README and manual: {len(blocks)} blocks for clients run", *wrong]), end="\n\n")
    return len(blocks) - len(wrong), len(wrong)


def table(results):
    """Prints the table and what failed, and counts."""
    counts = {"ok": 0, "FAILED": 0, "-": 0}
    only = os.environ.get("ONLY")
    width = max((len(f"{name} {run['version']}") for name, run in results.items()), default=0)
    print("\n" + " " * width + " upstream  " + " ".join(f"{check:7}" for check in CHECKS))
    failures = []
    for name, run in results.items():
        told = {(result["format"], result["check"]): result for result in run["results"][1:]}
        for format in MODELS:
            cells = []
            for check in CHECKS:
                if only and only not in (check, f"{format}.{check}"):
                    cells.append("")
                    continue
                result = told.get((format, check), {"error": f"no result, see {run['folder']}"})
                cell = "-" if "skipped" in result else "ok" if result.get("ok") else "FAILED"
                counts[cell] += 1
                cells.append(cell)
                if cell == "FAILED":
                    failures.append(f"{name} {format} {check}: {result['error']}")
            title = f"{name} {run['version']}".ljust(width)
            print(f"{title} {format:9} " + " ".join(f"{cell:7}" for cell in cells))
        for check, reason in {
            result["check"]: result["skipped"] for result in run["results"] if "skipped" in result
        }.items():
            print(f"{' ' * width} (- {check}: {reason})")
    print()
    for failure in failures:
        print(f"FAILED {failure}")
    return counts["ok"], counts["FAILED"], counts["-"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
