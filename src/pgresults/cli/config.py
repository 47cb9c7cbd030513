"""``pgresults config``: the settings."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from pydantic import SecretStr

from pgresults import settings
from pgresults.cli.output import print_json
from pgresults.cli.session import masked, session
from pgresults.cli.tables import print_rows
from pgresults.database.targets import url_of
from pgresults.errors import ConfigurationError

app = typer.Typer(no_args_is_help=True, help="The settings.")


@app.command()
def show(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print every setting, its value, where that comes from, and the variable that sets it; no secrets."""
    used = session(context)
    sources = [settings.Layer("command line", used.overrides), *settings.layers()]
    rows = [_row(name, settings.value_of(used.settings, name), sources) for name in settings.names()]
    if as_json:
        print_json(rows)
    else:
        print_rows(list(rows[0]), [tuple(row.values()) for row in rows], ("variable",), whole=("setting", "variable"))


def _row(name: str, value: Any, sources: list[settings.Layer]) -> Mapping[str, object]:
    source = next((layer.name for layer in sources if name in layer.values), "default")
    return {"setting": name, "value": _shown(value), "source": source, "variable": settings.variable(name)}


def _shown(value: Any) -> object:
    if isinstance(value, tuple):
        return ", ".join(str(_shown(item)) for item in value)
    if not isinstance(value, SecretStr | str):
        return value if value is None or isinstance(value, bool | int | float) else str(value)
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if "://" in text:
        try:
            return masked(url_of(text))
        except ConfigurationError:
            return "**********"
    return str(value)
