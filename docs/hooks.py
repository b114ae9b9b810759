"""MkDocs hook: tutorials are Python scripts, and each becomes a page.

The module docstring and blocks of comments that begin with ``# %%`` are prose, everything else is code.
"""

import re
from typing import Any

from mkdocs.structure.files import File, Files


def page(script: str) -> str:
    """Markdown page of a tutorial script."""
    _, prose, code = script.split('"""', 2)
    parts = [prose.strip()]
    for cell in re.split(r"^# %%\n", code, flags=re.MULTILINE):
        comment = re.match(r"(?:#.*\n)*", cell)
        text = comment.group(0) if comment and cell is not code else ""
        parts.append(re.sub(r"^# ?", "", text, flags=re.MULTILINE).strip())
        body = cell[len(text) :].strip()
        if body:
            parts.append(f"```python\n{body}\n```")
    return "\n\n".join(part for part in parts if part) + "\n"


def on_files(files: Files, config: Any) -> Files:
    """Add a page for every tutorial script."""
    for file in list(files):
        if file.src_uri.startswith("tutorials/") and file.src_uri.endswith(".py"):
            text = page(file.content_string)
            files.append(File.generated(config, file.src_uri.replace(".py", ".md"), content=text))
    return files
