#!/usr/bin/env python3
"""Measures weir beside nginx's proxy_pass and the direct call: `make bench`.

gwbench is the provider and the load; it runs the targets in interleaved rounds, so that whatever
else the machine does falls on all of them alike. Neither times nor ratios carry over to other
machines; `make cost` counts what does.
Everything lies under target/bench afterwards: bench.json, the configs and the logs.

GWBENCH        its binary; without it, it is built from ../shared/bench
WEIR           the weir to measure (target/release/weir)
WEIR_ALSO      more of them as further columns: NAME=PATH,NAME=PATH
BENCH_SECONDS  about how long all of it takes (210)
BENCH_ONLY     stages by a part of their names, with commas between: relay,streams,translated,memory
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "target" / "bench"

# A stream of this many chunks this far apart takes two seconds whatever the gateway.
CHUNKS, INTERVAL_MS = 100, 20
# The streams that only have to be there: few chunks, so that the load side does not take a core.
LIVE_CHUNKS, LIVE_INTERVAL_MS, LIVE = 30, 200, 1000

NGINX = """
daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
pid {out}/nginx.pid;
error_log {out}/nginx.log warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {out}/tmp; proxy_temp_path {out}/tmp; fastcgi_temp_path {out}/tmp;
    uwsgi_temp_path {out}/tmp; scgi_temp_path {out}/tmp;
    keepalive_requests 1000000000;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_buffering off;
    proxy_read_timeout 600s;
{servers}
}}
"""

NGINX_SERVER = """
    upstream to{port} {{ server 127.0.0.1:{upstream}; keepalive 1100;
        keepalive_requests 1000000000; }}
    server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass http://to{port}; }} }}
"""


class Bench:
    def __init__(self):
        self.children = []
        self.results = {}
        self.problems = []
        self.seconds = float(os.environ.get("BENCH_SECONDS", "210"))
        self.only = [word for word in os.environ.get("BENCH_ONLY", "").split(",") if word]
        self.rounds = 3 if self.seconds >= 120 else 1
        self.gwbench = gwbench()
        self.weirs = {"weir": os.environ.get("WEIR") or str(ROOT / "target/release/weir")}
        for word in os.environ.get("WEIR_ALSO", "").split(","):
            if word:
                name, path = word.split("=", 1)
                self.weirs[name] = path
        # What the streams take is given; the rest is for the requests that are not streamed.
        columns = len(self.weirs) + 2
        streams = self.rounds * (columns + 3) * 2.3 + len(self.weirs) * 22
        self.cell = max(0.3, (self.seconds - streams) / (self.rounds * (3 * columns + 3)))

    # Processes.

    def start(self, name, command):
        log = open(OUT / f"{name}.out", "wb")
        # An empty environment but for these, so that no proxy or key is picked up.
        env = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        child = subprocess.Popen(
            command, cwd=OUT, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.children.append(child)
        return child

    def end(self, child):
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        self.children.remove(child)

    def end_all(self):
        for child in list(self.children):
            self.end(child)

    def upstream(self, name, *options):
        port = free_port()
        self.start(name, [self.gwbench, "upstream", "--listen", f"127.0.0.1:{port}", *options])
        wait_for(port)
        return port

    def nginx(self, upstreams):
        """Its process and a port of its own for each of the upstreams."""
        binary = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if not binary:
            self.problem("nginx is not installed: no ratios to it")
            return None, {}
        ports = {name: free_port() for name in upstreams}
        servers = [NGINX_SERVER.format(port=ports[name], upstream=port)
                   for name, port in upstreams.items()]
        config = OUT / "nginx.conf"
        config.write_text(NGINX.format(out=OUT, servers="".join(servers)))
        child = self.start("nginx", [
            binary, "-p", str(OUT), "-c", str(config), "-e", str(OUT / "nginx.log")])
        wait_for(ports["fast"])
        return child, ports

    def weir(self, name, upstreams, **settings):
        port = free_port()
        config = OUT / f"{name}.json"
        config.write_text(json.dumps(weir_config(upstreams, **settings), indent=2))
        command = [self.weirs[name.split("-")[0]], "--config", str(config),
                   "--listen", f"127.0.0.1:{port}"]
        child = self.start(name, command)
        wait_for(port)
        return child, port

    # Measuring.

    def wants(self, stage):
        return not self.only or any(word in stage for word in self.only)

    def problem(self, text):
        print(f"  ! {text}", file=sys.stderr, flush=True)
        self.problems.append(text)

    def run(self, arguments, seconds):
        done = subprocess.run([self.gwbench, *arguments], capture_output=True, text=True,
                              timeout=seconds)
        if done.returncode != 0:
            raise RuntimeError((done.stderr.strip() or "no word").splitlines()[-1])
        return done.stdout

    def answers(self, stage, target, stream):
        """Whether a target gives one right answer. One that does not is told and left out."""
        words = ["load", "--url", target["url"], "--model", target["model"], "--concurrency", "1",
                 "--requests", "1", "--timeout-s", "10", "--json"]
        if stream:
            words.append("--stream")
        try:
            report = json.loads(self.run(words, 30))
            if report.get("ok") == 1:
                return True
            why = json.dumps(report.get("errors"))
        except (RuntimeError, subprocess.TimeoutExpired, ValueError) as error:
            why = str(error)
        self.problem(f"{stage}: {target['name']} gives no right answer: {why}")
        return False

    def versus(self, stage, targets, load, seconds):
        """The summaries of the targets by name."""
        print(f"{stage} ...", file=sys.stderr, flush=True)
        stream = "--stream" in load
        targets = [target for target in targets if self.answers(stage, target, stream)]
        if not targets:
            return {}
        words = ["versus", "--rounds", str(self.rounds), "--timeout-s", "20", "--json", *load]
        for target in targets:
            text = f"{target['name']}={target['url']},model={target['model']}"
            if target.get("pid"):
                text += f",pid={target['pid']}"
            words += ["--target", text]
        try:
            limit = 60 + 3 * self.rounds * len(targets) * seconds
            reports = json.loads(self.run(words, limit))
        except (RuntimeError, subprocess.TimeoutExpired, ValueError) as error:
            self.problem(f"{stage}: {error}")
            return {}
        self.results[stage] = reports
        for report in reports:
            failed = sum(one["requests"] - one["ok"] for one in report["rounds"])
            if failed:
                errors = [one["errors"] for one in report["rounds"] if one["errors"]]
                self.problem(f"{stage}: {report['target']}: {failed} failed: {json.dumps(errors)}")
        return {report["target"]: report["summary"] for report in reports}


def gwbench():
    given = os.environ.get("GWBENCH")
    if given:
        return str(Path(given).resolve())
    source = ROOT.parent / "shared" / "bench"
    if not (source / "Cargo.toml").exists():
        sys.exit("bench: no gwbench; name its binary with GWBENCH=PATH")
    target = ROOT / "target" / "gwbench"
    subprocess.run([os.environ.get("CARGO", "cargo"), "build", "--locked", "--release", "--quiet",
                    "--manifest-path", str(source / "Cargo.toml"), "--target-dir", str(target)],
                   check=True)
    return str(target / "release" / "gwbench")


def weir_config(upstreams, stream="slow", workers=64):
    """`openai`, `claude` and `gemini` are whole answers, those with `s-` before them streams."""
    entries = []
    for prefix, port in (("", upstreams["fast"]), ("s-", upstreams[stream])):
        for name, form in (("openai", "openai"), ("claude", "anthropic"), ("gemini", "gemini")):
            entries.append({"name": prefix + name, "format": form, "keys": ["bench"],
                            "base_url": f"http://127.0.0.1:{port}", "slots": 2048,
                            "models": [prefix + name]})
    return {"upstreams": entries, "workers": workers, "max_connections": workers + 512}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for(port, seconds=10):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.01)
    raise RuntimeError(f"nothing listens on port {port}")


def memory(pid):
    """Resident KiB and threads of a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    return tuple(int(re.search(rf"^{name}:\s+(\d+)", text, re.M)[1]) for name in ("VmRSS", "Threads"))


def at(summary, metric):
    number = (summary or {}).get(metric, {}).get("median")
    return None if number is None else float(number)


def minus(one, other):
    return None if one is None or other is None else one - other


def table(title, columns, rows, base):
    """Rows of (words, numbers by column); each number but the base's with its ratio to it."""
    lines = [["", *columns]]
    for words, numbers in rows:
        line = [words]
        for column in columns:
            number = numbers.get(column)
            if number is None:
                line.append("-")
                continue
            text = f"{number:.0f}" if abs(number) >= 100 else f"{number:.2f}"
            reference = numbers.get(base)
            if column not in (base, "direct") and reference and reference > 0:
                text += f" x{number / reference:.2f}"
            line.append(text)
        lines.append(line)
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns) + 1)]
    print(f"\n{title}")
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths)]
        print("| " + " | ".join(cells) + " |")
        if line is lines[0]:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    sys.stdout.flush()


def per_metric(summaries, metrics):
    """Rows for `table` out of the summaries of `versus`."""
    rows = []
    for words, metric in metrics:
        rows.append((words, {name: at(summary, metric) for name, summary in summaries.items()}))
    return rows


def relay(bench, upstreams, nginx, fronts):
    child, ports = nginx
    targets = [{"name": "direct", "url": chat(upstreams["fast"]), "model": "openai"}]
    if child:
        targets.append({"name": "nginx", "url": chat(ports["fast"]), "model": "openai",
                        "pid": child.pid})
    for name, (process, port) in fronts.items():
        targets.append({"name": name, "url": chat(port), "model": "openai", "pid": process.pid})
    for concurrency in (1, 16, 64):
        stage = f"relay, {concurrency} at once"
        load = ["--concurrency", str(concurrency), "--seconds", f"{bench.cell:.2f}",
                "--warmup", "300"]
        found = bench.versus(stage, targets, load, bench.cell)
        if not found:
            continue
        direct = at(found.get("direct"), "latency p50 us")
        added = {name: minus(at(one, "latency p50 us"), direct) for name, one in found.items()
                 if name != "direct"}
        rows = [("added to the direct call, p50 us", added)] + per_metric(found, [
            ("latency p50 us", "latency p50 us"), ("latency p99 us", "latency p99 us"),
            ("requests/s", "rps"), ("gateway CPU us/request", "gateway cpu us/request"),
            ("failed", "failed")])
        table(stage, list(found), rows, "nginx")


STREAM_ROWS = [
    ("first chunk p50 us", "ttft p50 us"), ("first chunk p99 us", "ttft p99 us"),
    ("transit p50 us", "transit p50 us"), ("transit p99 us", "transit p99 us"),
    ("gateway CPU us/chunk", "gateway cpu us/chunk"), ("gateway RSS KiB", "gateway peak rss KiB"),
    ("failed", "failed"), ("out of order", "chunks out of order")]


def streams(bench, upstreams, nginx, fronts):
    child, ports = nginx
    targets = [{"name": "direct", "url": chat(upstreams["slow"]), "model": "s-openai"}]
    if child:
        targets.append({"name": "nginx", "url": chat(ports["slow"]), "model": "s-openai",
                        "pid": child.pid})
    for name, (process, port) in fronts.items():
        targets.append({"name": name, "url": chat(port), "model": "s-openai", "pid": process.pid})
    stage = f"relayed streams, 200 of {CHUNKS} chunks at {INTERVAL_MS} ms"
    load = ["--stream", "--concurrency", "200", "--requests", "200", "--warmup", "1"]
    found = bench.versus(stage, targets, load, 3)
    if found:
        table(stage, list(found), per_metric(found, STREAM_ROWS), "nginx")


def translated(bench, plain, streaming):
    """Claude and Gemini against the relay through the same process."""
    process, port = plain
    targets = [{"name": name, "url": chat(port), "model": name, "pid": process.pid}
               for name in ("openai", "claude", "gemini")]
    stage = "translated, 16 at once"
    load = ["--concurrency", "16", "--seconds", f"{bench.cell:.2f}", "--warmup", "300"]
    found = bench.versus(stage, targets, load, bench.cell)
    if found:
        table(stage, list(found), per_metric(found, [
            ("latency p50 us", "latency p50 us"), ("latency p99 us", "latency p99 us"),
            ("gateway CPU us/request", "gateway cpu us/request"), ("failed", "failed")]), "openai")
    process, port = streaming
    targets = [{"name": name, "url": chat(port), "model": f"s-{name}", "pid": process.pid}
               for name in ("openai", "claude", "gemini")]
    stage = f"translated streams, 100 of {CHUNKS} chunks at {INTERVAL_MS} ms"
    load = ["--stream", "--concurrency", "100", "--requests", "100", "--warmup", "1"]
    found = bench.versus(stage, targets, load, 3)
    if found:
        table(stage, list(found), per_metric(found, STREAM_ROWS), "openai")


def footprint(bench, upstreams):
    """Start, idle, a thousand live streams, and idle again; with the defaults and wide."""
    live = bench.upstream("upstream-live", "--chunks", str(LIVE_CHUNKS),
                          "--interval-ms", str(LIVE_INTERVAL_MS))
    upstreams = {**upstreams, "live": live}
    columns = {}
    for name, binary in bench.weirs.items():
        print(f"memory of {name} ...", file=sys.stderr, flush=True)
        numbers = columns[name] = {}
        port = free_port()
        config = OUT / f"{name}-ready.json"
        config.write_text(json.dumps(weir_config(upstreams), indent=2))
        starts = []
        try:
            for _ in range(3):
                words = ["ready", "--url", chat(port), "--model", "openai", "--settle-s", "1",
                         "--timeout-s", "10", "--", binary, "--config", str(config),
                         "--listen", f"127.0.0.1:{port}"]
                starts.append(json.loads(bench.run(words, 30)))
            starts.sort(key=lambda start: start["ready_ms"])
            numbers["start to first answer ms"] = starts[1]["ready_ms"]
            numbers["RSS after the first answer KiB"] = starts[1]["idle_rss_kib"]
        except (RuntimeError, subprocess.TimeoutExpired, ValueError) as error:
            bench.problem(f"start of {name}: {error}")

        process, port = bench.weir(f"{name}-live", upstreams, stream="live", workers=LIVE + 50)
        before, threads = memory(process.pid)
        numbers[f"RSS at rest, {LIVE + 50} workers KiB"] = before
        load = subprocess.Popen(
            [bench.gwbench, "load", "--url", chat(port), "--model", "s-openai", "--stream",
             "--concurrency", str(LIVE), "--requests", str(LIVE), "--ramp-ms", "1500",
             "--timeout-s", "30", "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        bench.children.append(load)
        peak = before
        end = time.monotonic() + 40
        while load.poll() is None and time.monotonic() < end:
            now, count = memory(process.pid)
            peak, threads = max(peak, now), max(threads, count)
            time.sleep(0.05)
        if load.poll() is None:
            bench.end(load)
            bench.problem(f"{name}: {LIVE} streams did not end in 40 s")
        else:
            bench.children.remove(load)
            text, error = load.communicate()
            report = json.loads(text) if load.returncode == 0 else {}
            if report.get("ok") != LIVE:
                bench.problem(f"{name}: {report.get('ok', 0)} of {LIVE} live streams came whole: "
                              f"{json.dumps(report.get('errors'))} {error.strip()[-200:]}")
        numbers[f"RSS with {LIVE} live streams KiB"] = peak
        numbers["threads then"] = threads
        time.sleep(3)
        numbers["RSS three seconds after them KiB"] = memory(process.pid)[0]
        bench.end(process)
    bench.results["memory"] = columns
    words = list(dict.fromkeys(word for numbers in columns.values() for word in numbers))
    rows = [(word, {name: numbers.get(word) for name, numbers in columns.items()})
            for word in words]
    table("start and memory", list(columns), rows, "weir")


def chat(port):
    return f"http://127.0.0.1:{port}/v1/chat/completions"


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    started = time.monotonic()
    bench = Bench()
    try:
        upstreams = {
            "fast": bench.upstream("upstream-fast"),
            "slow": bench.upstream("upstream-slow", "--chunks", str(CHUNKS),
                                   "--interval-ms", str(INTERVAL_MS))}
        nginx = bench.nginx(upstreams)
        names = list(bench.weirs)
        # As delivered for the plain requests, with a worker for each stream where many are open.
        fronts, wide = {}, {}
        if bench.wants("relay") or bench.wants("translated"):
            fronts = {name: bench.weir(f"{name}-plain", upstreams) for name in names}
        if bench.wants("streams") or bench.wants("translated"):
            wide = {name: bench.weir(f"{name}-wide", upstreams, workers=256) for name in names}
        if bench.wants("relay"):
            relay(bench, upstreams, nginx, fronts)
        if bench.wants("streams"):
            streams(bench, upstreams, nginx, wide)
        if bench.wants("translated"):
            translated(bench, fronts["weir"], wide["weir"])
        if bench.wants("memory"):
            footprint(bench, upstreams)
    except (RuntimeError, OSError) as error:
        bench.problem(str(error))
    finally:
        bench.end_all()
    took = time.monotonic() - started
    cores = os.cpu_count()
    document = {"cores": cores, "rounds": bench.rounds, "seconds": round(took),
                "weirs": bench.weirs, "problems": bench.problems, "results": bench.results}
    (OUT / "bench.json").write_text(json.dumps(document, indent=1))
    print(f"\nMedians of {bench.rounds} interleaved rounds on {cores} cores, {took:.0f} s in all; "
          "every round is in target/bench/bench.json.")
    for problem in bench.problems:
        print(f"! {problem}")
    # Nothing measured is a failure of the bench; what was measured is no one's to judge here.
    return 0 if bench.results else 1


if __name__ == "__main__":
    sys.exit(main())
