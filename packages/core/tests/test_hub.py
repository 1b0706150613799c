"""The hub, played by a server on this machine: a repository comes, a missing one is told in one sentence."""

import hashlib
import http.server
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

CODE = """
import sys; sys.path.insert(0, sys.argv[1])
import imgzoo, torch
from tiny_models import plugin
imgzoo.register(plugin(), "tinyplug")
try:
    model = imgzoo.create_model(sys.argv[2], pretrained=True)
    print("created", model.num_classes, model.class_names[0])
except imgzoo.errors.ImgzooError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def hub(tmp_path):
    """A hub with one repository, acme/tiny, whose model has four classes."""
    from tiny_models import plugin

    import imgzoo

    imgzoo.reload()
    imgzoo.register(plugin(), "tinyplug")
    model = imgzoo.create_model("tiny", num_classes=4)
    folder = imgzoo.save_model(model, tmp_path / "saved", class_names=["ant", "bee", "cat", "dog"])
    imgzoo.reload()
    files = {f"/acme/tiny/resolve/main/{p.name}": p.read_bytes() for p in folder.iterdir()}

    class Hub(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def answer(self, body):
            data = files.get(self.path)
            self.send_response(200 if data is not None else 404)
            if data is None:
                self.send_header("X-Error-Code", "EntryNotFound" if "acme/tiny" in self.path else "RepoNotFound")
            data = data or b""
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def do_HEAD(self):
            self.answer(False)

        def do_GET(self):
            self.answer(True)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def create(hub, name, tmp_path, **environ):
    env = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1", **environ}
    for key in ("HF_HUB_OFFLINE", "IMGZOO_OFFLINE"):
        if key not in environ:
            env.pop(key, None)
    done = subprocess.run([sys.executable, "-c", CODE, str(Path(__file__).parent), name], env=env,
                          capture_output=True, text=True, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_a_repository_comes_and_stays(hub, tmp_path):
    assert create(hub, "hf-hub:acme/tiny", tmp_path) == "created 4 ant"
    again = create("http://127.0.0.1:9", "hf-hub:acme/tiny", tmp_path, IMGZOO_OFFLINE="1")
    assert again == "created 4 ant", "the cache needs no network"


def test_what_is_not_there_is_one_sentence(hub, tmp_path):
    assert create(hub, "hf-hub:acme/none", tmp_path).startswith("WeightsError")
    assert create(hub, "hf-hub:acme/tiny", tmp_path, IMGZOO_OFFLINE="1").startswith("OfflineError")


@pytest.mark.parametrize("proxy", ["", "http://127.0.0.1:9"])
def test_a_hub_whose_host_has_no_address(tmp_path, monkeypatch, proxy):
    """The library asks for half a minute. A proxy may know the host, so with one it is asked."""
    import huggingface_hub
    from huggingface_hub import constants, errors

    from imgzoo.errors import WeightsError
    from imgzoo.loading import places

    asked = []

    def look_up(host, *rest):
        asked.append(host)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    def get(repo, filename, local_files_only, **options):
        if not local_files_only:
            raise OSError("the proxy answered")
        raise errors.LocalEntryNotFoundError("not here")

    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    if proxy:
        monkeypatch.setenv("https_proxy", proxy)
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.example")
    monkeypatch.setattr(places.socket, "getaddrinfo", look_up)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", get)
    words = "the proxy answered" if proxy else "no address of hub.example is known here; is there a network?"
    with pytest.raises(WeightsError, match=re.escape(words)):
        places.hub_file("acme/tiny", "config.json")
    assert asked == ([] if proxy else ["hub.example"] * 2)
