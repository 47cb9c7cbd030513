"""What of a database goes along into another process: no secret that this one can have from its own settings."""

from contextlib import suppress
from typing import Final

from sqlalchemy import URL

from pgresults.database.passwords import found_password
from pgresults.database.targets import url_of, without_passwords
from pgresults.errors import ConfigurationError
from pgresults.settings import ResultSettings, Settings, TaskSettings, WebSettings, current_settings, layers

_SECRET: Final = ("database_url", "read_url", "signing_key", "older_signing_keys", "results", "tasks", "web")
"""The settings that are or may hold secrets; results and tasks name storages, by URL perhaps."""


def to_carry(url: URL | None, setting: str = "database_url") -> URL | None:
    """The URL without its passwords, if another process gets them from where this one does.

    That is what the settings' own URL says, or libpq's environment, service file and password file.

    Parameters:
        url: where to connect.
        setting: which of the settings may name the same.
    """
    if url is None:
        return None
    if url == _own_url(setting):
        return without_passwords(url)
    given = url.query.get("password", url.password)
    if given is None or found_password(url) != str(given):
        return url
    return url._replace(password=None).difference_update_query(["password"])


def with_passwords(url: URL | None, setting: str = "database_url") -> URL | None:
    """The URL that was carried, with the passwords of this process's settings where these name the same database."""
    own = None if url is None else _own_url(setting)
    return own if own is not None and url == without_passwords(own) else url


def without_secrets(settings: Settings) -> Settings:
    """Settings that may be carried."""
    nothing = {"database_url": None, "read_url": None, "signing_key": None, "older_signing_keys": ()}
    return settings.model_copy(
        update={**nothing, "results": ResultSettings(), "tasks": TaskSettings(), "web": WebSettings()}
    )


def with_own_secrets(settings: Settings, signed: bool) -> Settings:
    """Settings that were carried, with the secrets of this process.

    Parameters:
        settings: what was carried.
        signed: whether payloads are signed where they come from.

    Raises: ConfigurationError when they are, and this process has no key: it would take and write unsigned ones.
    """
    own = current_settings()
    if signed and own.signing_key is None:
        raise ConfigurationError(
            "the storage comes from a process that signs payloads, and a signing key is never sent along: set "
            "PGRESULTS_SIGNING_KEY for this process, too",
            setting="signing_key",
        )
    return settings.model_copy(update={name: getattr(own, name) for name in _SECRET})


def _own_url(setting: str) -> URL | None:
    """The URL that the settings of processes like this one name; what is set in code, no other one has."""
    temporary, *others = layers()
    given = None if setting in temporary.values else getattr(current_settings(), setting)
    if given is None or not any(setting in layer.values for layer in others):
        return None
    with suppress(ConfigurationError):
        return url_of(given.get_secret_value())
    return None
