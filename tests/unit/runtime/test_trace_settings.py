"""Errors for wrong trace settings, and for a missing extra."""

from __future__ import annotations

import sys

import pytest

from paquebot.runtime.engine_settings import ProcessSettings
from paquebot.runtime.process.service import Context, run
from paquebot.runtime.settings import SettingsError, load


@pytest.mark.parametrize("sample", ["-0.1", "1.01", "nan", "often"])
def test_a_ratio_beyond_its_range_is_a_fault(sample: str) -> None:
    with pytest.raises(SettingsError, match="PAQUEBOT_TRACE_SAMPLE"):
        load(ProcessSettings, {"PAQUEBOT_TRACE_SAMPLE": sample})


@pytest.mark.parametrize("endpoint", ["collector:4317", "grpc://collector:4317", "http://"])
def test_an_endpoint_is_a_url(endpoint: str) -> None:
    with pytest.raises(SettingsError, match="PAQUEBOT_TRACE_ENDPOINT"):
        load(ProcessSettings, {"PAQUEBOT_TRACE_ENDPOINT": endpoint})


def test_tracing_is_off_by_default() -> None:
    settings = load(ProcessSettings, {})
    assert (settings.trace_endpoint, settings.trace_sample) == ("", 0.01)


def test_an_endpoint_without_the_extra_is_one_sentence_with_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Settings(ProcessSettings):
        @property
        def process(self) -> ProcessSettings:
            return self

    async def main(context: Context, settings: Settings) -> None:
        raise AssertionError("a service with wrong settings does not start")

    monkeypatch.delitem(sys.modules, "paquebot.observability.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.context", None)  # as if it were not installed
    assert run("traced", Settings, main, {"PAQUEBOT_TRACE_ENDPOINT": "http://collector:4317"}) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "PAQUEBOT_TRACE_ENDPOINT" in err
    assert "paquebot[trace]" in err
