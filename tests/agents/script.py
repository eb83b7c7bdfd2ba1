"""What the scripted upstream says to an agent: it has the two files read in parallel, which the
agent's own tool does, and then tells what was in them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "clients"))
sys.dont_write_bytecode = True

from upstream import Answer, Handler, Upstream, WIRES  # noqa: E402

THOUGHT = "Both files have to be read."
FILES = ("first.txt", "second.txt")
# The name of an agent's tool that reads a file -> the arguments for a path.
READERS = {
    "Read": lambda path: {"file_path": path},
    "read": lambda path: {"filePath": path},
    "read_files": lambda path: {"files": [{"path": path}]},
    "read_file": lambda path: {"file_path": path, "absolute_path": path},
    "exec_command": lambda path: {"cmd": f"cat {path}"},
    "shell_command": lambda path: {"command": f"cat {path}"},
    "shell": lambda path: {"command": ["cat", path]},
    "Bash": lambda path: {"command": f"cat {path}"},
    "bash": lambda path: {"command": f"cat {path}", "description": "reads a file"},
}

# Tools that run a program, which then calls the others.
RUNNERS = ("exec", "functions__exec")


class AgentHandler(Handler):
    """Answers by what the request holds, since agents ask for more than they were asked to."""

    def do_POST(self):
        # A compatible server has chats alone, so that Responses have to be translated for it.
        if self.server.format == "openai" and self.path.startswith("/v1/responses"):
            self.rfile.read(int(self.headers["Content-Length"]))
            return self.send_json(404, {"error": {"message": "no such path: /v1/responses"}})
        return super().do_POST()

    def script(self, asked):
        run = self.server.runs.get(asked.unique)
        if run is None or asked.scenario != "agent":
            # A title, a router, a summary: whatever it is, a short text does.
            return Answer(["{}" if asked.schema else "A short title"])
        told = " ".join(asked.results)
        if all(secret in told for secret in run["secrets"]):
            return Answer(["The files say: ", " and ".join(run["secrets"]), "."])
        reader = next((name for name in [*READERS, *RUNNERS] if name in asked.tools), None)
        if reader is None:
            return Answer([f"There is no tool that reads among {asked.tools}."])
        if reader in RUNNERS:
            reads = "\n".join(
                f"text((await tools.exec_command({{cmd: 'cat {run['folder']}/{file}'}})).output);"
                for file in FILES
            )
            return Answer([], [(reader, {"input": reads})], THOUGHT)
        paths = [f"{run['folder']}/{file}" for file in FILES]
        named = run.get("argument")
        arguments = (lambda path: {named: path}) if named else READERS[reader]
        calls = [(reader, arguments(path)) for path in paths]
        return Answer([], calls, THOUGHT)


class AgentUpstream(Upstream):
    def __init__(self, format):
        super().__init__()
        self.RequestHandlerClass = AgentHandler
        self.format = format
        self.runs = {}
