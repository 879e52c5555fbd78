"""The server of pages: what it gives, and what it refuses."""

from __future__ import annotations

import http.client
import io
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import soundfile

from pipeline.cli.main import main
from pipeline.dataset.layout import Layout
from pipeline.serve.server import PageServer
from pipeline.serve.watch import Watch
from tests.pipeline.conftest import Tokenized
from tests.support import rows


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


Ask = Callable[..., Answer]


@pytest.fixture(scope="module")
def server(tokenized: Tokenized) -> Iterator[PageServer]:
    with PageServer(Watch(str(tokenized.output), every=1e-9), "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def ask(server: PageServer) -> Ask:
    def asked(path: str, method: str = "GET", host: str = "") -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
        connection.endheaders()
        response = connection.getresponse()
        answer = Answer(response.status, dict(response.getheaders()), response.read())
        connection.close()
        return answer

    return asked


def test_the_page_shows_progress_rejects_and_clips(ask: Ask, tokenized: Tokenized):
    page = ask("/").text
    assert "5 of 5 (5 committed)" in page
    row, reject = rows(tokenized.output)[0], rows(tokenized.output, "rejects")[0]
    assert f'href="clip?id={row["id"]}"' in page
    assert reject["id"] in page
    assert "Throughput" in page
    assert ask("/now").text.strip() in page


@pytest.mark.slow
def test_a_row_is_heard_whole(ask: Ask, tokenized: Tokenized):
    row = rows(tokenized.output)[0]
    sound = ask(f"/sound?id={row['id']}")
    assert sound.headers["Content-Type"] == "audio/flac"
    info = soundfile.info(io.BytesIO(sound.body))
    assert (info.frames, info.samplerate) == (row["num_samples"], row["sample_rate"])
    page = ask(f"/clip?id={row['id']}").text
    assert row["id"] in page
    assert page.count("<audio") == 1 + 6  # the whole; the original, and five numbers of layers


@pytest.mark.slow
def test_the_whole_report_is_there(ask: Ask):
    page = ask("/report").text
    assert 'id="codes"' in page
    assert page == ask("/report").text


@pytest.mark.parametrize(
    "path",
    [
        *("/nothing", "/../run.json", "//etc/passwd", "/%2e%2e/run.json", "/_moss_tok/run.json", "/data", "/now/"),
        *(
            "/clip",
            "/clip?id=0123456789abcdef-00000000",
            "/sound?id=../../run.json",
            "/clip?id=%00%ff",
            "/sound?id=<x>",
        ),
    ],
)
def test_what_is_not_there_is_not_found(ask: Ask, path: str):
    answer = ask(path)
    assert answer.status == 404
    assert answer.headers["Content-Type"].startswith("text/plain")


def test_a_reject_has_no_sound_and_says_why(ask: Ask, tokenized: Tokenized):
    reject = rows(tokenized.output, "rejects")[0]
    answer = ask(f"/clip?id={reject['id']}")
    assert answer.status == 404
    assert reject["message"] in answer.text


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:80", "[::1", "a b", "localhost@evil.example", ":"]
)
@pytest.mark.parametrize("path", ["/", "/now", "/sound?id=x", "/nothing"])
def test_another_name_for_this_machine_is_refused(ask: Ask, host: str, path: str):
    """DNS rebinding: a site has its own name point here, and its pages ask as if of their own server."""
    answer = ask(path, host=host)
    assert answer.status == 421
    assert b"codes" not in answer.body


@pytest.mark.parametrize("host", ["localhost:1", "LOCALHOST", "127.0.0.1", "[::1]:8000", "10.1.2.3:8000"])
def test_addresses_and_localhost_are_served(ask: Ask, host: str):
    assert ask("/now.js", host=host).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT"])
def test_nothing_but_reading_is_possible(ask: Ask, method: str):
    assert ask("/", method).status == 501
    assert ask("/", "HEAD").body == b""


def test_no_page_may_be_framed_sniffed_or_kept(ask: Ask):
    for path in ("/", "/now", "/now.js", "/report", "/nothing"):
        headers = ask(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Content-Security-Policy"] == "frame-ancestors 'none'"
        assert headers["Cache-Control"] == "no-store"


def test_what_cannot_be_read_is_said_and_the_server_goes_on(tokenized: Tokenized, tmp_path: Path):
    output = Path(shutil.copytree(tokenized.output, tmp_path / "codes"))
    watch = Watch(str(output), every=1e-9)
    path = next(Path(Layout(str(output)).manifests).iterdir())
    manifest = path.read_bytes()
    path.write_bytes(b"{}")
    with pytest.raises(ValueError, match="moss-tok repair makes it again"):
        watch.look()
    path.write_bytes(manifest)
    assert watch.look().status.complete


def test_the_latest_come_first_and_are_few(tokenized: Tokenized, tmp_path: Path):
    output = Path(shutil.copytree(tokenized.output, tmp_path / "codes"))
    hidden = {path: path.read_bytes() for path in Path(Layout(str(output)).manifests).iterdir()}
    for path in hidden:
        path.unlink()
    watch = Watch(str(output), every=1e-9)
    assert watch.look().clips == watch.look().rejects == []
    seen = 0
    for number, (path, data) in enumerate(sorted(hidden.items()), 1):
        path.write_bytes(data)
        look = watch.look()
        assert look.status.totals.shards == look.history.totals.shards == number
        added = {clip.clip_id.rpartition("-")[0] for clip in look.clips[: len(look.clips) - seen]}
        assert added <= {path.stem}
        seen = len(look.clips)
    assert seen == len(rows(output))
    assert [example.clip_id for example in watch.look().rejects]


def test_the_command_refuses_what_cannot_be_served(
    tokenized: Tokenized, tmp_path: Path, server: PageServer, capsys: pytest.CaptureFixture[str]
):
    assert main(["serve", str(tmp_path)]) == 2
    assert "no output of moss-tok" in capsys.readouterr().err
    assert main(["serve", str(tokenized.output), "--port", str(server.server_port)]) == 2
    assert "--port 0 takes a free one" in capsys.readouterr().err
    assert main(["serve", str(tokenized.output), "--port", "65536"]) == 2
    assert main(["serve", str(tokenized.output), "--every", "0"]) == 2
