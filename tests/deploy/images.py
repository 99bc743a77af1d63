"""Build the images with buildah, and run programs in them. Nothing is pulled: the base is made of Debian's packages.

buildah keeps its images in `build/images`, so only the first build takes minutes. It must be run as root.
"""

import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from tests.deploy.container import DOCKER
from tests.servers import ROOT

STORE = ROOT / "build/images"
BASE = "docker.io/library/python:3.11-slim"
DEBIAN = "bookworm"
"""The release of Debian whose Python is 3.11."""
PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"

_LIKE_PYTHONS_OWN_IMAGE = """
ln -s /usr/bin/python3 /usr/local/bin/python
ln -s /usr/bin/python3 /usr/local/bin/python3
ln -s /usr/bin/pip3 /usr/local/bin/pip
rm /usr/lib/python3*/EXTERNALLY-MANAGED
rm -rf /var/lib/apt/lists/* /var/cache/apt/*
"""
READ_ONLY = """
set -eu
root=$1 data=$2
shift 2
mount --bind "$root" "$root"
mkdir -p "$root/data"
mount --bind "$data" "$root/data"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/dev"
for device in null zero urandom; do touch "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
mount -o remount,bind,ro "$root"
exec chroot --userspec=10001:10001 "$root" env -i "$@"
"""
"""Run a command like `docker run --read-only --tmpfs /tmp --user 10001`."""


def buildah(*arguments: str | Path) -> str:
    """Run buildah, and return what it prints."""
    done = subprocess.run(_command(*arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def make_base() -> None:
    """Make the image that the Dockerfiles start from, unless it is there."""
    if buildah("images", "--quiet", "--filter", f"reference={BASE}"):
        return
    system = STORE / "debian"
    remove = ("rm", "-rf", "--one-file-system", system)
    subprocess.run(remove, check=True)  # what a run that was stopped has left
    packages = "--include=python3,python3-pip,python3-venv,ca-certificates"
    own_mounts = ("unshare", "--mount", "--propagation=private")  # they go with it, also when it is stopped
    subprocess.run([*own_mounts, "debootstrap", "--variant=minbase", packages, DEBIAN, system], check=True)
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, system, "/")
    buildah("run", "--isolation", "chroot", container, "--", "sh", "-ec", _LIKE_PYTHONS_OWN_IMAGE)
    buildah("config", "--env", f"PATH={PATH}", "--cmd", "python3", container)
    buildah("commit", "--quiet", "--rm", container, BASE)
    subprocess.run(remove, check=True)


@cache
def wheelhouse() -> Path:
    """Download the locked packages with the pip of this machine, so that a build needs no index."""
    folder = STORE / "wheels"
    locks = [f"--requirement={file}" for file in sorted(DOCKER.glob("*requirements.txt"))]
    options = ("--no-deps", "--only-binary=:all:", "--python-version=3.11", "--require-hashes", f"--dest={folder}")
    command = (sys.executable, "-m", "pip", "download", "--quiet", *options, *locks)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def build(service: str) -> str:
    """Build a service's image, and return its name."""
    make_base()
    wheels = wheelhouse()
    configuration = STORE / "pip.conf"
    configuration.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    name = f"lightning-bso-{service}"
    volumes = (f"--volume={wheels}:/wheels:ro", f"--volume={configuration}:/etc/pip.conf:ro")
    options = ("--pull=never", "--isolation=chroot", "--format=docker", "--layers", *volumes)
    buildah("build", *options, "--file", DOCKER / f"Dockerfile.{service}", "--tag", name, ROOT)
    return name


class Container:
    """A container of an image. Programs in it use this machine's network."""

    def __init__(self, image: str) -> None:
        self._container = buildah("from", "--pull=never", f"localhost/{image}")
        self.size = buildah("images", "--format", "{{.Size}}", f"localhost/{image}")

    def remove(self) -> None:
        """Remove the container. Its image stays."""
        buildah("rm", self._container)

    def command(self, command: Iterable[str], data: Path, variables: Mapping[str, str]) -> list[str]:
        """Return what runs a command through `buildah run`, with a folder as `/data`."""
        settings = [f"--env={name}={value}" for name, value in variables.items()]
        return _command(
            "run", "--isolation=chroot", f"--volume={data}:/data", *settings, self._container, "--", *command
        )

    def read_only(self, command: Iterable[str], data: Path, variables: Mapping[str, str]) -> list[str]:
        """Return what runs a command with a root file system that is read-only, but for `/tmp` and `/data`."""
        root = buildah("mount", self._container)
        settings = [f"{name}={value}" for name, value in variables.items()]
        start = ("unshare", "--mount", "--propagation=private", "sh", "-c", READ_ONLY, "sh")
        return [*start, root, str(data), f"PATH=/opt/bso/bin:{PATH}", *settings, *command]


def _command(*arguments: str | Path) -> list[str]:
    return ["buildah", "--root", str(STORE / "storage"), "--runroot", str(STORE / "run"), *map(str, arguments)]
