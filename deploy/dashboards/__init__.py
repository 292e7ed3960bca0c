"""The Grafana dashboards of the chart, as code. `python -m dashboards` (in deploy/) writes them as JSON."""
