#!/usr/bin/env bash
# Codex CLI 0.171.0 declares its tools in two places, and the model's name decides in which.
#
# Asked for a name that it does not know, its request to /responses has a member `tools`. Asked for
# `gpt-6.2-sol`, the request has no `tools` at all: the first item of `input` is of type
# `additional_tools`, with the role `developer`, and its own `tools` hold namespaces, one of them
# `functions` with a custom tool `exec` that runs JavaScript. A server that reads `tools` alone, as
# the API's reference describes it for a request, answers as if there were none.
#
# Needs node, npm and python3. Seen with @openai/codex 0.171.0 on Linux. Fails if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit --prefix . @openai/codex@0.171.0
cat > listen.py <<'PYTHON'
import http.server
import json
import subprocess
import sys
import threading

seen = []


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        seen.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        body = b'{"error": {"message": "that is all", "type": "invalid_request_error"}}'
        self.send_response(400)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
for model in ("a-model", "gpt-6.2-sol"):
    with open("home/.codex/config.toml", "w") as config:
        config.write(f"""model = "{model}"
model_provider = "probe"
[model_providers.probe]
name = "probe"
base_url = "http://127.0.0.1:{server.server_address[1]}/v1"
env_key = "PROBE_KEY"
wire_api = "responses"
""")
    command = ["node_modules/.bin/codex", "exec", "--skip-git-repo-check", "hello"]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
    request = next(request for request in seen if request["model"] == model)
    first = request["input"][0]
    print(f"{model}: tools {'tools' in request}, first item {first['type']}")
    if first["type"] == "additional_tools":
        print("  namespaces:", ", ".join(tool["name"] for tool in first["tools"]))
PYTHON
mkdir -p home/.codex
HOME=$folder/home PROBE_KEY=any NO_PROXY='*' python3 listen.py > out
cat out
grep -qx 'a-model: tools True, first item message' out
grep -qx 'gpt-6.2-sol: tools False, first item additional_tools' out
grep -q 'namespaces: functions' out
echo 'as described'
