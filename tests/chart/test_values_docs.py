"""Every value has an explanation in values.yaml, in the README's table and in the schema."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.chart.values_table import CHART, documented, table, undocumented, with_descriptions, with_table

VALUES = (CHART / "values.yaml").read_text("utf-8")
SCHEMA = json.loads((CHART / "values.schema.json").read_text("utf-8"))


def test_every_value_has_a_comment() -> None:
    assert undocumented(VALUES) == []


def test_the_readme_has_the_table_of_these_values() -> None:
    readme = (CHART / "README.md").read_text("utf-8")

    assert readme == with_table(readme, VALUES), "run make chart-docs"


def test_the_schema_has_the_values_and_no_others() -> None:
    def compare(tree: dict[str, Any], schema: dict[str, Any], path: str) -> None:
        if "properties" not in schema:
            return
        names = set(schema["properties"]) - ({"global"} if not path else set())
        assert names >= tree.keys(), path
        assert schema["additionalProperties"] is False, path
        if path not in explained:
            assert names == tree.keys(), path
        for key, value in tree.items():
            if isinstance(value, dict):
                compare(value, schema["properties"][key], f"{path}.{key}" if path else key)

    explained = {value.path for value in documented(VALUES)}
    compare(yaml.safe_load(VALUES), SCHEMA, "")


def test_the_schema_explains_a_value_as_its_comment_does() -> None:
    assert with_descriptions(SCHEMA, VALUES) == SCHEMA, "run make chart-docs"


def test_a_comment_of_several_lines_is_one_sentence_of_the_table() -> None:
    text = "# Not of a value.\n\na:\n  # -- First half,\n  # second half.\n  b: {c: 1}\n  # -- Or | else.\n  d: x\n"

    assert table(text).splitlines()[2:] == [
        '| `a.b` | `{"c": 1}` | First half, second half. |',
        '| `a.d` | `"x"` | Or \\| else. |',
    ]


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("# -- Said.\na: 1\nb: 2\n", ["b"]),
        ("a:\n  # -- Said.\n  b: 1\n  c: {d: 1}\n", ["a.c.d"]),
        ("# -- Said of all.\na:\n  b: 1\n  c: 2\n", []),
        ("# Of no value in particular.\na: 1\n", ["a"]),
    ],
)
def test_a_value_without_a_comment_is_found(text: str, missing: list[str]) -> None:
    assert undocumented(text) == missing
