"""Generates the table of values in the chart's README and the descriptions in its schema from comments in values.yaml.

`python -m tests.chart.values_table` writes both.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "charts" / "paquebot"
BEGIN = "<!-- values: begin; written by make chart-docs -->"
END = "<!-- values: end -->"


@dataclass(frozen=True, slots=True)
class Value:
    """A documented value: its dotted path, its default, and the comment above it."""

    path: str
    default: Any
    meaning: str


def documented(text: str) -> Iterator[Value]:
    """Every key of the YAML `text` with a comment that begins with `# --` right above it."""
    tree = yaml.safe_load(text)
    path: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            comment = [stripped[5:]]
        elif stripped.startswith("# ") and comment:
            comment.append(stripped[2:])
        elif match := re.match(r"( *)(\w+):", line):
            indent = len(match[1])
            path = [*(part for part in path if part[0] < indent), (indent, match[2])]
            if comment:
                keys = [key for _, key in path]
                yield Value(".".join(keys), _at(tree, keys), " ".join(comment))
            comment = []
        else:
            comment = []


def _at(tree: Any, keys: list[str]) -> Any:
    for key in keys:
        tree = tree[key]
    return tree


def undocumented(text: str) -> list[str]:
    """Return the paths of values without a comment, of their own or of a mapping around them."""
    known = {value.path for value in documented(text)}

    def missing(tree: Any, path: str) -> Iterator[str]:
        if path in known:
            return
        if not isinstance(tree, dict) or not tree:
            yield path
            return
        for key, value in tree.items():
            yield from missing(value, f"{path}.{key}" if path else key)

    return list(missing(yaml.safe_load(text), ""))


def table(text: str) -> str:
    """The Markdown table of the values of `text`."""
    rows = ["| value | default | meaning |", "|---|---|---|"]
    for value in documented(text):
        default = json.dumps(value.default, ensure_ascii=False).replace("|", "\\|")
        meaning = value.meaning.replace("|", "\\|")
        rows.append(f"| `{value.path}` | `{default}` | {meaning} |")
    return "\n".join(rows)


def with_table(readme: str, text: str) -> str:
    """Return `readme` with the table of `text` between its marks."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(text)}\n{END}{after}"


def with_descriptions(schema: dict[str, Any], text: str) -> dict[str, Any]:
    """`schema` with the comments of `text` as its descriptions, first in each value's object."""
    schema = copy.deepcopy(schema)
    for value in documented(text):
        *above, name = value.path.split(".")
        node = schema
        for key in above:
            node = node["properties"][key]
        # Keywords beside `$ref` are ignored (JSON Schema draft 7, Core §8.3): such a value has `allOf`.
        node["properties"][name] = {"description": value.meaning, **_without_description(node["properties"][name])}
    return schema


def _without_description(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != "description"}


def main() -> None:
    text = (CHART / "values.yaml").read_text("utf-8")
    readme, schema = CHART / "README.md", CHART / "values.schema.json"
    readme.write_text(with_table(readme.read_text("utf-8"), text), "utf-8")
    described = with_descriptions(json.loads(schema.read_text("utf-8")), text)
    schema.write_text(json.dumps(described, indent=2, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
