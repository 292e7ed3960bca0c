"""The answers of a Kubernetes API that helm's `lookup` needs, so that a second rendering finds the Secrets of the
first. tests/cluster tests the same with a real API server."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_CORE = {
    "kind": "APIResourceList",
    "groupVersion": "v1",
    "resources": [
        {"name": "secrets", "singularName": "secret", "namespaced": True, "kind": "Secret", "verbs": ["get", "list"]}
    ],
}
_BATCH = {
    "kind": "APIResourceList",
    "groupVersion": "batch/v1",
    "resources": [{"name": "jobs", "singularName": "job", "namespaced": True, "kind": "Job", "verbs": ["get", "list"]}],
}
_APPS = {
    "kind": "APIResourceList",
    "groupVersion": "apps/v1",
    "resources": [
        {"name": f"{kind.lower()}s", "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": ["get"]}
        for kind in ("Deployment", "StatefulSet")
    ],
}


def owned(item: dict[str, Any], release: str, namespace: str) -> dict[str, Any]:
    """Return `item` with the labels and annotations that helm adds to all its objects."""
    notes = {"meta.helm.sh/release-name": release, "meta.helm.sh/release-namespace": namespace}
    metadata = item["metadata"]
    return {**item, "metadata": {**metadata, "annotations": {**metadata.get("annotations", {}), **notes}}}


def _stored(secret: dict[str, Any]) -> dict[str, Any]:
    """Return the object as the API server stores it: with `data` instead of `stringData`."""
    data = dict(secret.get("data", {}))
    for key, value in secret.get("stringData", {}).items():
        data[key] = base64.b64encode(value.encode()).decode()
    return {key: value for key, value in {**secret, "data": data}.items() if key != "stringData"}


@contextmanager
def api_server(
    secrets: Iterable[dict[str, Any]],
    directory: Path,
    jobs: Iterable[dict[str, Any]] = (),
    workloads: Iterable[dict[str, Any]] = (),
) -> Iterator[Path]:
    """Serve `secrets`, `workloads` (Deployments and StatefulSets), and `jobs` as ones that succeeded, on loopback for
    the time of the block; yields the path of a kubeconfig."""
    finished = {job["metadata"]["name"]: {**job, "status": {"succeeded": 1}} for job in jobs}
    running = {(f"{item['kind'].lower()}s", item["metadata"]["name"]): item for item in workloads}
    stored = {secret["metadata"]["name"]: _stored(secret) for secret in secrets}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = self._answer(urlsplit(self.path).path.strip("/").split("/"))
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def _answer(self, path: list[str]) -> tuple[int, dict[str, Any]]:
            match path:
                case ["version"]:
                    return 200, {"major": "1", "minor": "34", "gitVersion": "v1.34.4"}
                case ["api"]:
                    return 200, {"kind": "APIVersions", "versions": ["v1"]}
                case ["apis"]:
                    return 200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": []}
                case ["apis", "batch", "v1"]:
                    return 200, _BATCH
                case ["apis", "batch", "v1", "namespaces", _, "jobs", name] if name in finished:
                    return 200, finished[name]
                case ["apis", "apps", "v1"]:
                    return 200, _APPS
                case ["apis", "apps", "v1", "namespaces", _, kind, name] if (kind, name) in running:
                    return 200, running[kind, name]
                case ["api", "v1"]:
                    return 200, _CORE
                case ["api", "v1", "namespaces", _, "secrets", name] if name in stored:
                    return 200, stored[name]
                case _:
                    return 404, {
                        "kind": "Status",
                        "apiVersion": "v1",
                        "status": "Failure",
                        "reason": "NotFound",
                        "code": 404,
                    }

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    kubeconfig = directory / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "here",
                "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
                "users": [{"name": "here", "user": {}}],
                "contexts": [{"name": "here", "context": {"cluster": "here", "user": "here"}}],
            }
        )
    )
    try:
        yield kubeconfig
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
