"""A hook of mkdocs.yml: pages of the repository that are not in docs/ become pages of the site, where they are.

So no text is written twice. Pages link to them as a reader of the repository needs it (`../bench/trust.md`); on the
site, whose root is docs/, one step up is one too many.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "bench/*.md", "bench/*.svg")


def on_files(files: Files, config: Any) -> Files:
    """Add PAGES."""
    for path in (path for pattern in PAGES for path in sorted(ROOT.glob(pattern))):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links out of docs/ as links within the site."""
    if page.file.generated_by is not None or "/" in page.file.src_uri:
        return markdown
    return re.sub(r"\]\(\.\./", "](", markdown)
