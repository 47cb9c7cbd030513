"""A place that a user names, as a source of files."""

from importlib import import_module

from pgresults.errors import ConfigurationError
from pgresults.integrations.prefect.sources import DirectorySource, Source, url_source

_BLOCK = "block:"


def source_of(place: str) -> Source:
    """The files of a place.

    Parameters:
        place: a directory, a file system's URL such as ``s3://bucket/folder``, or ``block:`` with the type and name of
            a block that Prefect has saved.

    Raises: InvalidArgument when there is no such directory or block; ConfigurationError when the place cannot be
        opened, which names what is missing.
    """
    if place.startswith(_BLOCK):
        return _block_source(place.removeprefix(_BLOCK))
    return url_source(place) if "://" in place else DirectorySource(place)


def _block_source(name: str) -> Source:
    try:
        saved_blocks = import_module("pgresults.integrations.prefect.saved_blocks")
    except ImportError as error:
        raise ConfigurationError(
            "a block can only be loaded with Prefect: pip install 'pgresults[prefect]'", setting="path"
        ) from error
    source: Source = saved_blocks.block_source(name)
    return source
