"""Files of the chart that are generated from the code: charts/paquebot/generated, which its templates read.

`python -m tests.chart.generated_files` writes them; with `--check` it fails when they are not up to date.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from paquebot.cli.services import SERVICES, settings_class
from paquebot.janitor.settings import JanitorSettings
from paquebot.runtime.settings import PREFIX, ByteSize, Listen, ListenOrSocket, Network, Seconds
from tests.chart.values_table import CHART, documented

ROOT = CHART.parents[1]
GENERATED = CHART / "generated"
_KINDS: dict[Any, str] = {
    ByteSize: "bytes",
    Seconds: "seconds",
    bool: "switch",
    int: "whole",
    float: "number",
    Network: "network",
    Listen: "listen",
    ListenOrSocket: "listen",
}


def settings_of(cls: type[Any]) -> Iterator[tuple[str, str]]:
    """(variable, kind) of every setting of `cls`; the kinds are those of `paquebot.settingKinds`."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if "setting" in field.metadata:
            yield PREFIX + field.metadata["setting"], _kind(hints[field.name])
        else:
            yield from settings_of(hints[field.name])


def _kind(hint: Any) -> str:
    if hint in _KINDS:
        return _KINDS[hint]
    if typing.get_origin(hint) is tuple:
        kind = _kind(typing.get_args(hint)[0])
        # A list of listeners or networks is written with commas. The kinds of other lists are unknown here.
        return {"network": "networks", "listen": "listen"}.get(kind, "text")
    # An optional setting may be empty, so it has no pattern.
    return "text"


def settings() -> str:
    """settings.json: {SERVICE: {NAME: KIND}}."""
    known = {service.name: dict(sorted(settings_of(settings_class(service)))) for service in SERVICES}
    known["janitor"] = dict(sorted(settings_of(JanitorSettings)))
    return json.dumps(known, indent=1) + "\n"


def defaults(text: str) -> str:
    """defaults.json: the values of `text`; a value with its own comment is a list of one."""
    leaves = {value.path for value in documented(text)}

    def wrapped(tree: dict[str, Any], above: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in tree.items():
            path = f"{above}.{key}" if above else key
            found[key] = [value] if path in leaves else wrapped(value, path)
        return found

    return json.dumps(wrapped(yaml.safe_load(text), ""), indent=1, ensure_ascii=False) + "\n"


def engines_code() -> str:
    """engines.txt: a hash of the code that runs the bundled engines, and of their packages."""
    command = ROOT / "services" / "paquebot" / "cli"
    digest = hashlib.sha256()
    for path in sorted((command / "engines").glob("*.py")):
        digest.update(f"{path.name}\0".encode() + path.read_bytes())
    (stated,) = re.findall(r"(?ms)^engines = \[.*?^\]", (ROOT / "pyproject.toml").read_text("utf-8"))
    locked = (ROOT / "deploy" / "requirements-engines.lock").read_text("utf-8")
    for name in re.findall(r'"([a-z0-9-]+)', stated):
        (version,) = re.findall(rf"(?m)^{name}==(\S+)", locked)
        digest.update(f"{name}=={version}\0".encode())
    return digest.hexdigest()[:16] + "\n"


def files() -> dict[Path, str]:
    text = (CHART / "values.yaml").read_text("utf-8")
    return {
        GENERATED / "settings.json": settings(),
        GENERATED / "defaults.json": defaults(text),
        GENERATED / "engines.txt": engines_code(),
    }


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        old = [path for path, text in files().items() if not path.is_file() or path.read_text("utf-8") != text]
        sys.exit(f"{old[0]} does not match the code: run make chart-docs" if old else 0)
    GENERATED.mkdir(exist_ok=True)
    for path, text in files().items():
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
