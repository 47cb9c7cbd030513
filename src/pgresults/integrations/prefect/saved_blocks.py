"""Saved blocks of Prefect's as places to import results from."""

from prefect.blocks.core import Block
from prefect.filesystems import LocalFileSystem, RemoteFileSystem

from pgresults.errors import InvalidArgument
from pgresults.integrations.prefect.sources import DirectorySource, Source, url_source


def block_source(name: str) -> Source:
    """The files that a saved block keeps.

    Parameters:
        name: the block's type and name, such as ``remote-file-system/results``.

    Raises: InvalidArgument when there is no such block, or none whose files can be listed; ConfigurationError.
    """
    try:
        block = Block.load(name, _sync=True)
    except ValueError as error:
        raise InvalidArgument(f"Prefect has no block {name!r}: {error}", argument="path", value=name) from error
    if isinstance(block, LocalFileSystem):
        return DirectorySource(block.basepath or ".")
    if isinstance(block, RemoteFileSystem):
        return url_source(block.basepath, **(block.settings or {}))
    raise InvalidArgument(
        f"the files of a {block.get_block_type_slug()} cannot be listed here: give its place as a URL, such as "
        "s3://bucket/folder",
        argument="path",
        value=name,
    )
