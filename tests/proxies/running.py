"""nginx and Caddy with the files of `docker/proxy`, and certificates of a private authority."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.databases import free_port
from tests.servers import ROOT

FILES = ROOT / "docker" / "proxy"
PREFIX = "/bso"
STARTUP_S = 30
# What surrounds the file: Debian's and the image's nginx.conf say the same in other words.
_NGINX = """
daemon off;
user {user};
pid {folder}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/bso.conf;
}}
"""


class Authority:
    """A private certificate authority. `certificate` is the file that callers have to trust."""

    def __init__(self, folder: Path) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("a private authority")
        self.certificate = folder / "authority.pem"
        basic = x509.BasicConstraints(ca=True, path_length=0)
        signed = _certificate(self._name, self._name, self._key).add_extension(basic, critical=True)
        self.certificate.write_bytes(signed.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def issue(self, folder: Path, *, name: str = "localhost", valid: bool = True) -> None:
        """Write a certificate for this machine, `bso.pem`, and its key, `bso.key`.

        Args:
            folder: where to.
            name: the host's name in it, beside 127.0.0.1.
            valid: whether it has not expired.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName(name)]
        if name == "localhost":
            names.append(x509.IPAddress(ip_address("127.0.0.1")))
        certificate = _certificate(_name(name), self._name, key, expired=not valid).add_extension(
            x509.SubjectAlternativeName(names), critical=False
        )
        (folder / "bso.pem").write_bytes(certificate.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / "bso.key").write_bytes(secret)


@contextmanager
def nginx(server: str, folder: Path, authority: Authority, lines: str = "", **certificate: Any) -> Iterator[str]:
    """Run nginx before a server. Returns the server's address there.

    Args:
        server: the server, as HOST:PORT.
        folder: for its files.
        authority: issues its certificate.
        lines: more lines for the location of the server, as docs/proxies.md has them.
        certificate: arguments of `Authority.issue`.
    """
    port = free_port()
    text = (FILES / "nginx.conf").read_text()
    for written, meant in (("server:8000;", f"{server};"), ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;")):
        assert text.count(written) == 1
        text = text.replace(written, meant)
    path = "proxy_set_header X-Forwarded-Prefix /bso;"
    assert text.count(path) == 1
    (folder / "bso.conf").write_text(text.replace(path, f"{path}\n{lines}"))
    user = "root" if os.getuid() == 0 else "nobody"  # without root it keeps its user anyway
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, user=user))
    _issue(authority, folder, **certificate)
    command = [_program("nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "proxy.log")]
    with _running(command, folder, port):
        yield f"https://localhost:{port}{PREFIX}"


@contextmanager
def caddy(server: str, folder: Path, authority: Authority) -> Iterator[str]:
    """Run Caddy before a server. Returns the server's address there. The arguments are those of `nginx`."""
    port = free_port()
    tls = _issue(authority, folder)
    variables = {
        "BSO_ADDRESS": f"https://localhost:{port}",
        "BSO_CERTIFICATE": str(tls / "bso.pem"),
        "BSO_KEY": str(tls / "bso.key"),
        "BSO_SERVER": server,
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
    }
    command = [_program("caddy"), "run", "--config", str(FILES / "Caddyfile"), "--adapter", "caddyfile"]
    with _running(command, folder, port, **variables):
        yield f"https://localhost:{port}{PREFIX}"


PROXIES = {"nginx": nginx, "caddy": caddy}


def _issue(authority: Authority, folder: Path, **certificate: Any) -> Path:
    tls = folder / "tls"
    tls.mkdir()
    authority.issue(tls, **certificate)
    return tls


@contextmanager
def _running(command: list[str], folder: Path, port: int, **variables: str) -> Iterator[None]:
    log = folder / "proxy.log"
    with log.open("a") as output:
        process = subprocess.Popen(
            command, env=os.environ | variables, stdout=output, stderr=output, start_new_session=True
        )
    try:
        _wait_for(port, process, log)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + STARTUP_S
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{process.args} does not listen: {log.read_text()}") from None
            time.sleep(0.02)


def _program(name: str) -> str:
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    assert path is not None, f"{name} is missing; on Debian and Ubuntu: apt-get install {name}"
    return path


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, *, expired: bool = False
) -> x509.CertificateBuilder:
    end = datetime.now(UTC) + timedelta(days=-1 if expired else 1)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - timedelta(days=3))
        .not_valid_after(end)
    )
