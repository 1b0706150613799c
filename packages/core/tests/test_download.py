"""Downloads, against a server on this machine that misbehaves in every way servers do."""

import hashlib
import http.server
import tempfile
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from imgzoo.errors import WeightsError
from imgzoo.loading import places

BODY = bytes(range(256)) * 64


def whole_files():
    """Weight files by their ending."""
    state, found = {"a": torch.arange(2000.0)}, {}
    for kind, save in (("safetensors", save_file), ("pth", torch.save)):
        with tempfile.TemporaryDirectory() as folder:
            save(state, f"{folder}/w")
            found[kind] = Path(folder, "w").read_bytes()
    found["bin"] = b"\x80\x02}q\x00." * 40
    return found


WHOLE = whole_files()


class Server(http.server.BaseHTTPRequestHandler):
    """The path says how to behave; `hits` counts requests."""

    hits: dict[str, int] = {}

    def log_message(self, *args):
        pass

    def do_GET(self):
        kind = self.path.strip("/").split("/")[0]
        self.hits[kind] = self.hits.get(kind, 0) + 1
        getattr(self, f"do_{kind}")()

    def answer(self, body=BODY, code=200, length=None, **headers):
        self.send_response(code)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_good(self):
        self.answer()

    def do_short(self):
        self.answer(BODY[:-5], length=len(BODY))

    def do_long(self):
        self.answer(BODY + b"extra", length=len(BODY))

    def do_busy(self):
        if self.hits["busy"] < 3:
            self.answer(b"", 429, Retry_After="0")
        else:
            self.answer()

    def do_always_busy(self):
        self.answer(b"", 429, Retry_After="0")

    def do_endless(self):
        """A response without a length, cut short where the path says so."""
        self.send_response(200)
        self.end_headers()
        body = WHOLE[self.path.rpartition(".")[2]]
        self.wfile.write(body[:-5] if "/cut/" in self.path else body)

    def do_missing(self):
        self.answer(b"", 404)

    def do_login(self):
        self.answer(b"<html>Please sign in</html>" if self.path.endswith("w.pth") else b'{"error": "forbidden"}')

    def do_moved(self):
        self.answer(b"", 302, Location="/good/w.pth")

    def do_stall(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY[:100])
        self.wfile.flush()
        time.sleep(3)


@pytest.fixture
def url(monkeypatch, tmp_path):
    monkeypatch.setenv("IMGZOO_CACHE", str(tmp_path))
    monkeypatch.delenv("IMGZOO_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(places, "TIMEOUT", 0.5)
    monkeypatch.setattr(places.time, "sleep", lambda seconds: None)
    Server.hits = {}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_good_file_is_fetched_once(url):
    path = places.download(f"{url}/good/w.pth")
    assert path.read_bytes() == BODY
    assert places.download(f"{url}/good/w.pth") == path and Server.hits["good"] == 1


def test_redirects_are_followed(url):
    assert places.download(f"{url}/moved/w.pth").read_bytes() == BODY


def test_too_many_requests_are_waited_out(url):
    assert places.download(f"{url}/busy/w.pth").read_bytes() == BODY and Server.hits["busy"] == 3


@pytest.mark.parametrize("kind, tries", [("always_busy", 4), ("short", 4), ("stall", 4), ("missing", 1)])
def test_failures_end_in_one_sentence_and_leave_nothing(url, tmp_path, kind, tries):
    with pytest.raises(WeightsError, match=f"/{kind}/"):
        places.download(f"{url}/{kind}/w.pth")
    assert Server.hits[kind] == tries
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_body_longer_than_announced_is_cut_at_its_length(url):
    assert places.download(f"{url}/long/w.pth").read_bytes() == BODY


def test_hashes_are_checked(url, tmp_path):
    right = hashlib.sha256(BODY).hexdigest()
    assert places.download(f"{url}/good/a.pth", right).is_file()
    with pytest.raises(WeightsError, match="was expected"):
        places.download(f"{url}/good/b.pth", "0" * 64)
    assert places.download(f"{url}/good/w-{right[:8]}.pth").is_file()
    with pytest.raises(WeightsError, match="was expected"):
        places.download(f"{url}/good/w-{'0' * 8}.pth")


def test_a_damaged_cached_file_is_noticed(url):
    right = hashlib.sha256(BODY).hexdigest()
    path = places.download(f"{url}/good/w.pth", right)
    path.write_bytes(b"x" + BODY[1:])
    with pytest.raises(WeightsError, match="expected sha256"):
        places.download(f"{url}/good/w.pth", right)


def test_other_schemes_are_refused(url):
    with pytest.raises(WeightsError, match="no plugin fetches"):
        places.download("ftp://127.0.0.1/w.pth")


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_what_comes_without_a_length_has_to_be_whole(url, kind):
    assert places.download(f"{url}/endless/w.{kind}").read_bytes() == WHOLE[kind]
    with pytest.raises(WeightsError, match="came without a length and is no whole weight file"):
        places.download(f"{url}/endless/cut/w.{kind}")
    assert not places.place_of(f"{url}/endless/cut/w.{kind}").exists()
    with pytest.raises(WeightsError, match="came without a length"):
        places.download(f"{url}/endless/w.bin")  # an old pickle does not say where it ends
    digest = hashlib.sha256(WHOLE["bin"]).hexdigest()
    assert places.download(f"{url}/endless/w.bin", digest).read_bytes() == WHOLE["bin"]


@pytest.mark.parametrize("name", ["w.pth", "w.bin", "w.safetensors"])
def test_a_page_in_the_place_of_a_file_is_not_kept(url, name):
    with pytest.raises(WeightsError, match="is a page, and no weight file"):
        places.download(f"{url}/login/{name}")
    assert not places.place_of(f"{url}/login/{name}").exists()


def test_a_planted_file_is_not_believed(url):
    name = f"w-{hashlib.sha256(BODY).hexdigest()[:8]}.pth"
    planted = places.place_of(f"{url}/good/{name}")
    planted.parent.mkdir(parents=True)
    planted.write_bytes(b"planted")
    with pytest.raises(WeightsError, match="does not have the expected sha256"):
        places.download(f"{url}/good/{name}")
    planted.unlink()
    assert places.download(f"{url}/good/{name}").read_bytes() == BODY
    assert places.download(f"{url}/good/{name}") == planted
