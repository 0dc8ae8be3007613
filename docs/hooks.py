"""What the site shows beyond the files of docs/: pages of the repository, and references made from the code.

MkDocs calls the functions `on_...`. Pages that belong elsewhere, such as cluster/README.md, stay there and are shown here.
Links in all pages are those of the repository, so they work on its host, too; they are made the site's here.
"""

from __future__ import annotations

import html
import posixpath
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
from generated import commands_page, settings_page  # beside this file, which MkDocs loads alone

REPOSITORY = Path(__file__).parents[1]
HOME = "index.md"
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "cluster/README.md",
    "examples/plugin/README.md",
)
RESULTS = "experiments/results"
GENERATED = {"reference/settings.md": settings_page, "reference/commands.md": commands_page}

_LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*?\bsrc=["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|<link\b(?=[^>]*\brel=["']?(?:stylesheet|icon|preload|modulepreload|preconnect|dns-prefetch|manifest))"""
    r"""[^>]*?\bhref=["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|(?:url\(|@import\s+)["']?((?:https?:)?//[^"')\s]+)"""
    r"""|(class=["']?mermaid)"""  # the theme fetches its renderer
)
_LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
_FENCE = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List all measurements in the menu, by their titles."""
    results = [path.relative_to(REPOSITORY).as_posix() for path in sorted((REPOSITORY / RESULTS).glob("*.md"))]
    assert config.nav is not None
    config.nav.insert(-1, {"Measurements": results})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the repository's pages, the files that pages link to, and the generated references."""
    results = sorted(path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / RESULTS).glob("*.md"))
    pages = {_place(path): path for path in (*PAGES, *results)}
    for place, path in pages.items():
        files.append(File.generated(config, place, abs_src_path=str(REPOSITORY / path)))
    for place, make in GENERATED.items():
        files.append(File.generated(config, place, content=make()))
    for path in _linked(REPOSITORY / name for name in (*_own_pages(), *pages.values())):
        if files.get_file_from_path(_place(path)) is None:
            files.append(File.generated(config, _place(path), abs_src_path=str(REPOSITORY / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files of the repository into links to their places in the site."""
    place = page.file.src_uri
    if place in GENERATED:
        return markdown
    source = _source(place)

    def replaced(found: re.Match[str]) -> str:
        target = _target(source, found[2])
        if target is None:
            return found[0]
        return found[1] + posixpath.relpath(_place(target), posixpath.dirname(place) or ".") + found[3]

    parts = _FENCE.split(markdown)
    return "".join(part if part.startswith("```") else _LINK.sub(replaced, part) for part in parts)


def on_post_build(config: MkDocsConfig) -> None:
    """Make sure that no page loads anything from the network when it is read.

    Raises:
        PluginError: one does.
    """
    site = Path(config.site_dir)
    for path in sorted((*site.rglob("*.html"), *site.rglob("*.css"))):
        found = loaded_from_elsewhere(path.read_text(encoding="utf-8"))
        if found:
            raise PluginError(f"{path.relative_to(site)} loads from the network: {', '.join(found[:3])}")


def loaded_from_elsewhere(text: str) -> list[str]:
    """Return what a page or a style sheet loads from other hosts; links, which are followed by hand, do not count."""
    return [html.unescape("".join(groups)) for groups in _LOADED.findall(text)]


def _own_pages() -> list[str]:
    return [path.relative_to(REPOSITORY).as_posix() for path in sorted((REPOSITORY / "docs").rglob("*.md"))]


def _linked(pages: Iterable[Path]) -> set[str]:
    """Return the files outside docs/ that pages link to, relative to the repository."""
    found = set()
    for page in pages:
        source = page.relative_to(REPOSITORY).as_posix()
        for part in _FENCE.split(page.read_text(encoding="utf-8"))[::2]:
            targets = (_target(source, link[2]) for link in _LINK.finditer(part))
            found |= {target for target in targets if target is not None and not target.startswith("docs/")}
    return found


def _target(source: str, link: str) -> str | None:
    """Return the file of the repository that a link leads to; None: it leads out of it, or to a page made here."""
    if "://" in link or link.startswith(("mailto:", "/")):
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    if (REPOSITORY / path).is_dir():
        path = f"{path}/README.md"
    return path if not path.startswith("..") and (REPOSITORY / path).is_file() else None


def _place(path: str) -> str:
    """Return where a file of the repository is in the site."""
    return HOME if path == "README.md" else path.removeprefix("docs/")


def _source(place: str) -> str:
    """Return which file of the repository a page is."""
    if place == HOME:
        return "README.md"
    return f"docs/{place}" if (REPOSITORY / "docs" / place).is_file() else place
