#!/usr/bin/env python3
"""Asks a real Prometheus, which has scraped real runs, each query of docs/grafana-dashboard.json, and lets promtool read the
metrics.

    WEIGHTLIFT_TEST_BIN=target/…/weightlift python3 tests/dashboard_test.py

Needs prometheus with promtool, the binary and the fake Hub (`cargo build -p weightlift-fakes --bins`). What is missing is
named, and is a failure if WEIGHTLIFT_TEST_NO_SKIP is set.
"""

import functools
import http.server
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

import running

ROOT = Path(__file__).resolve().parent.parent
DASHBOARD = ROOT / "docs/grafana-dashboard.json"
MODEL = "org/m"
MIB = 48
PATIENCE = 60


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def eventually(what, ask):
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            if found := ask():
                return found
        except (OSError, ValueError):
            pass
        time.sleep(0.2)
    raise AssertionError(f"{what}: not within {PATIENCE} s")


class Scraped:
    """A fetch that is on its way, an ended one whose file somebody serves, and a Prometheus that scrapes both."""

    def __init__(self, work, binary, hub):
        self.work, self.children = work, []
        ports = work / "ports"
        self.start([hub, "--made", f"{MODEL}={MIB}:1", "--port-file", ports])
        hub_port = eventually("the fake Hub", lambda: ports.exists() and ports.read_text().split())[0]
        endpoint = f"http://127.0.0.1:{hub_port}"
        environment = {"PATH": os.environ["PATH"], "HF_ENDPOINT": endpoint, "HOME": str(work)}
        fetch = [binary, "fetch", f"hf://{MODEL}", "--connections", "2"]
        self.ended = work / "ended.prom"
        subprocess.run([*fetch, "--root", work / "one", "--metrics-file", self.ended, "--metrics-label", "model=m"],
                       env=environment, check=True, capture_output=True, timeout=PATIENCE)  # fmt: skip
        get(f"{endpoint}/-/speed/{1 << 20}")
        port = free_port()
        self.start([*fetch, "--root", work / "two", "--metrics-listen", f"127.0.0.1:{port}"], env=environment)
        served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(OneFile, self.ended))
        threading.Thread(target=served.serve_forever, daemon=True).start()
        self.targets = [f"127.0.0.1:{port}", f"127.0.0.1:{served.server_port}"]
        settings = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [{"job_name": "weightlift", "static_configs": [{"targets": self.targets}]}],
        }
        (work / "prometheus.yml").write_text(json.dumps(settings))
        own = f"127.0.0.1:{free_port()}"
        self.start(["prometheus", f"--config.file={work}/prometheus.yml", f"--storage.tsdb.path={work}/data",
                    f"--web.listen-address={own}"])  # fmt: skip
        self.url = f"http://{own}/api/v1/query"
        self.running = self.targets[0]
        eventually("bytes that are scraped", lambda: self.value(f'weightlift_present_bytes{{instance="{self.running}"}}') > 2e6)
        eventually("the ended run", lambda: self.ask("weightlift_last_run_exit_code"))

    def start(self, command, **options):
        log = (self.work / f"{len(self.children)}.log").open("wb")
        self.children.append(subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, **options))

    def ask(self, query):
        answer = json.loads(get(f"{self.url}?{urllib.parse.urlencode({'query': query})}"))
        assert answer["status"] == "success", answer
        return answer["data"]["result"]

    def value(self, query):
        return max((float(series["value"][1]) for series in self.ask(query)), default=0.0)

    def stop(self):
        for child in self.children:
            child.kill()
            child.wait()


class OneFile(http.server.BaseHTTPRequestHandler):
    """As node_exporter hands on a file."""

    def __init__(self, file, *rest):
        self.file = file
        super().__init__(*rest)

    def do_GET(self):
        text = self.file.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def targets(dashboard):
    return [(panel["title"], target) for panel in dashboard["panels"] for target in panel["targets"]]


def problem(scraped, target):
    """Why a target of a panel would show nothing, or series that cannot be told apart."""
    found = scraped.ask(target["expr"].replace("$instance", ".*"))
    if not found:
        return "it finds nothing"
    if not any(math.isfinite(float(series["value"][1])) for series in found):
        return "it finds no number"
    for label in re.findall(r"\{\{\s*(\w+)\s*\}\}", target.get("legendFormat", "")):
        if not all(label in series["metric"] for series in found):
            return f"its legend shows `{label}`, which the series do not have"
    return None


def each_query_of_the_dashboard_finds_what_its_legend_shows(scraped):
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    asked = targets(dashboard)
    assert len(asked) > 15, len(asked)
    wrong = [f"{title}: {target['expr']}: {why}" for title, target in asked if (why := problem(scraped, target))]
    assert not wrong, "\n".join(wrong)
    for variable in dashboard["templating"]["list"]:
        if named := re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]):
            metric, label = named.groups()
            assert all(label in series["metric"] for series in scraped.ask(metric)), variable
            assert len(scraped.ask(metric)) == len(scraped.targets), variable


def a_query_that_is_wrong_is_noticed(scraped):
    """Each query once with a metric that is not there, and each legend with a label that is not."""
    for title, target in targets(json.loads(DASHBOARD.read_text(encoding="utf-8"))):
        absent = {**target, "expr": target["expr"].replace("weightlift_", "weightlift_x_")}
        assert problem(scraped, absent), title
        other = {**target, "legendFormat": "{{nothing}}"}
        assert problem(scraped, other), title


def labels_of_a_run_are_on_its_series(scraped):
    of_run = scraped.ask('weightlift_last_run_exit_code{model="m"}')
    assert len(of_run) == 1, of_run


def promtool_has_nothing_to_say(scraped):
    for text in (scraped.ended.read_text(), get(f"http://{scraped.running}/metrics")):
        told = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True, timeout=PATIENCE)
        assert told.returncode == 0 and not told.stdout and not told.stderr, told
    worse = subprocess.run(["promtool", "check", "metrics"], input="# TYPE a_total gauge\na_total 1\n", text=True,
                           capture_output=True, timeout=PATIENCE)  # fmt: skip
    assert worse.stdout or worse.stderr, "promtool is silent about a bad name"


TESTS = [
    each_query_of_the_dashboard_finds_what_its_legend_shows,
    a_query_that_is_wrong_is_noticed,
    labels_of_a_run_are_on_its_series,
    promtool_has_nothing_to_say,
]


def main():
    binary = os.environ.get("WEIGHTLIFT_TEST_BIN") or shutil.which("weightlift")
    builds = sorted(ROOT.glob("target/*/debug/fake-hub"))
    hub = os.environ.get("WEIGHTLIFT_TEST_HUB") or (builds and str(builds[0]))
    missing = [name for name in ("prometheus", "promtool") if not shutil.which(name)]
    missing += [name for name, found in (("the binary", binary), ("the fake Hub", hub)) if not found]
    if missing:
        print(f"skipped: {', '.join(missing)} not found")
        return 1 if os.environ.get("WEIGHTLIFT_TEST_NO_SKIP") else 0
    with tempfile.TemporaryDirectory() as work:
        scraped = None
        try:
            scraped = Scraped(Path(work), Path(binary).resolve(), hub)
            return running.run(TESTS, scraped)
        finally:
            if scraped:
                scraped.stop()


if __name__ == "__main__":
    sys.exit(main())
