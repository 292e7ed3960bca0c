"""What every dashboard shares: variables, links, annotations and the few kinds of panel.

Each query picks its series by `namespace` and `pod` only, the two labels that every scrape in Kubernetes adds;
`{sel}` in an expression stands for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import prometheus as prometheus_models

TAG = "paquebot"
SELECTOR = 'namespace=~"$namespace", pod=~"$pod"'
DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")

GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"

Steps = Sequence[tuple[float | None, str]]
"""(from this value on, colour), the first from None."""

NEUTRAL: Steps = ((None, BLUE),)
Panel = timeseries.Panel | stat.Panel | table.Panel | bargauge.Panel


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression and how its series are called in the legend."""

    expr: str
    legend: str


def selected(expr: str) -> str:
    return expr.replace("{sel}", "{" + SELECTOR + "}").replace("{sel,", "{" + SELECTOR + ",")


def _targets(queries: Sequence[Query], *, instant: bool = False) -> list[prometheus.Dataquery]:
    targets = []
    for letter, query in zip("ABCDEFGH", queries, strict=False):
        target = prometheus.Dataquery().expr(selected(query.expr)).legend_format(query.legend).ref_id(letter)
        target = target.datasource(DATASOURCE).editor_mode(prometheus_models.QueryEditorMode.CODE)
        if instant:
            target = target.instant().format(prometheus_models.PromQueryFormat.TABLE)
        else:
            target = target.range()
        targets.append(target)
    return targets


def _thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    return (
        dashboard.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=value, color=color) for value, color in steps])
    )


def graph(
    title: str,
    description: str,
    unit: str,
    queries: Sequence[Query],
    *,
    steps: Steps = (),
    stacked: bool = False,
    width: int = 12,
    soft_max: float | None = None,
) -> timeseries.Panel:
    """Lines over time; the thresholds, if any, are drawn as dashed lines."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .min(0)
        .datasource(DATASOURCE)
        .targets(_targets(queries))  # type: ignore[arg-type]  # the SDK's list is invariant
        .span(width)
        .height(8)
        .line_width(1)
        .fill_opacity(30 if stacked else 8)
        .show_points(common_models.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.TABLE)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["mean", "max", "lastNotNull"])
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
        .thresholds(_thresholds(steps or ((None, GREEN),)))
    )
    if steps:
        dashed = common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED)
        panel = panel.thresholds_style(dashed)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A"))
    if soft_max is not None:
        panel = panel.axis_soft_max(soft_max)
    return panel


def number(
    title: str,
    description: str,
    unit: str,
    expr: str,
    *,
    steps: Steps = NEUTRAL,
    decimals: int | None = None,
    width: int = 4,
    no_value: str = "",
) -> stat.Panel:
    """One figure with its recent course behind it."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(DATASOURCE)
        .targets(_targets([Query(expr, title)]))  # type: ignore[arg-type]  # the SDK's list is invariant
        .span(width)
        .height(4)
        .color_mode(common_models.BigValueColorMode.VALUE)
        .graph_mode(common_models.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .thresholds(_thresholds(steps))
    )
    if decimals is not None:
        panel = panel.decimals(decimals)
    return panel.no_value(no_value) if no_value else panel


def ranking(
    title: str, description: str, unit: str, query: Query, *, steps: Steps = NEUTRAL, width: int = 12
) -> bargauge.Panel:
    """Horizontal bars, one for each series, as things stand now."""
    return (
        bargauge.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .min(0)
        .datasource(DATASOURCE)
        .targets(_targets([query]))  # type: ignore[arg-type]  # the SDK's list is invariant
        .span(width)
        .height(8)
        .orientation(common_models.VizOrientation.HORIZONTAL)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .thresholds(_thresholds(steps))
    )


def quantiles(histogram: str, *, by: str = "", where: str = "", name: str = "") -> list[Query]:
    """Half, 95 % and 99 % of a histogram (its name without `_bucket`), for each value of the label `by`."""
    labels, prefix = (f"le, {by}", f"{{{{{by}}}}} ") if by else ("le", f"{name} " if name else "")
    selector = "{sel, " + where + "}" if where else "{sel}"
    rate = f"sum by ({labels}) (rate({histogram}_bucket{selector}[$__rate_interval]))"
    return [
        Query(f"histogram_quantile({part}, {rate})", f"{prefix}{text}")
        for part, text in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    ]


def seen(counter: str, *, by: str, where: str = "") -> str:
    """As `rate`, without the series in which nothing happens: for labels with many values."""
    return f"{rate(counter, by=by, where=where)} > 0"


def rate(counter: str, *, by: str = "", where: str = "") -> str:
    """Events a second of a counter."""
    grouping = f"sum by ({by})" if by else "sum"
    selector = "{sel, " + where + "}" if where else "{sel}"
    return f"{grouping} (rate({counter}{selector}[$__rate_interval]))"


def _variable(name: str, label: str, query: str, description: str) -> dashboard.QueryVariable:
    everything = models.VariableOption(selected=True, text="All", value="$__all")
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .description(description)
        .query({"query": query, "refId": name})
        .datasource(DATASOURCE)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .current(everything)
    )


def board(uid: str, title: str, description: str, services: str) -> dashboard.Dashboard:
    """An empty dashboard; `services` is a regular expression of the services whose pods it offers."""
    build = "paquebot_build_info"
    return (
        dashboard.Dashboard(f"Paquebot / {title}")
        .uid(f"paquebot-{uid}")
        .description(description)
        .tags([TAG])
        .readonly()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time("now-3h", "now")
        .timezone("browser")
        .refresh("30s")
        .link(
            dashboard.DashboardLink("Paquebot")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(
            dashboard.DatasourceVariable("datasource")
            .label("Data source")
            .description("The Prometheus that scrapes the pods.")
            .type("prometheus")
        )
        .with_variable(
            _variable("namespace", "Namespace", f"label_values({build}, namespace)", "The namespace of the release.")
        )
        .with_variable(
            _variable(
                "service",
                "Service",
                f'label_values({build}{{namespace=~"$namespace", service=~"{services}"}}, service)',
                "Narrows the list of pods.",
            )
        )
        .with_variable(
            _variable(
                "pod",
                "Pod",
                f'label_values({build}{{namespace=~"$namespace", service=~"$service"}}, pod)',
                "All pods, or some of them.",
            )
        )
        .annotation(_annotation("New version", VERSIONS, "purple"))
        .annotation(_annotation("Process started", STARTS, "light-blue"))
    )


VERSIONS = (
    'count by (service, version) (paquebot_build_info{namespace=~"$namespace"})'
    ' unless count by (service, version) (paquebot_build_info{namespace=~"$namespace"} offset 5m)'
)
STARTS = (
    f"process_start_time_seconds{{{SELECTOR}}} * 1000 * on (namespace, pod) group_left (service) paquebot_build_info"
)


def _annotation(name: str, expr: str, color: str) -> dashboard.AnnotationQuery:
    return (
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color(color)
        .expr(selected(expr))
    )


ANNOTATION_TEXTS: dict[str, dict[str, object]] = {
    "New version": {"titleFormat": "{{service}} {{version}}", "textFormat": "first pod of this version", "step": "60s"},
    "Process started": {"titleFormat": "{{service}}", "textFormat": "{{pod}} started", "useValueForTime": True},
}
"""What the Prometheus data source reads of an annotation and the SDK's type has no field for."""


def row(title: str) -> dashboard.Row:
    return dashboard.Row(title)


def filled(built: dashboard.Dashboard, *rows: tuple[str, Sequence[Panel]]) -> dashboard.Dashboard:
    """Put the panels under their headings, each row of panels filled from the left; number them from 1."""
    identity = 0
    for title, panels in rows:
        identity += 1
        built = built.with_row(row(title).id(identity))
        for panel in panels:
            identity += 1
            built = built.with_panel(panel.id(identity))
    return built


def sessions_on_the_loop() -> timeseries.Panel:
    """Share of the event loop that sessions use, and how often one must wait for its turn."""
    return graph(
        "Sessions on the event loop",
        "Seconds a second for which sessions held it, and waits of those that used more than their share.",
        "short",
        [
            Query(rate("paquebot_event_loop_session_seconds_total"), "held"),
            Query(rate("paquebot_event_loop_throttled_total"), "throttled"),
        ],
    )
