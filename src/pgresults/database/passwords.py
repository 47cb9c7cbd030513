"""The password that libpq finds by itself, where a URL has none."""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from psycopg.pq import Conninfo
from sqlalchemy import URL

_NAMES: Final = {"host": "host", "port": "port", "database": "dbname", "username": "user"}
_LOCAL: Final = "localhost"
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def found_password(url: URL) -> str | None:
    """The password that libpq takes from a service, the environment or a password file; None: it finds none.

    Parameters:
        url: what else it is told; the passwords in it are left out.
    """
    given = {name: str(value) for field, name in _NAMES.items() if (value := getattr(url, field)) not in (None, "")}
    if not all(isinstance(value, str) for value in url.query.values()):
        return None  # several hosts, as SQLAlchemy writes them
    given |= {name: str(value) for name, value in url.query.items() if name != "password"}
    defaults = {option.keyword.decode(): option.val for option in Conninfo.get_defaults()}
    known = {name: value.decode() for name, value in defaults.items() if value is not None}
    known |= dict(_service(given["service"])) if "service" in given else {}
    if "password" in known:
        return known["password"]
    return _in_file(known | given)


def _service(name: str) -> Iterator[tuple[str, str]]:
    """What a service file says of a service; the user's own comes first."""
    files = [Path(os.environ.get("PGSERVICEFILE") or Path.home() / ".pg_service.conf")]
    if "PGSYSCONFDIR" in os.environ:
        files.append(Path(os.environ["PGSYSCONFDIR"], "pg_service.conf"))
    for file in files:
        lines = [line.strip() for line in _lines(file)]
        if f"[{name}]" in lines:
            for line in lines[lines.index(f"[{name}]") + 1 :]:
                if line.startswith("["):
                    break
                option, is_said, value = line.partition("=")
                if is_said and not line.startswith("#"):
                    yield option.strip(), value.strip()
            return


def _in_file(known: Mapping[str, str]) -> str | None:
    """The first password in the file that fits every host; None where there is none, or libpq would not read it."""
    file = Path(known.get("passfile") or Path.home() / ".pgpass")
    with suppress(OSError):
        if os.name == "posix" and file.stat().st_mode & _OTHERS:
            return None
    entries = [_fields(line) for line in _lines(file) if not line.startswith("#")]
    hosts = (known.get("host") or known.get("hostaddr") or _LOCAL).split(",")
    ports = known.get("port", "5432").split(",")
    database = known.get("dbname") or known.get("user", "")
    found = set()
    for number, host in enumerate(hosts):
        place = (host or _LOCAL, ports[number % len(ports)], database, known.get("user", ""))
        fitting = (entry[4] for entry in entries if len(entry) > 4 and _fits(entry, place))
        found.add(next(fitting, None))
    return found.pop() if len(found) == 1 else None


def _fits(entry: list[str], place: tuple[str, ...]) -> bool:
    return all(said in ("*", is_) for said, is_ in zip(entry, place, strict=False))


def _fields(line: str) -> list[str]:
    """The fields of a line: separated by colons, of which one after a backslash is no separator."""
    fields, characters = [""], iter(line.rstrip("\r\n"))
    for character in characters:
        if character == ":":
            fields.append("")
        else:
            fields[-1] += next(characters, "") if character == "\\" else character
    return fields


def _lines(file: Path) -> list[str]:
    with suppress(OSError, UnicodeDecodeError):
        return file.read_text().splitlines()
    return []
