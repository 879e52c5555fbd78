"""Files that only point to other files or servers are refused: FFmpeg would follow them wherever they lead."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from moss_tok.audio import AudioError, AudioLimits, decode

CORPUS = Path(__file__).parents[3] / "demo" / "corpus" / "folder"

SCRIPTS = {
    "HLS": ("m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n"),
    "HLS with a key": (
        "m3u8",
        '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n',
    ),
    "DASH": (
        "mpd",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
        '<Period><AdaptationSet mimeType="audio/mp4"><Representation id="a" bandwidth="1">'
        "<BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>",
    ),
    "concat": ("ffconcat", "ffconcat version 1.0\nfile '{target}'\n"),
    "SDP": ("sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {port} RTP/AVP 0\n"),
    "a list of URLs": ("m3u", "{target}\n"),
    "PLS": ("pls", "[playlist]\nFile1={target}\nNumberOfEntries=1\nVersion=2\n"),
    "SMIL": ("smil", '<smil><body><audio src="{target}"/></body></smil>'),
}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    shutil.copy(CORPUS / "librivox" / "0870.wav", tmp_path / "target.wav")
    return tmp_path / "target.wav"


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A port that must stay silent."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


def script(kind: str, target: str, port: int) -> tuple[str, bytes]:
    ending, text = SCRIPTS[kind]
    return f"clip.{ending}", text.format(target=target, port=port).encode()


@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b"\n \n"], ids=["plain", "with a BOM", "after white space"])
@pytest.mark.parametrize("where", ["file", "url", "server"])
@pytest.mark.parametrize("kind", SCRIPTS)
def test_a_script_is_no_audio_whatever_it_is_called(
    kind: str, where: str, before: bytes, target: Path, server: socket.socket
) -> None:
    port = server.getsockname()[1]
    place = {"file": str(target), "url": target.as_uri(), "server": f"http://127.0.0.1:{port}/a.wav"}[where]
    name, data = script(kind, place, port)
    for called in (name, "clip.wav", None):
        with pytest.raises(AudioError) as caught:
            decode(before + data, AudioLimits(), name=called)
        assert caught.value.reason == "not_audio"
    with pytest.raises(BlockingIOError):
        server.accept()


@pytest.mark.parametrize(
    ("kind", "options"),
    [("concat", {"safe": "0"}), ("HLS", {"allowed_extensions": "ALL", "extension_picky": "0"})],
)
def test_ffmpeg_itself_would_follow_them(kind: str, options: dict[str, str], target: Path, tmp_path: Path) -> None:
    """Else the tests above would prove nothing."""
    name, data = script(kind, str(target), 0)
    (tmp_path / name).write_bytes(data)
    with av.open(str(tmp_path / name), "r", format=kind.lower(), options=options) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) > 10_000
