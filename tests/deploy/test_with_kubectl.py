"""The manifests, rendered by kubectl and checked against Kubernetes' schemas. `make test-deploy` runs these tests."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from backend.config import CLIENT_VARIABLES, ENV_PREFIX, Settings
from tests.deploy.container import DOCKER, Image, example, services
from tests.servers import ROOT

KUBERNETES = DOCKER / "kubernetes"
OVERLAYS = ["external-database", "mysql", "sqlite-dev"]
OLDEST, NEWEST = "1.29", "1.32"
SETTINGS = {ENV_PREFIX + name.upper() for name in Settings.model_fields}

Resources = dict[tuple[str, str], Any]


@cache
def rendered(overlay: str) -> str:
    command = ["kubectl", "kustomize", KUBERNETES / "overlays" / overlay]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def resources(overlay: str) -> Resources:
    documents = yaml.safe_load_all(rendered(overlay))
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


def pods(overlay: str) -> dict[str, Any]:
    """Return the specs of the Pods of an overlay, by their component."""
    templates = [
        found["spec"]["template"] for found in resources(overlay).values() if "template" in found.get("spec", {})
    ]
    return {found["metadata"]["labels"]["app.kubernetes.io/component"]: found["spec"] for found in templates}


def valid(file: Path, version: str) -> None:
    command = [Path(sys.executable).with_name("kubernetes-validate"), "--kubernetes-version", version, "--strict", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout + done.stderr


def test_each_overlay_is_one_that_the_tests_know() -> None:
    assert sorted(path.name for path in (KUBERNETES / "overlays").iterdir()) == OVERLAYS


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_renders_to_resources_of_kubernetes(overlay: str, version: str, tmp_path: Path) -> None:
    file = tmp_path / f"{overlay}.yaml"
    file.write_text(rendered(overlay))
    valid(file, version)


@pytest.mark.parametrize("example", sorted((KUBERNETES / "examples").iterdir()), ids=lambda file: file.name)
def test_an_example_is_a_resource_of_kubernetes_and_takes_the_client_s_variables(example: Path) -> None:
    valid(example, NEWEST)
    assert set(re.findall(r"ZEUS_BSO_\w+", example.read_text())) <= CLIENT_VARIABLES


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_has_no_more_rights_and_files_than_it_needs(overlay: str) -> None:
    for name, pod in pods(overlay).items():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        claimed = {"data"} if name == "database" else set()
        assert mounted == {volume["name"] for volume in pod["volumes"]} | claimed


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_manifests_set_only_settings_that_the_server_has(overlay: str) -> None:
    assert set(re.findall(rf"{ENV_PREFIX}\w+", rendered(overlay))) <= SETTINGS
    (settings,) = (found["data"] for (kind, _), found in resources(overlay).items() if kind == "ConfigMap")
    assert Settings(database_url=settings["ZEUS_BSO_DATABASE_URL"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_manifest_holds_a_password_or_a_secret(overlay: str) -> None:
    assert not [kind for kind, _ in resources(overlay) if kind == "Secret"]
    assert not re.search(r"://\w*:[^/\s]*@", rendered(overlay))


def test_mysql_has_a_folder_of_its_volume_for_itself() -> None:
    (container,) = pods("mysql")["database"]["containers"]
    (data,) = (mount for mount in container["volumeMounts"] if mount["name"] == "data")
    assert (data["mountPath"], data["subPath"]) == ("/var/lib/mysql", "mysql")


@pytest.mark.parametrize("overlay", ["external-database", "mysql"])
def test_two_servers_are_kept_apart_and_one_of_them_stays(overlay: str) -> None:
    found = resources(overlay)
    deployment = found["Deployment", "bso-server"]["spec"]
    assert deployment["replicas"] == 2
    budget = found["PodDisruptionBudget", "bso-server"]["spec"]
    assert budget["minAvailable"] == 1
    assert budget["selector"] == deployment["selector"]
    assert deployment["template"]["spec"]["topologySpreadConstraints"][0]["labelSelector"] == deployment["selector"]
    for component in ("server", "migration"):
        volumes = pods(overlay)[component]["volumes"]
        assert {"name": "credentials", "secret": {"secretName": "bso-database"}} in volumes
        (container,) = pods(overlay)[component]["containers"]
        assert {"/run/secrets"} <= {mount["mountPath"] for mount in container["volumeMounts"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_selector_names_this_application_and_finds_its_pods(overlay: str) -> None:
    found = resources(overlay)
    for (kind, _), resource in found.items():
        selector = resource["spec"].get("selector") if kind in ("Deployment", "StatefulSet", "Service") else None
        if selector:
            labels = selector.get("matchLabels", selector)
            assert labels["app.kubernetes.io/name"] == "lightning-bso"
            assert labels["app.kubernetes.io/component"] in pods(overlay)
    server = found["Deployment", "bso-server"]
    assert server["metadata"]["labels"]["app.kubernetes.io/component"] == "server"  # so that it is applied last


def test_one_server_alone_uses_the_sqlite_file_and_migrates_it_itself() -> None:
    found = resources("sqlite-dev")
    deployment = found["Deployment", "bso-server"]["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    assert not {"Job", "PodDisruptionBudget"} & {kind for kind, _ in found}
    (container,) = deployment["template"]["spec"]["containers"]
    assert container["args"] == Image.of("server").command[: len(container["args"])]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_calls_reach_the_server_s_port_and_its_probes_are_the_health_endpoints(overlay: str) -> None:
    (container,) = pods(overlay)["server"]["containers"]
    (port,) = container["ports"]
    assert str(port["containerPort"]) in Image.of("server").command
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert probes == {
        "startup": {"path": "/healthz", "port": port["name"]},
        "liveness": {"path": "/healthz", "port": port["name"]},
        "readiness": {"path": "/readyz", "port": port["name"]},
    }
    found = resources(overlay)
    service = found["Service", "bso-server"]["spec"]
    assert service["selector"] == found["Deployment", "bso-server"]["spec"]["selector"]["matchLabels"]
    assert service["ports"] == [{"name": "http", "port": 8000, "targetPort": port["name"]}]
    (rule,) = found["Ingress", "bso-server"]["spec"]["rules"]
    assert rule["http"]["paths"][0]["backend"]["service"] == {"name": "bso-server", "port": {"name": "http"}}
    assert found["NetworkPolicy", "bso"]["spec"]["ingress"] == [{"ports": [{"port": port["containerPort"]}]}]


def test_the_images_are_those_of_this_version_and_the_database_is_that_of_compose() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    images = {name: pod["containers"][0]["image"] for name, pod in pods("mysql").items()}
    assert images == {
        "server": f"lightning-bso-server:{version[1]}",
        "migration": f"lightning-bso-migration:{version[1]}",
        "database": services(example())["database"]["image"],
    }
