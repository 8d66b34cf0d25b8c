"""What docker-compose.yml, the Dockerfile and deploy/ promise, as far as reading shows it.

deploy/smoke.sh runs it for real.
"""

import json
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.routing import APIRoute
from opentelemetry.sdk import environment_variables
from prometheus_client import Metric

from service.keys import Keys
from service.routes import router
from service.settings import PREFIX, Settings
from service.telemetry import Metrics
from srgnn import __version__

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
JOBS = {name: service for name, service in SERVICES.items() if service["restart"] == "no"}
STAYING = {name: service for name, service in SERVICES.items() if name not in JOBS}
RECOMMENDERS = {name: service for name, service in SERVICES.items() if service["image"].startswith("srgnn:")}
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")
DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboard.json").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((ROOT / "deploy/alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
ALERTING = [alert["expr"] for alert in ALERTS]

every_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)


def deploy(name: str) -> str:
    return (ROOT / "deploy" / name).read_text(encoding="utf-8")


def seconds(duration: str) -> int:
    assert duration.endswith("s"), duration
    return int(duration[:-1])


def megabytes(size: str) -> int:
    """``512M``, ``1G``, or a variable with such a default."""
    number, unit = re.fullmatch(r"(?:\$\{\w+:-)?(\d+)([MG])\}?", size).groups()  # type: ignore[union-attr]
    return int(number) * {"M": 1, "G": 1024}[unit]


def test_every_image_is_pinned():
    images = [service["image"] for service in SERVICES.values()] + re.findall(r"^ARG PYTHON=(\S+)", DOCKERFILE, re.M)
    for image in images:
        assert re.search(r":v?\d+\.\d+\.\d+", image), image
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.M)) <= {"${PYTHON}", *re.findall(r" AS (\S+)", DOCKERFILE)}


def test_our_images_carry_our_version():
    ours = {service["image"] for service in SERVICES.values() if "build" in service}
    assert {image.partition(":")[2].removesuffix("-cuda") for image in ours} == {__version__}
    assert f"ARG VERSION={__version__}\n" in DOCKERFILE


@every_service
def test_every_service_is_closed_up(service: dict[str, Any]):
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    assert service["logging"]["options"]["max-size"]


@every_service
def test_no_service_runs_as_root(service: dict[str, Any]):
    if "build" in service:
        assert re.search(r"^USER \d*[1-9]\d*:\d+$", DOCKERFILE, re.M)
        assert "user" not in service
    else:
        assert re.fullmatch(r"[1-9]\d*:\d+", service["user"])


@every_service
def test_every_service_has_limits_and_a_restart_policy(service: dict[str, Any]):
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert service["restart"] in ("no", "unless-stopped")


@pytest.mark.parametrize("service", STAYING.values(), ids=STAYING)
def test_every_service_that_stays_up_has_a_health_check(service: dict[str, Any]):
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")


@pytest.mark.parametrize("service", JOBS.values(), ids=JOBS)
def test_jobs_have_no_network(service: dict[str, Any]):
    assert service["network_mode"] == "none"


def test_compose_and_image_check_health_alike():
    [options, command] = re.findall(r"^HEALTHCHECK (.*) CMD (.*)$", DOCKERFILE, re.M)[0]
    image = {name.replace("-", "_"): value for name, value in re.findall(r"--([\w-]+)=(\w+)", options)}
    for service in RECOMMENDERS.values():
        check = {name: str(value) for name, value in service["healthcheck"].items() if name != "test"}
        assert check == image
        assert service["healthcheck"]["test"] == ["CMD", *json.loads(command)]


def test_only_recommenders_and_the_exporter_reach_redis():
    assert COMPOSE["networks"]["store"]["internal"] is True
    on_store = {name for name, service in SERVICES.items() if "store" in service.get("networks", ())}
    assert on_store == {"redis", "export", *RECOMMENDERS}
    assert "ports" not in SERVICES["redis"]
    assert SERVICES["redis"]["networks"] == ["store"]


def test_every_published_port_is_on_loopback_unless_told_otherwise():
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    for port in ports:
        assert port.startswith(("127.0.0.1:", "${BIND:-127.0.0.1}:")), port


def test_every_secret_is_required_and_has_no_default():
    uses = re.findall(r"\$\{(\w*(?:PASSWORD|SECRET|KEY|TOKEN))\b([^}]*)\}", TEXT)
    assert {name for name, _ in uses} == {"REDIS_PASSWORD", "GRAFANA_PASSWORD", "PROMETHEUS_KEY"}
    for name, rest in uses:
        assert rest.startswith(":?"), name
        assert f"\n{name}=\n" in EXAMPLE
    assert not re.search(r"(?i)password\s*[:=]\s*\w+$", TEXT + deploy("redis.conf"), re.M)


def test_redis_is_told_its_password_by_a_file():
    assert "include /tmp/password.conf" in deploy("redis.conf").splitlines()
    assert not re.search("^requirepass", deploy("redis.conf"), re.M)
    assert "--requirepass" not in TEXT
    assert " -a " not in str(SERVICES["redis"])


def test_redis_keeps_sessions_and_evicts_only_what_expires():
    lines = deploy("redis.conf").splitlines()
    assert {"appendonly yes", "appendfsync everysec", "maxmemory-policy volatile-ttl"} <= set(lines)
    [maxmemory] = [int(line.split()[1].removesuffix("mb")) for line in lines if line.startswith("maxmemory ")]
    assert maxmemory * 1.5 <= megabytes(SERVICES["redis"]["deploy"]["resources"]["limits"]["memory"])


@pytest.mark.parametrize("service", RECOMMENDERS.values(), ids=RECOMMENDERS)
def test_every_variable_of_the_service_is_a_setting(service: dict[str, Any]):
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    opentelemetrys = {name for name in vars(environment_variables) if name.startswith("OTEL_")}
    assert set(service["environment"]) <= known | opentelemetrys
    assert set(re.findall(rf"\b{PREFIX}\w+(?==)", DOCKERFILE)) <= known


def test_jobs_are_given_no_settings_of_the_service():
    for service in JOBS.values():
        assert not [name for name in service["environment"] if name.startswith(PREFIX)]


def test_requests_under_way_may_finish_before_a_stop_kills():
    for service in RECOMMENDERS.values():
        under_way = service["environment"]["SRGNN_DRAIN_SECONDS"] + service["environment"]["SRGNN_SHUTDOWN_SECONDS"]
        assert seconds(service["stop_grace_period"]) > under_way
        assert f"stop -t {seconds(service['stop_grace_period'])} " in deploy("roll.sh")


def test_the_service_waits_for_redis_and_a_model():
    for service in RECOMMENDERS.values():
        assert service["depends_on"] == {
            "redis": {"condition": "service_healthy"},
            "model": {"condition": "service_completed_successfully"},
        }
        assert service["volumes"][0] == "artifacts:/artifacts:ro"


def test_the_exporter_writes_where_trainings_read():
    export = SERVICES["export"]
    assert export["command"] == ["srgnn", "export-clicks", "--output", "/clicks"]
    assert export["volumes"] == ["clicks:/clicks"]
    assert export["networks"] == ["store"]
    assert export["environment"] == {"SRGNN_REDIS_URL": SERVICES["srgnn"]["environment"]["SRGNN_REDIS_URL"]}
    for service in JOBS.values():
        assert "clicks:/clicks:ro" in service["volumes"]
        assert service["image"].removesuffix("-cuda") == export["image"]
    assert re.search(r"install -d .* /clicks\b", DOCKERFILE)
    assert "--input /clicks " in deploy("model.sh")


def test_the_image_of_the_exporter_has_what_it_imports():
    [train] = re.findall(r"^FROM extra AS train-packages\n(.*?)\n\n", DOCKERFILE, re.M | re.S)
    assert all(f"-r {extra}.txt" in train for extra in ("train", "serve", "export"))


def test_profiles_are_those_of_the_documents():
    assert {profile for service in SERVICES.values() for profile in service.get("profiles", ())} == {
        "scale",
        "train",
        "train-gpu",
        "export",
        "monitoring",
    }
    assert {name for name, service in SERVICES.items() if "profiles" not in service} == {"redis", "model", "srgnn"}


def test_training_on_a_gpu_reserves_one_and_has_a_cuda_torch():
    service = SERVICES["train-gpu"]
    [device] = service["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert service["environment"]["DEVICE"] == "cuda"
    cuda = re.fullmatch(r"\$\{CUDA:-(cu\d+)\}", service["build"]["args"]["TORCH"])
    assert cuda
    assert service["build"]["args"]["TORCH_INDEX"].endswith(f"/{cuda[1]}}}")
    assert "ARG TORCH=cpu\n" in DOCKERFILE


def test_every_variable_of_compose_is_explained_with_its_default():
    explained = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", EXAMPLE, re.M))
    used = re.findall(r"(?<!\$)\$\{(\w+)(?::?([-?])([^}]*))?\}", TEXT)
    for_people = {"CLIENT_KEY", "ADMIN_KEY"}  # compose needs them nowhere
    assert {name for name, _, _ in used} | for_people == set(explained)
    for name, kind, default in used:
        if kind == "-" and default and default != "/dev/null":
            assert explained[name] == default, name


def test_defaults_of_settings_in_the_example_are_the_settings():
    for name, value in re.findall(rf"^#{PREFIX}(\w+)=(.*)$", EXAMPLE, re.M):
        assert str(Settings.model_fields[name.lower()].default) == value


def test_nginx_retries_only_what_may_be_repeated():
    conf = re.sub(r"#.*", "", deploy("nginx.conf"))
    retried = re.findall(r"location (?:= |~ )?(\S+) \{[^}]*non_idempotent", conf)
    assert retried == ["/recommendations", "^/sessions/[^/]+/click$"]
    assert "http_5" not in conf


def test_nginx_takes_bodies_as_large_as_the_service():
    assert "client_max_body_size 1m;" in deploy("nginx.conf")
    assert Settings.model_fields["max_body_bytes"].default == 1 << 20


def test_a_path_that_does_not_exist_is_an_error_and_no_new_folder():
    for service in JOBS.values():
        bound = [volume for volume in service["volumes"] if not isinstance(volume, str)]
        assert {volume["target"] for volume in bound} == {"/input/artifact", "/input/clicks"}
        assert all(volume["bind"] == {"create_host_path": False} and volume["read_only"] for volume in bound)


def test_every_mounted_file_exists():
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            if isinstance(volume, str) and volume.startswith("./"):
                assert (ROOT / volume.split(":")[0]).is_file(), volume


def test_the_build_sees_only_what_it_copies():
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(?:--\S+ )?(.*) \S+$", DOCKERFILE, re.M)
    assert kept == {path for line in copied for path in line.split()}


def test_the_image_holds_no_credentials_or_machine_of_ours():
    for name in ("Dockerfile", "docker-compose.yml", ".env.example"):
        for url in re.findall(r"https?://[^\s\"'}$]+", (ROOT / name).read_text(encoding="utf-8")):
            assert re.match(r"https://download\.pytorch\.org/|http://(localhost|collector)[:/]", url), url


def samples(metric: Metric) -> set[str]:
    """The names that Prometheus will see, also of a metric that has no value yet."""
    endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "info": ["_info"], "gauge": [""]}
    return {metric.name + ending for ending in endings[metric.type]}


def metrics_that_exist() -> set[str]:
    families = Metrics("any", datetime.now(UTC)).registry.collect()
    return set().union(*map(samples, families))


@pytest.mark.parametrize("expression", EXPRESSIONS + ALERTING)
def test_every_metric_of_dashboard_and_alerts_exists(expression: str):
    assert set(re.findall(r"\bsrgnn_\w+", expression)) <= metrics_that_exist()


def test_dashboard_and_alerts_ask_for_labels_that_exist():
    expressions = EXPRESSIONS + ALERTING
    labels = {label for expression in expressions for label in re.findall(r"(\w+)(?:=~|!=|=)\"", expression)}
    labels |= {label for expression in expressions for label in re.findall(r"by \((\w+)\)", expression)}
    metrics = Metrics("any")
    ours = {label for metric in vars(metrics).values() for label in getattr(metric, "_labelnames", ())}
    assert labels <= ours | {"le", "job", "name"}


def test_the_dashboard_shows_what_an_operator_asks():
    shown = " ".join(EXPRESSIONS)
    for name in ("requests_total", "request_seconds", "answers_total", "degraded", "store_failures", "model_info"):
        assert name in shown
    assert "srgnn_model_created_timestamp_seconds" in shown


def test_alerts_name_routes_that_exist():
    routes = set(re.findall(r'route!?="([^"]+)"', " ".join(ALERTING)))
    assert routes
    assert routes <= {route.path for route in router.routes if isinstance(route, APIRoute)}


def test_every_alert_says_what_is_wrong_and_how_urgent_it_is():
    assert len({alert["alert"] for alert in ALERTS}) == len(ALERTS)
    for alert in ALERTS:
        assert alert["labels"]["severity"] in ("page", "ticket")
        assert alert["annotations"]["summary"].endswith(".")
        assert alert["expr"].count("(") == alert["expr"].count(")")


def test_prometheus_is_given_the_alerts():
    [rules] = yaml.safe_load(deploy("prometheus.yml"))["rule_files"]
    assert f"./deploy/alerts.yml:{rules}:ro" in SERVICES["prometheus"]["volumes"]


def test_the_dashboards_source_is_the_provisioned_one():
    [source] = yaml.safe_load(deploy("grafana/datasource.yml"))["datasources"]
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"


def test_recommenders_read_the_hashes_of_the_keys_and_nothing_else_of_them():
    for service in RECOMMENDERS.values():
        [keys] = [volume for volume in service["volumes"] if not isinstance(volume, str)]
        assert (keys["source"], keys["read_only"]) == ("${KEYS_FOLDER:-./keys}", True)
        assert service["environment"]["SRGNN_KEYS_FILE"] == keys["target"] + "/service"
        assert not [name for name in ("CLIENT_KEY", "ADMIN_KEY", "PROMETHEUS_KEY") if name in str(service)]


def test_init_writes_secrets_for_their_owner_and_hashes_that_the_service_takes(tmp_path: Path):
    def init() -> "subprocess.CompletedProcess[str]":
        command = [str(ROOT / "deploy/init.sh"), str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert init().returncode == 0
    secrets = dict(re.findall(r"^([A-Z]+_(?:PASSWORD|KEY))=(.*)$", (tmp_path / ".env").read_text(), re.M))
    assert len(set(secrets.values())) == 5
    assert all(re.fullmatch(r"(srgnn_)?[0-9a-f]{48,64}", secret) for secret in secrets.values())
    keys = Keys(tmp_path / "keys/service")
    for name, scopes in (
        ("CLIENT", {"click", "read"}),
        ("PROMETHEUS", {"read"}),
        ("ADMIN", {"click", "read", "admin"}),
    ):
        grant = keys.find(secrets[f"{name}_KEY"].encode())
        assert grant
        assert grant.scopes == scopes
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "keys/service").stat().st_mode & 0o777 == 0o644, "another user reads it in its container"
    assert not [secret for secret in secrets.values() if secret in (tmp_path / "keys/service").read_text()]
    again = init()
    assert again.returncode == 1
    assert "is there already" in again.stderr


def test_prometheus_brings_its_key_from_a_file_in_memory():
    [job] = yaml.safe_load(deploy("prometheus.yml"))["scrape_configs"]
    service = SERVICES["prometheus"]
    shell, _, script, _ = service["entrypoint"]
    assert shell == "/bin/sh"
    assert f'umask 077 && printf %s "$$KEY" > {job["authorization"]["credentials_file"]} && unset KEY' in script
    assert job["authorization"]["credentials_file"].startswith("/tmp/")
    assert set(service["environment"]) == {"KEY"}


def test_the_gateway_passes_on_nothing_for_operators():
    conf = deploy("nginx.conf")
    for location in ("= /metrics", "/admin/"):
        assert f"location {location} {{ return 404; }}" in conf
    seconds = Settings.model_fields["transfer_seconds"].default
    for name in ("client_header_timeout", "client_body_timeout", "send_timeout"):
        assert f"{name} {seconds}s;" in conf


def test_prometheus_finds_every_recommender():
    [job] = yaml.safe_load(deploy("prometheus.yml"))["scrape_configs"]
    [found] = job["dns_sd_configs"]
    assert found["port"] == 8000
    for service in RECOMMENDERS.values():
        assert found["names"] == service["networks"]["front"]["aliases"]
    assert f"getent ahostsv4 {found['names'][0]} " in deploy("nginx.sh")


def test_scripts_may_be_run():
    for path in (ROOT / "deploy").glob("*.sh"):
        assert path.read_text().startswith("#!") == bool(path.stat().st_mode & 0o111), path.name
