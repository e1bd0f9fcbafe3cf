"""Grafana: dashboards written by `make_dashboards`, and how they are provisioned."""
