"""The lines in the README and the manual that point each client at weir, run as they stand there.

A block behind `<!-- client: NAME -->` is a program for the client of that name in `run.py`, in the
language that its fence says. It is run in that client's environment against weir's own demo, to
whose address `localhost:8080` is changed, and has to end well and print what the demo answered.
tests/readme holds that no other block in a client's language is there.
"""

import os
import re
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "src/manual").glob("*.md"))]
MARK = re.compile(r"<!-- client: (\S+) -->")
# The language of a fence, and how a file of it ends.
LANGUAGES = {"python": "py", "js": "mjs", "bash": "sh"}
# The longest that one may take.
LIMIT = 180
# Whatever is asked of the demo, this is in its answer.
ANSWER = "demo"
# aider asks its user this and that, and looks around the world.
AIDER = {
    f"AIDER_{name}": value
    for name, value in {
        "YES_ALWAYS": "true",
        "GIT": "false",
        "PRETTY": "false",
        "CHECK_UPDATE": "false",
        "SHOW_MODEL_WARNINGS": "false",
        "SHOW_RELEASE_NOTES": "false",
        "ANALYTICS": "false",
    }.items()
}


class Block:
    def __init__(self, page, client, language, line):
        self.page, self.client, self.language = page, client, language
        self.line, self.text = line, ""


def blocks():
    """The pages' blocks for clients, in order."""
    return [block for page in PAGES for block in of_page(page)]


def of_page(page):
    path = page.relative_to(ROOT)
    found, name, inside = [], None, None
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if inside is not None:
            if line == "```":
                inside = None
            else:
                inside.text += line + "\n"
        elif line.startswith("```"):
            inside = Block(path, name, line[3:], number + 1)
            if name:
                found.append(inside)
            name = None
        elif mark := MARK.fullmatch(line):
            name = mark[1]
        elif line:
            name = None
    return found


class Demo:
    """weir without a config and without keys, as `make run` starts it."""

    def __init__(self, weir):
        self.folder = tempfile.TemporaryDirectory()
        command = [str(weir), "--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            command,
            cwd=self.folder.name,
            env={"PATH": os.environ["PATH"]},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.address = self.process.stdout.readline().strip().removeprefix("http://")

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


def attempt(block, address, environment, python, node):
    """Runs one block. `python` is the client's own, `node` the folder of the Node clients. Gives
    what went wrong, or None."""
    with tempfile.TemporaryDirectory() as scratch:
        end = LANGUAGES[block.language]
        # Modules are found from where the program lies.
        folder = node if end == "mjs" else Path(scratch)
        program = folder / f"{block.page.stem}-{block.line}.{end}"
        program.write_text(block.text.replace("localhost:8080", address))
        command = {"py": [str(python), str(program)], "mjs": ["node", str(program)]}
        command = command.get(end, ["sh", "-e", str(program)])
        kept = {name: text for name, text in environment.items() if not name.startswith("OPENAI_")}
        more = {"HOME": scratch, "NO_PROXY": "*", "LITELLM_LOCAL_MODEL_COST_MAP": "True"} | AIDER
        if python:
            more["PATH"] = f"{python.parent}:{os.environ['PATH']}"
        try:
            done = subprocess.run(
                command,
                cwd=scratch,
                env=kept | more,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=LIMIT,
            )
        except subprocess.TimeoutExpired:
            return f"no end within {LIMIT} s"
        if done.returncode:
            return f"exit {done.returncode}: {done.stdout[-500:]}{done.stderr[-2000:]}"
        return None if ANSWER in done.stdout else f"printed {done.stdout!r}"
