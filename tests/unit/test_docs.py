"""All names in the documents exist: log events, metrics, commands, make targets, settings, files, modules, links."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main

from paquebot.cli.app import app
from paquebot.cli.services import SERVICES
from paquebot.runtime.postgres.migrations import ROLES

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "services" / "paquebot"
PAGES = sorted(
    {*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("charts/**/*.md"), *ROOT.glob("deploy/*.md")}
    - {*ROOT.glob("docs/decisions/*.md"), ROOT / "CHANGELOG.md"}  # they describe the past
)
RULES = sorted(ROOT.glob("charts/paquebot/rules/*.yaml"))
RUNBOOKS = sorted(ROOT.glob("docs/runbooks/*.md"))

_LOG_METHODS = {"debug", "info", "info_each", "warning", "error", "exception"}
_SERIES = ("_bucket", "_sum", "_count", "_total")
_MADE_UP = {"PAQUEBOT_IMAP_THING", "tests/dialogues/imap/xping.txt", "docs/decisions/NNNN-words.md"}
"""Of the examples in CONTRIBUTING.md."""
_OUTSIDE = {
    "pg_dump",
    "pg_restore",
    "max_connections",
    "rule_files",
    "grafana_dashboard",
    "grafana_folder",
    "runbook_url",
}
"""Words of PostgreSQL, Prometheus and Grafana."""


@cache
def trees() -> tuple[ast.Module, ...]:
    return tuple(ast.parse(path.read_text("utf-8")) for path in sorted(SOURCE.rglob("*.py")))


def nodes() -> Iterator[Any]:
    for tree in trees():
        yield from ast.walk(tree)


@cache
def log_calls() -> tuple[frozenset[str], frozenset[str]]:
    """(events, fields) of every call of a Log."""
    events: set[str] = set()
    fields: set[str] = set()
    for node in nodes():
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _LOG_METHODS):
            continue
        events |= {constant.value for name in node.args[:1] for constant in _texts_in(name)}
        fields |= {keyword.arg for keyword in node.keywords if keyword.arg}
    return frozenset(events), frozenset(fields)


def _texts_in(node: ast.AST) -> list[Any]:
    return [item for item in ast.walk(node) if _is_text(item)]


def _is_text(node: Any) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


@cache
def texts() -> frozenset[str]:
    """Every string constant of the services."""
    return frozenset(node.value for node in nodes() if _is_text(node))


@cache
def sql() -> frozenset[str]:
    return frozenset(path.read_text("utf-8") for path in SOURCE.rglob("*.sql"))


@cache
def settings() -> frozenset[str]:
    """Names of all variables that a service, a command or a test reads."""
    declared = {
        f"PAQUEBOT_{constant.value}"
        for node in nodes()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setting"
        for constant in _texts_in(node.args[0])
    }
    read = {name for text in texts() for name in re.findall(r"PAQUEBOT_[A-Z0-9_]*[A-Z0-9]", text)}
    of_tests = set(re.findall(r"PAQUEBOT_[A-Z0-9_]*[A-Z0-9]", "\n".join(_python_of("tests"))))
    return frozenset(declared | read | of_tests)


def _python_of(directory: str) -> Iterator[str]:
    own = Path(__file__)
    return (path.read_text("utf-8") for path in (ROOT / directory).rglob("*.py") if path != own)


@cache
def metrics() -> frozenset[str]:
    """Names in the generated catalogue, which a test of its own compares with the code."""
    listed = re.findall(r"^\| `(paquebot_[a-z0-9_]+)` \|", (ROOT / "docs/metrics.md").read_text("utf-8"), re.MULTILINE)
    return frozenset(listed)


@cache
def make_targets() -> frozenset[str]:
    return frozenset(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def spans(text: str) -> Iterator[str]:
    """The code of a page: its inline spans, and the lines of its fenced blocks."""
    blocks = re.findall(r"^\s*```[a-z]*\n(.*?)^\s*```", text, re.MULTILINE | re.DOTALL)
    for block in blocks:
        yield from block.replace("\\\n", " ").splitlines()
    prose = re.sub(r"^\s*```[a-z]*\n.*?^\s*```", "", text, flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"`([^`]+)`", prose):
        yield " ".join(code.split())


def everything() -> list[Path]:
    return [*PAGES, *RULES]


def pages(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", paths, ids=lambda path: str(path.relative_to(ROOT)))


@pages(RUNBOOKS)
def test_log_events_and_words_of_the_code_exist(page: Path) -> None:
    events, fields = log_calls()
    known = events | fields | texts() | _OUTSIDE | {service.name for service in SERVICES}
    named = {code for code in spans(page.read_text("utf-8")) if re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)+", code)}
    assert {word for word in named if not word.startswith("paquebot_")} <= known


@pages(RUNBOOKS)
def test_text_that_a_runbook_greps_in_a_log_is_in_the_name_of_an_event(page: Path) -> None:
    events, _ = log_calls()
    for line in spans(page.read_text("utf-8")):
        for options, pattern in re.findall(r"logs .*\| grep ((?:-\w+ )*)('[^']*'|\"[^\"]*\"|\S+)", line):
            for word in re.sub(r"[()'\"]", "", pattern).split("|"):
                if word in ("example.org", "skipped"):  # an argument of the reader's; a line that the janitor prints
                    continue
                if "-i" in options or "_" not in word:
                    assert any(word.lower() in event for event in events | texts()), word
                else:
                    assert word in events, word


@pages(everything())
def test_metrics_exist(page: Path) -> None:
    names = metrics() | {f"paquebot_{role.removeprefix('paquebot_')}" for role in ROLES}
    for found, wildcard in re.findall(r"\b(paquebot_[a-z0-9_]+)(\*?)", page.read_text("utf-8")):
        base = next((found.removesuffix(end) for end in _SERIES if found.removesuffix(end) in names), found)
        is_prefix = (wildcard or found.endswith("_")) and any(name.startswith(found) for name in names)
        assert base in names or is_prefix, found


@pages(PAGES)
def test_commands_and_their_options_exist(page: Path) -> None:
    for line in spans(page.read_text("utf-8")):
        if line.lstrip().startswith(("helm ", "docker ")):
            continue
        for command in re.findall(r"(?:^|[\s;|(]|bin/)paquebot ((?![=:|])[^|;&>#)]*)", line):
            _check_command(command, line)


def _check_command(arguments: str, line: str) -> None:
    try:
        words = shlex.split(arguments.replace("...", " "))
    except ValueError:
        words = arguments.split()
    command: Any = typer.main.get_command(app)
    for word in words:
        inner = getattr(command, "commands", None)
        if inner is not None and re.fullmatch(r"[a-z][a-z0-9-]*", word):
            assert word in inner, f"{word}: {line}"
            command = inner[word]
        elif re.match(r"--[a-z]", word):
            options = {name for item in command.params for name in (*item.opts, *item.secondary_opts)}
            assert word.partition("=")[0] in options | {"--help"}, f"{word}: {line}"


@pages(PAGES)
def test_make_targets_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    named = {target for line in spans(text) for target in re.findall(r"(?:^|[\s;&])make ([a-z][a-z-]*)", line)}
    assert named <= make_targets()


@pages(everything())
def test_settings_exist(page: Path) -> None:
    for found, more in re.findall(r"\b(PAQUEBOT_[A-Z0-9_]*[A-Z0-9])(_?[*<{]|_\b)?", page.read_text("utf-8")):
        if found in _MADE_UP:
            continue
        if more:
            assert any(name.startswith(found) for name in settings()), found
        else:
            assert found in settings(), found


@pages(PAGES)
def test_files_exist(page: Path) -> None:
    # Not `deploy/mail-...`, which is a Deployment.
    pattern = r"(?<![\w./-])(?:services|tests|docs|charts|deploy(?!/mail-)|protos)/[A-Za-z0-9_./{},*-]*"
    named = {found for code in spans(page.read_text("utf-8")) for found in re.findall(pattern, code)}
    for path in {one for found in named - _MADE_UP for one in _alternatives(found.rstrip(".,/"))}:
        assert list(ROOT.glob(path)) if "*" in path else (ROOT / path).exists(), path


def _alternatives(path: str) -> list[str]:
    """`a/{b,c}` → `a/b`, `a/c`."""
    found = re.search(r"\{([^}]*)\}", path)
    if found is None:
        return [path]
    return [path[: found.start()] + one + path[found.end() :] for one in found.group(1).split(",")]


@pages(PAGES)
def test_modules_exist(page: Path) -> None:
    packages = "|".join(sorted(item.name for item in SOURCE.iterdir() if (item / "__init__.py").exists()))
    for code in spans(page.read_text("utf-8")):
        if re.fullmatch(rf"(?:{packages})(?:\.[A-Za-z_]\w*)+", code):
            assert _exists(code.split(".")), code


def _exists(parts: list[str]) -> bool:
    """A module, or a name in the module before it; or what looks like one: a subject, a span, a function of PostgreSQL,
    a log file, a value of the chart."""
    name = ".".join(parts)
    if parts[-1] == "log" or any(name in text for text in texts() | sql()):
        return True
    if re.search(rf"^  {parts[1]}:", (ROOT / "charts/paquebot/values.yaml").read_text("utf-8"), re.MULTILINE):
        return True
    for count in range(len(parts), 0, -1):
        path = SOURCE.joinpath(*parts[:count])
        module = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if module.is_file():
            rest = parts[count:]
            return not rest or re.search(rf"\b{rest[0]}\b", module.read_text("utf-8")) is not None
    return False


@pages(PAGES)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        path, _, fragment = target.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        place = page.parent / path if path else page
        assert place.exists(), target
        if fragment and place.suffix == ".md":
            assert fragment in _anchors(place.read_text("utf-8")), target


def _anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"`|\[|\]\([^)]*\)", "", one)).strip().lower().replace(" ", "-")
        for one in headings
    }


def test_chart_settings_are_known() -> None:
    listed = json.loads((ROOT / "charts/paquebot/generated/settings.json").read_text("utf-8"))
    names = {name for found in listed.values() for name in found}
    assert {name for name in names if name.startswith("PAQUEBOT_")} <= settings()
