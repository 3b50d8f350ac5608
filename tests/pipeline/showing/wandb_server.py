"""A W&B server of one machine, as far as ``wandb sync`` asks: it keeps the lines of files at the
offsets at which they are sent, as W&B's file stream does, so a client that begins anew overwrites.
"""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HISTORY = "wandb-history.jsonl"
EVENTS = "wandb-events.jsonl"


@dataclass
class UploadedRun:
    """What a server has of one run.

    Attributes:
        files: the lines of each streamed file.
        config: as W&B keeps it, JSON.
        overwritten: history lines that were sent again with other content.
    """

    files: dict[str, dict[int, str]] = field(default_factory=dict)
    config: str = "{}"
    overwritten: list[str] = field(default_factory=list)

    @property
    def history(self) -> list[dict[str, Any]]:
        """The rows of the history, in the order of their lines."""
        lines = self.files.get(HISTORY, {})
        return [json.loads(lines[i]) for i in sorted(lines)]

    def write(self, name: str, offset: int, content: list[str]) -> None:
        """Puts lines at their places."""
        lines = self.files.setdefault(name, {})
        for i, line in enumerate(content, offset):
            if name == HISTORY and lines.get(i, line) != line:
                self.overwritten.append(lines[i])
            lines[i] = line

    def resume_status(self, name: str) -> dict[str, Any]:
        """What a client that resumes the run is told."""
        tails = {kind: self.files.get(kind, {}) for kind in (HISTORY, EVENTS)}
        last = {k: json.dumps([v[max(v)]] if v else []) for k, v in tails.items()}
        summary = self.files.get("wandb-summary.json", {})
        return {
            "id": name,
            "name": name,
            "displayName": name,
            "summaryMetrics": summary[max(summary)] if summary else "{}",
            "config": self.config,
            "logLineCount": 0,
            "historyLineCount": len(tails[HISTORY]),
            "eventsLineCount": len(tails[EVENTS]),
            "historyTail": last[HISTORY],
            "eventsTail": last[EVENTS],
            "tags": [],
            "notes": None,
            "wandbConfig": json.dumps({"t": 1}),
        }


@dataclass
class WandbServer:
    """A server and the runs that it was given, by id."""

    url: str
    runs: dict[str, UploadedRun] = field(default_factory=dict)
    queries: list[str] = field(default_factory=list)

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The data of a GraphQL answer."""
        self.queries.append(operation)
        project = {"id": "p", "name": "p", "entity": {"id": "e", "name": "e"}}
        name = variables.get("name")
        if operation == "RunResumeStatus":
            known = self.runs.get(str(name))
            return {"model": project | {"bucket": known and known.resume_status(str(name))}}
        if operation == "UpsertBucket":
            inserted = name not in self.runs
            run = self.runs.setdefault(str(name), UploadedRun())
            run.config = variables.get("config") or run.config
            lines = run.resume_status(str(name))["historyLineCount"]
            bucket = {"id": name, "name": name, "displayName": name, "description": None}
            bucket |= {"config": run.config, "sweepName": None, "project": project}
            return {
                "upsertBucket": {
                    "bucket": bucket | {"historyLineCount": lines},
                    "inserted": inserted,
                }
            }
        if operation == "CreateRunFiles":
            files = [{"name": f, "uploadUrl": f"{self.url}/upload"} for f in variables["files"]]
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
        return {}


@contextmanager
def serving() -> Iterator[WandbServer]:
    """A server on a free port of this machine, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            answer: dict[str, Any] = {}
            if self.path.endswith("/graphql"):
                query = json.loads(body)
                answer["data"] = server.answer(query.get("operationName"), query["variables"])
            elif self.path.endswith("/file_stream"):
                run = server.runs[self.path.split("/")[-2]]
                for name, part in (json.loads(body).get("files") or {}).items():
                    run.write(name, part["offset"], part["content"])
            data = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_PUT = do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that leaves without a word is none."""

    http = Server(("127.0.0.1", 0), Handler)
    server = WandbServer(f"http://127.0.0.1:{http.server_port}")
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
