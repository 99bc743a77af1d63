"""The dashboard and Prometheus' configuration fit what a server exposes."""

import json
import re
from pathlib import Path

import requests
import yaml

from backend.core.attention import Cause
from tests.deploy.container import DOCKER, example, services
from tests.servers import Server

MONITORING = DOCKER / "monitoring"
PANELS = json.loads((MONITORING / "grafana/dashboards/bso.json").read_text())["panels"]
(RULES,) = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
QUERIES += [rule["expr"] for rule in RULES["rules"]]


def test_each_query_of_the_dashboard_and_the_alerts_asks_for_metrics_and_labels_of_a_server(
    tmp_path: Path,
) -> None:
    with Server(f"sqlite:///{tmp_path / 'bso.db'}", tmp_path) as server:
        calls = server.calls
        calls.register()
        calls.converge(calls.trial())
        exposed = requests.get(f"{server.url}/metrics", timeout=30).text
    metrics = set(re.findall(r"^(zeus_bso_\w+)", exposed, re.MULTILINE))
    labels = set(re.findall(r'[{,](\w+)="', exposed))
    assert len(QUERIES) > len(RULES["rules"]) > 0
    for query in QUERIES:
        asked = set(re.findall(r"zeus_bso_\w+", query))
        assert asked, query
        assert asked <= metrics, query
        by = re.findall(r"by \(([^)]+)\)|\{(\w+)[=~!]", query)
        assert {name.strip() for pair in by for names in pair for name in names.split(",") if name} <= labels, query


def test_each_alert_says_what_has_happened_and_prometheus_reads_them() -> None:
    assert yaml.safe_load((MONITORING / "prometheus.yml").read_text())["rule_files"] == ["alerts.yml"]
    names = [rule["alert"] for rule in RULES["rules"]]
    assert len(set(names)) == len(names)
    for rule in RULES["rules"]:
        assert rule.keys() == {"alert", "expr", "for", "labels", "annotations"}
        assert rule["annotations"].keys() == {"summary", "description"}
        for label, value in re.findall(r'\{(\w+)="([^"]+)"\}', rule["expr"]):
            assert (label, value) in {("cause", cause) for cause in Cause}


def test_prometheus_asks_the_server_of_the_compose_file_and_grafana_asks_prometheus() -> None:
    compose = services(example())
    (job,) = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["server:8000"]}]
    assert compose["server"]["ports"][0].endswith(":8000")
    provisioned = MONITORING / "grafana/provisioning/datasources/prometheus.yaml"
    (source,) = yaml.safe_load(provisioned.read_text())["datasources"]
    assert (source["url"], "prometheus" in compose) == ("http://prometheus:9090", True)
    assert {target["datasource"]["uid"] for panel in PANELS for target in panel["targets"]} == {source["uid"]}
