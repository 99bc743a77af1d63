"""The server's address and the credentials that the client sends."""

from base64 import b64encode
from pathlib import Path

import pytest

from lightning_bso import BatchSizeOptimizer, BsoClient
from tests.client.jobs import job
from tests.client.scripted import ScriptedServer


def authorization(scripted: ScriptedServer) -> str | None:
    """Return the Authorization header of the last request."""
    return scripted.requests[-1].headers.get("Authorization")


@pytest.mark.parametrize(
    "address",
    [
        *("", "localhost", "localhost:8000", "//localhost:8000", "ftp://localhost", "file:///etc/hosts"),
        *("http://", "http://:8000", "https:///jobs", "http://[::1"),
    ],
)
def test_an_address_that_is_none_is_a_value_error(address: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        BsoClient(address)


@pytest.mark.parametrize("port", ["port", "99999", "-1"])
def test_an_address_with_an_impossible_port_is_a_value_error(port: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        BsoClient(f"http://localhost:{port}")


@pytest.mark.parametrize("address", ["bso:s3cret@localhost:8000", "ftp://bso:s3cret@localhost"])
def test_a_refused_address_is_not_repeated_with_its_credentials(address: str) -> None:
    with pytest.raises(ValueError, match="server_url") as error:
        BsoClient(address)
    assert "s3cret" not in str(error.value)


def test_an_address_from_the_environment_is_used(scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEUS_BSO_SERVER_URL", "not an address")
    with pytest.raises(ValueError, match="not an address"):
        BatchSizeOptimizer(job=job())
    monkeypatch.setenv("ZEUS_BSO_SERVER_URL", "")
    with pytest.raises(ValueError, match="ZEUS_BSO_SERVER_URL"):
        BatchSizeOptimizer(job=job())


@pytest.mark.parametrize("ending", ["", "/", "//"])
def test_a_path_in_the_address_is_kept(scripted: ScriptedServer, ending: str) -> None:
    BsoClient(f"{scripted.url}/tools/bso{ending}").list_jobs()
    assert scripted.requests[-1].path.partition("?")[0] == "/tools/bso/jobs"


def test_without_a_token_no_credentials_are_sent(scripted: ScriptedServer) -> None:
    BsoClient(scripted.url).list_jobs()
    assert authorization(scripted) is None


def test_a_token_is_sent_as_bearer(scripted: ScriptedServer) -> None:
    BsoClient(scripted.url, token="s3cret").list_jobs()
    assert authorization(scripted) == "Bearer s3cret"


def test_a_token_is_sent_although_a_netrc_has_other_credentials(
    scripted: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password other\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    BsoClient(scripted.url).list_jobs()
    assert authorization(scripted) == f"Basic {b64encode(b'someone:other').decode()}"
    BsoClient(scripted.url, token="s3cret").list_jobs()
    assert authorization(scripted) == "Bearer s3cret"


def test_credentials_in_the_address_are_sent_as_basic(scripted: ScriptedServer) -> None:
    BsoClient(f"http://bso:s3cret@127.0.0.1:{scripted.port}").list_jobs()
    assert authorization(scripted) == f"Basic {b64encode(b'bso:s3cret').decode()}"


def test_a_token_from_the_environment_is_sent(scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEUS_BSO_TOKEN", "from-the-environment")
    # The answer is not one of the protocol, so the run uses its fallback. The test is about the request.
    fallback = BatchSizeOptimizer(server_url=scripted.url, job=job(), fallback_to_default=True)
    assert fallback.get_batch_size() == 16
    assert authorization(scripted) == "Bearer from-the-environment"
