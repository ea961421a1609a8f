"""Pages from templates: what a page says stands in `templates/`, what it is filled with comes from the caller."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


def render(template: str, **values: Any) -> str:
    """A template of the package, filled; what goes into HTML is escaped, a value that is missing is an error."""
    environment = Environment(
        loader=PackageLoader("preimage"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**values)
