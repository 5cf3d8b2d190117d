"""Lets pages link to examples/, which lies beside docs/: the site gets a copy."""

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

EXAMPLES = Path(__file__).parents[1] / "examples"


def on_files(files, config):
    """Add the examples to the files of the site."""
    from mkdocs.structure.files import File

    for path in sorted(EXAMPLES.glob("*.*")):
        name = f"examples/{path.name}"
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turn links to examples outside of docs/ into links to their copies."""
    here = dirname(page.file.src_uri)

    def inside(link: re.Match) -> str:
        target = normpath(join("docs", here, link[1]))
        return f"]({relpath(target, here or '.')})"

    return re.sub(r"\]\(((?:\.\./)+examples/[^)#]+)\)", inside, markdown)
