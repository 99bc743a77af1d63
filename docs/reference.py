"""The pages of the documentation site that come from the code and from the files beside `docs/`.

mkdocs calls this hook when it builds the site. So no setting, metric, call, option or public name is described
twice, and none is left out.
"""

import os
import tempfile
from argparse import ArgumentParser
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from prometheus_client.parser import text_string_to_metric_families

import lightning_bso
from backend import cli as server_cli
from backend.app import create_app
from backend.config import ENV_PREFIX, Settings
from lightning_bso.console import cli as client_cli

ROOT = Path(__file__).resolve().parent.parent
BESIDE_DOCS = {"index.md": "README.md", "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
"""Pages, and the files beside `docs/` that they come from."""
HELP_COLUMNS = 100
READ_FROM_OTHERS = {
    "SLURM_JOB_ID": "Name of a run, where neither its `run_id` nor a checkpoint names it.",
    "SLURM_STEP_ID": "Part of that name, where it is set.",
    "TORCHELASTIC_RUN_ID": "The same under torchrun and other launchers of torchelastic.",
    "SLURM_RESTART_COUNT": "A greater number says that the processes of an earlier start have ended.",
    "TORCHELASTIC_RESTART_COUNT": "The same under torchelastic.",
}
"""What `lightning_bso.identity` and `lightning_bso.process` read from schedulers."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those in `docs/`."""
    for page, source in BESIDE_DOCS.items():
        text = (ROOT / source).read_text()
        for other_page, other_source in BESIDE_DOCS.items():
            text = text.replace(f"]({other_source}", f"]({other_page}")
        files.append(File.generated(config, page, content=text.replace("](docs/", "](")))
    document, metrics = _asked_from_a_server()
    for page, lines in {
        "python": _python(),
        "http": _http(document),
        "settings": _settings(),
        "variables": _variables(),
        "metrics": _metrics(metrics),
        "command-line": _command_line(),
    }.items():
        files.append(File.generated(config, f"reference/{page}.md", content="\n".join(lines)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead links to files beside `docs/` to the pages that come from them."""
    for page, source in BESIDE_DOCS.items():
        markdown = markdown.replace(f"](../{source}", f"]({page}")
    return markdown


def on_post_page(output: str, **_: Any) -> str:
    """Name the theme's search dialog, for screen readers."""
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"', 1)


def _asked_from_a_server() -> tuple[dict[str, Any], str]:
    """Return the OpenAPI document and the metrics of a server with an empty database."""
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(database_url=f"sqlite:///{folder}/empty.db", log_level="CRITICAL"))
        caller = app.test_client()
        return caller.get("/openapi.json").get_json(), caller.get("/metrics").get_data(as_text=True)


def _python() -> Iterator[str]:
    yield "# Python API\n"
    yield "Every name is imported from `lightning_bso`, and loaded when it is first used.\n"
    package = griffe.load("lightning_bso", search_paths=[str(ROOT)])
    for name in lightning_bso.__all__:
        target = package[name]
        yield f"::: {target.target_path if target.is_alias else target.path}\n"


def _settings() -> Iterator[str]:
    yield "# Settings of the server\n"
    yield "Each is an environment variable, or a line of `.env` in the current folder.\n"
    yield "| variable | default | meaning |\n|---|---|---|"
    described = griffe.load("backend.config", search_paths=[str(ROOT)])["Settings"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, "") else f"`{field.default}`"
        yield f"| `{ENV_PREFIX}{name.upper()}` | {default} | {_cell(_docstring(described[name]))} |"


def _variables() -> Iterator[str]:
    yield "# Environment variables of a training\n"
    yield "An argument in the program goes before its variable.\n"
    yield "| variable | meaning |\n|---|---|"
    for name, member in griffe.load("lightning_bso.variables", search_paths=[str(ROOT)]).members.items():
        yield f"| `{ENV_PREFIX}{name}` | {_cell(_docstring(member))} |"
    for name, meaning in READ_FROM_OTHERS.items():
        yield f"| `{name}` | {meaning} |"


def _metrics(text: str) -> Iterator[str]:
    yield "# Metrics\n"
    yield "A server exposes these at `/metrics`, in the text format of Prometheus.\n"
    yield "| metric | type | labels | meaning |\n|---|---|---|---|"
    for family in text_string_to_metric_families(text):
        labels = {label: None for sample in family.samples for label in sample.labels if label != "le"}
        yield f"| `{family.name}` | {family.type} | {', '.join(map(_code, labels))} | {_cell(family.documentation)} |"


def _http(document: dict[str, Any]) -> Iterator[str]:
    yield "# HTTP API\n"
    yield "A running server shows the same at `/openapi/swagger`, where you can try it.\n"
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"## {method.upper()} {path}\n"
            yield from filter(None, (operation.get("summary", ""), "", operation.get("description", ""), "\n"))
            yield from _parameters(operation.get("parameters", []))
            for content in operation.get("requestBody", {}).get("content", {}).values():
                yield f"The request is {_type(content['schema'])}.\n"
            yield "| status | answer |\n|---|---|"
            for status, answer in operation["responses"].items():
                types = [_type(content.get("schema", {})) for content in answer.get("content", {}).values()]
                yield f"| {status} | {_cell(answer.get('description', ''))} {', '.join(types)} |"
            yield ""
    yield "## Types\n"
    for name, schema in sorted(document["components"]["schemas"].items()):
        yield f"### {name}\n"
        yield f"{schema.get('description', '')}\n"
        if "enum" in schema:
            yield f"One of {', '.join(map(_code, schema['enum']))}.\n"
        if "properties" in schema:
            yield "| field | type | default | meaning |\n|---|---|---|---|"
            for field, of_field in schema["properties"].items():
                default = "required" if field in schema.get("required", ()) else _code(of_field.get("default"))
                yield f"| `{field}` | {_type(of_field)} | {default} | {_cell(of_field.get('description', ''))} |"
            yield ""


def _parameters(parameters: list[dict[str, Any]]) -> Iterator[str]:
    if parameters:
        yield "| parameter | in | type | meaning |\n|---|---|---|---|"
        for parameter in parameters:
            meaning = parameter.get("description", "")
            yield f"| `{parameter['name']}` | {parameter['in']} | {_type(parameter['schema'])} | {_cell(meaning)} |"
        yield ""


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return " or ".join(map(_type, schema[several]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if "enum" in schema:
        return " or ".join(map(_code, schema["enum"]))
    limits = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[limit]}" for limit, sign in limits.items() if limit in schema]
    return " ".join([str(schema.get("type", "any")), ", ".join(bounds)]).strip()


def _command_line() -> Iterator[str]:
    os.environ["COLUMNS"] = str(HELP_COLUMNS)  # argparse takes the width from there
    yield "# The command lightning-bso\n"
    yield f"This is what `--help` says in version {version('lightning-bso')}.\n"
    parser = client_cli._parser()
    yield from _help("lightning-bso", parser.format_help())
    for action in parser._actions:
        for name, command in (action.choices or {}).items() if isinstance(action.choices, dict) else ():
            if isinstance(command, ArgumentParser) and name not in ("serve", "server"):
                yield from _help(f"lightning-bso {name}", command.format_help())
    commands = server_cli.main.commands
    yield from _click_help("lightning-bso serve", commands["serve"])
    yield from _click_help("lightning-bso server", server_cli.main)


def _click_help(name: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=name, max_content_width=HELP_COLUMNS, terminal_width=HELP_COLUMNS)
    yield from _help(name, command.get_help(context))
    for sub_name, sub_command in getattr(command, "commands", {}).items():
        if sub_command is not server_cli.serve:
            yield from _click_help(f"{name} {sub_name}", sub_command)


def _help(name: str, text: str) -> Iterator[str]:
    yield f"## {name}\n\n```text\n{text.rstrip()}\n```\n"


def _docstring(member: "griffe.Object | griffe.Alias") -> str:
    if member.docstring is None:
        raise ValueError(f"{member.path} has no docstring to show on the site")
    return member.docstring.value


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _code(value: Any) -> str:
    return "" if value in (None, "") else f"`{value}`"
