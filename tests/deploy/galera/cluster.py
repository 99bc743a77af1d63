"""MariaDB Galera nodes on loopback addresses, and haproxy before them and before the servers."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pymysql

from tests.databases import free_port
from tests.servers import ROOT, Server

NODES = 3
STARTUP_S = 120
PROVIDER = "/usr/lib/galera/libgalera_smm.so"
CONFIGURATION = ROOT / "docker" / "proxy" / "haproxy-galera.cfg"
OWNER = "mysql"
"""The user of the nodes. The program that copies a node's data refuses to run as root."""
# A node is given up after 2 s without a word from it.
_TIMEOUTS = "evs.keepalive_period=PT0.5S;evs.suspect_timeout=PT2S;evs.inactive_timeout=PT4S;evs.install_timeout=PT4S"
_SERVERS = """
defaults servers
    mode http
    timeout connect 2s
    timeout check 2s
    timeout client 60s
    timeout server 60s
    retries 3
    option redispatch 1

listen servers from servers
    bind "${BSO_SERVERS}"
    option httpchk GET /healthz
    default-server check inter 500ms fall 2 rise 1
    balance roundrobin
"""


class Node:
    """A MariaDB node of the cluster. It has an address of its own, 127.0.0.NUMBER."""

    def __init__(self, folder: Path, number: int, port: int, galera_port: int) -> None:
        self.folder = folder
        self.host = f"127.0.0.{number}"
        self.port = port
        self._galera_port = galera_port
        self._process: subprocess.Popen[bytes] | None = None
        self._was_part = False

    @property
    def address(self) -> str:
        """Where callers reach it."""
        return f"{self.host}:{self.port}"

    def start(self, cluster: Sequence["Node"], *, first: bool = False) -> None:
        """Start the node, and wait until it takes part in the cluster. `first`: it makes the cluster.

        A node that was killed does not know how far it has come. Debian's service asks it beforehand, and so does this.
        Otherwise it would get a copy of all data, and a node that gives one with rsync takes no writes meanwhile.
        """
        galera = f"gmcast.listen_addr=tcp://{self.host}:{self._galera_port};ist.recv_addr={self.host}:{free_port()}"
        others = ",".join(f"{node.host}:{node._galera_port}" for node in cluster)
        (self.folder / "tmp").mkdir(exist_ok=True)
        if os.getuid() == 0:
            for path in (self.folder, self.folder / "tmp"):
                shutil.chown(path, OWNER, OWNER)
        command = [
            *("mariadbd", "--no-defaults", f"--datadir={self.folder}/data", f"--socket={self.folder}/socket"),
            *(f"--user={OWNER}", f"--pid-file={self.folder}/pid"),
            *(f"--bind-address={self.host}", f"--port={self.port}", "--skip-name-resolve"),
            *("--innodb-buffer-pool-size=64M", "--performance-schema=OFF", "--character-set-server=utf8mb4"),
            *("--binlog-format=ROW", "--innodb-autoinc-lock-mode=2", "--wsrep-on=ON"),
            *(f"--wsrep-provider={PROVIDER}", f"--wsrep-cluster-address=gcomm://{others}"),
            *(f"--wsrep-node-address={self.host}:{self._galera_port}", "--wsrep-sst-method=rsync"),
            *(f"--wsrep-sst-receive-address={self.host}:{free_port()}", f"--wsrep-node-name={self.host}"),
            f"--wsrep-provider-options={galera};{_TIMEOUTS}",
        ]
        environment = os.environ | {"TMPDIR": f"{self.folder}/tmp"}
        if self._was_part:
            log = self.folder / "recover.log"
            log.unlink(missing_ok=True)
            subprocess.run([*command, "--wsrep-recover", f"--log-error={log}"], env=environment, check=True)
            position = re.findall(r"Recovered position: *(\S+)", log.read_text())[-1]
            command.append(f"--wsrep-start-position={position}")
        if first:
            command.append("--wsrep-new-cluster")
        self._process = subprocess.Popen(
            [*command, f"--log-error={self.folder}/error.log"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        self._was_part = True
        self.wait_until_synced()

    def wait_until_synced(self) -> None:
        """Wait until the node has what the others have, and takes queries."""
        deadline = time.monotonic() + STARTUP_S
        while self.state() != "Synced":
            ended = self._process is not None and self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise RuntimeError(f"{self.host} is not synced: {(self.folder / 'error.log').read_text()[-3000:]}")
            time.sleep(0.05)

    def state(self) -> str:
        """Return what the node says of itself; an empty text: nothing."""
        try:
            return str(self.ask("SHOW STATUS LIKE 'wsrep_local_state_comment'")[0][1])
        except pymysql.MySQLError:
            return ""

    def connect(self) -> "pymysql.Connection[Any]":
        """Connect to this node as root, not through haproxy."""
        return pymysql.connect(
            host=self.host, port=self.port, user="root", ssl_disabled=True, autocommit=True, connect_timeout=2
        )

    def ask(self, statement: str) -> tuple[tuple[object, ...], ...]:
        """Run a statement as root, directly on this node. Returns the rows."""
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()

    def send(self, sent: signal.Signals) -> None:
        """Send a signal to the node."""
        assert self._process is not None
        self._process.send_signal(sent)

    def isolate(self, *, isolated: bool) -> None:
        """Cut the node off from the other nodes, but not from callers, or connect it again."""
        self.ask(f"SET GLOBAL wsrep_provider_options = 'gmcast.isolate={int(isolated)}'")

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End the node, and wait for that."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
            self._process = None


class Cluster:
    """The nodes, and haproxy before them. `url` is the database's."""

    def __init__(self, nodes: list[Node], url: str) -> None:
        self.nodes = nodes
        self.url = url

    @property
    def writer(self) -> Node:
        """The node that all calls reach while it is up."""
        return self.nodes[0]

    def restart(self, node: Node) -> None:
        """Start a node that has ended, and wait until it is part of the cluster again."""
        node.start(self.nodes)


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Run three nodes and haproxy."""
    missing = [name for name in ("mariadbd", "haproxy", "rsync") if shutil.which(name, path=_path()) is None]
    if missing or not Path(PROVIDER).exists():
        raise RuntimeError(f"{missing or PROVIDER} not found; run `make test-deploy`, which installs what it needs")
    with ExitStack() as stack:
        # Not pytest's folder: the nodes' user has no access to that of root.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="galera-")))
        folder.chmod(0o755)
        nodes = [Node(folder / str(number), number, free_port(), free_port()) for number in range(1, NODES + 1)]
        for node in nodes:
            node.folder.mkdir()
            command = ["mariadb-install-db", "--no-defaults", f"--datadir={node.folder}/data", f"--user={OWNER}"]
            subprocess.run(
                [*command, "--skip-test-db", "--auth-root-authentication-method=normal"],
                check=True,
                capture_output=True,
            )
            stack.callback(node.end)
            node.start(nodes, first=node is nodes[0])
        for statement in ("CREATE USER haproxy@'%'", "CREATE USER bso@'%'", "GRANT ALL ON *.* TO bso@'%'"):
            nodes[0].ask(statement)
        address = f"127.0.0.1:{free_port()}"
        variables = {f"BSO_NODE_{number}": node.address for number, node in enumerate(nodes, start=1)}
        stack.enter_context(_haproxy(folder, [CONFIGURATION], BSO_DATABASE=address, **variables))
        yield Cluster(nodes, f"mysql+pymysql://bso@{address}/zeus?ssl_disabled=true")


@contextmanager
def balanced(folder: Path, *servers: Server) -> Iterator[str]:
    """Run haproxy before servers. Returns the address that clients use."""
    port = free_port()
    lines = [f"    server server{server.port} 127.0.0.1:{server.port}\n" for server in servers]
    configuration = folder / "servers.cfg"
    configuration.write_text(_SERVERS + "".join(lines))
    with _haproxy(folder, [configuration], BSO_SERVERS=f"127.0.0.1:{port}"):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _haproxy(folder: Path, files: Sequence[Path], **variables: str) -> Iterator[None]:
    options = [part for file in files for part in ("-f", str(file))]
    with (folder / "haproxy.log").open("a") as log:
        process = subprocess.Popen(
            ["haproxy", "-db", *options],
            env=os.environ | {"PATH": _path()} | variables,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin"
