"""What mkdocs calls: pages that the code writes join the site, and nothing on it comes from a network."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
from imgzoo_docs import fragments, pages
from imgzoo_docs.network import fetched


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill `<!-- site: NAME -->` with what the code says of NAME; drop the marks that only the tests read."""
    filled = re.sub(r"^<!-- site: ([a-z-]+) -->$", lambda match: fragments()[match[1]](), markdown, flags=re.MULTILINE)
    return re.sub(r"^<!-- (?:needs|generated|end)\b.*-->\n", "", filled, flags=re.MULTILINE)


def on_post_build(config: MkDocsConfig) -> None:
    for path in sorted(Path(config.site_dir).rglob("*")):
        if path.suffix in (".html", ".css"):
            foreign = fetched(path.read_text(encoding="utf-8"))
            if foreign:
                raise PluginError(f"{path} would fetch from a network: {foreign[:120]}")
