"""The blocks of the README and of the short pages of `docs/` do what they say.

Python and scripts are run against a real server. Commands are run, or looked up where they need what a test cannot
have: an engine for containers, a Slurm cluster.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lightning_bso import BsoClient, JobSpec
from tests.servers import ROOT, Server, environment

README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
SHORT_PAGES = ("compose", "cost", "deployment", "energy", "glossary", "security", "slurm", "zeus")
COMMANDS = [
    line.partition("#")[0].strip()
    for text in (README, *((ROOT / f"docs/{page}.md").read_text() for page in SHORT_PAGES))
    for block in re.findall(r"^ *```sh\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    for line in block.replace("\\\n", "").splitlines()
]
KUBERNETES = ROOT / "docker/kubernetes"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(f"sqlite:///{tmp_path / 'bso.db'}", tmp_path) as running:
        yield running


def run(block: str, server: Server, **names: Any) -> dict[str, Any]:
    exec(block.replace("http://127.0.0.1:8000", server.url), names)
    return names


def test_there_are_two_blocks_of_python_of_some_ten_lines() -> None:
    assert len(PYTHON) == 2
    assert all(len(block.splitlines()) <= 13 for block in PYTHON)


def test_the_block_for_lightning_trains(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.chdir(tmp_path)
    from lightning_digits import Classifier, Digits

    bso = run(PYTHON[0], server, model=Classifier(), datamodule=Digits())["bso"]
    assert bso.result.converged
    (trial,) = BsoClient(server.url).list_trials(bso.job_id).trials
    assert (trial.batch_size, trial.converged) == (128, True)


def test_the_block_for_plain_pytorch_trains(server: Server) -> None:
    accuracies = iter([0.5, 0.8, 0.95])
    names = run(
        PYTHON[1],
        server,
        make_loader=lambda batch_size: [batch_size],
        train_one_epoch=lambda loader: None,
        validate=lambda: next(accuracies),
    )
    assert names["bso"].result.converged
    assert names["loader"] == [64]


def assert_ignored(file: str) -> None:
    """Check that git would not take the file, which holds a secret."""
    subprocess.run(["git", "check-ignore", "--quiet", file], cwd=ROOT, check=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_one_that_works(command: str, tmp_path: Path) -> None:
    first, *rest = shlex.split(command)
    if first == "make":  # run as a whole by whoever reads this; here, that make knows it
        done = subprocess.run(["make", "--dry-run", *rest], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    elif first == "cp":
        assert (ROOT / rest[0]).is_file()
        assert (ROOT / rest[1]).parent.is_dir()
    elif first == "install":
        assert rest[:3] == ["-m", "600", "/dev/null"]
        assert_ignored(rest[3])
    elif first == "sudo":  # another user is what only root can give a file to
        assert rest[:2] == ["chown", "65534"]
        assert_ignored(rest[2])
    elif first == "nginx":
        assert rest == ["-s", "reload"]
    elif first == "docker-compose":  # needs an engine; tests/deploy runs what is in the file
        assert all((ROOT / file).is_file() for option, file in pairwise(rest) if option == "-f")
        if "exec" in rest:
            _, *inner = [part for part in rest[rest.index("exec") + 1 :] if part != "-T"]
            test_a_command_is_one_that_works(" ".join(inner).partition(" > ")[0], tmp_path)
    elif first == "docker":  # tests/deploy builds with buildah
        assert (ROOT / rest[rest.index("-f") + 1]).is_file()
    elif first == "kubectl":  # needs a cluster; tests/deploy renders the manifests
        if "--" in rest:
            test_a_command_is_one_that_works(" ".join(rest[rest.index("--") + 1 :]), tmp_path)
        folders = [part for part in rest if part.startswith("docker/kubernetes/")]
        assert all((ROOT / folder / "kustomization.yaml").is_file() for folder in folders)
        manifests = "".join(file.read_text() for file in KUBERNETES.rglob("*.yaml"))
        assert all(name in manifests for name in re.findall(r"\bbso-[a-z]+", command))
    elif first == "kompose":  # is in no package index
        assert command == "kompose convert -f resolved.yaml"
    elif first == "sbatch":  # needs a cluster; the script itself is run below
        assert rest == ["train.sh"]
    elif first == "lightning-bso":
        if rest[0] == "serve":  # does not end by itself; its options are read before --help
            rest.append("--help")
        program = [Path(sys.executable).with_name(first), *rest]
        done = subprocess.run(
            program, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
    else:
        pytest.fail(f"this test does not know a command of the README or of a page: {command}")


def test_the_script_for_slurm_trains_a_run_with_the_name_of_its_slurm_job(server: Server, tmp_path: Path) -> None:
    (script,) = re.findall(r"^```bash\n(.*?)^```", (ROOT / "docs/slurm.md").read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "train.sh").write_text(script)
    (tmp_path / "train.py").symlink_to(ROOT / "examples/lightning_digits.py")
    python = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    variables = environment(PATH=python, SLURM_JOB_ID="17", ZEUS_BSO_SERVER_URL=server.url)
    run = subprocess.run(
        ["bash", "train.sh"], cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=200, check=False
    )
    assert run.returncode == 0, run.stderr
    client = BsoClient(server.url)
    (job,) = client.list_jobs().jobs
    (trial,) = client.list_trials(job.job_id).trials
    assert (trial.run_id, trial.converged) == ("slurm-17", True)
    assert list((tmp_path / "checkpoints/17").iterdir())


def test_the_links_of_the_short_pages_lead_to_files() -> None:
    for page in SHORT_PAGES:
        for link in re.findall(r"\]\((?!http)([^)#]+)", (ROOT / f"docs/{page}.md").read_text()):
            assert (ROOT / "docs" / link).is_file(), f"{page}: {link}"


def test_a_page_that_another_page_names_is_a_link() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        assert re.findall(r"`(?:docs/)?[a-z-]+\.md`", page.read_text()) == [], page.name


def test_the_paths_that_the_readme_names_are_there() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    mentioned = re.findall(r"`((?:docs|examples|backend|lightning_bso|tests|docker)/[\w./]*)`", README)
    assert links
    assert mentioned
    for path in links + mentioned:
        assert (ROOT / path).exists(), path


def test_the_tree_that_the_readme_draws_is_the_one_of_the_checkout() -> None:
    section = README.partition("## Where things are")[2].partition("\n## ")[0]
    drawn, parents = set(), [Path()]
    for indent, name in re.findall(r"^ {4}( *)(\w+)/ {2,}\S", section, re.MULTILINE):
        depth = len(indent) // 4
        folder = parents[depth] / name
        parents[depth + 1 :] = [folder]
        drawn.add(str(folder))
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = [Path(line) for line in listed.splitlines() if not line.startswith(".")]
    top_level = {path.parts[0] for path in tracked if len(path.parts) > 1}
    packages = {
        str(path.parent)
        for path in tracked
        if path.suffix == ".py" and path.parts[0] in ("backend", "lightning_bso") and path.parent.name != "versions"
    }
    print(*sorted(drawn), sep="\n")
    assert drawn == top_level | packages


def test_the_costs_that_the_readme_names_are_those_of_the_table() -> None:
    table = (ROOT / "docs/policies.md").read_text().partition("power limit at its maximum")[2]
    measured = {name: float(cost) for name, cost in re.findall(r"^\| (\S+) \| (\d\.\d{3}) \(", table, re.MULTILINE)[:3]}
    named = re.findall(r"(\d+\.\d) % more (?:under `(.+?)`|with the)", README.replace("\n", " "))
    assert {name or "default": 1 + float(percent) / 100 for percent, name in named} == pytest.approx(measured)


def test_no_line_of_the_readme_is_longer_than_100_characters() -> None:
    assert [line for line in README.splitlines() if len(line) > 100 and "](http" not in line] == []


def test_the_table_of_the_jobs_fields_is_complete() -> None:
    table = (ROOT / "docs/training.md").read_text()
    documented = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))))
    assert set(JobSpec.model_fields) - {"policy"} <= documented


def test_the_interpreter_is_the_one_of_the_virtual_environment() -> None:
    assert Path(sys.prefix).joinpath("zeus-client").is_dir(), "run the tests by `make test`"
