"""The adapters of our own statements, whatever an application has registered with psycopg for itself."""

import json
from datetime import UTC, datetime, timedelta
from struct import Struct

from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Dumper, Loader
from psycopg.postgres import register_default_adapters, types
from psycopg.pq import Format
from psycopg.types.array import ListBinaryDumper, register_all_arrays
from psycopg.types.json import set_json_dumps, set_json_loads

from pgresults.operations.arrays import BinaryArray
from pgresults.sql.times import FIRST, LAST

_MICROSECONDS = Struct("!q")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class MomentLoader(Loader):
    """Gives times in UTC, whatever the session's zone; one that Python has not, and no write gives, as the nearest."""

    format = Format.BINARY

    def load(self, data: Buffer) -> datetime:
        """The time, or `FIRST` or `LAST`."""
        (since,) = _MICROSECONDS.unpack(data)
        try:
            return _EPOCH + timedelta(microseconds=since)
        except OverflowError:
            return LAST if since > 0 else FIRST


class _BinaryArrayDumper(Dumper):
    """Sends what is an array of Postgres' already; its type is the one that the statement asks for."""

    format = Format.BINARY
    oid = 0

    def dump(self, obj: BinaryArray) -> Buffer:
        return obj.data


_ADAPTERS = AdaptersMap(types=types)
register_default_adapters(_ADAPTERS)
register_all_arrays(_ADAPTERS)
# Set for everybody they would be an attribute of psycopg's own classes: these are subclasses.
set_json_loads(json.loads, _ADAPTERS)
set_json_dumps(json.dumps, _ADAPTERS)
# As text an array of bytes is quoted in a way that the session's settings change.
_ADAPTERS.register_dumper(list, ListBinaryDumper)
_ADAPTERS.register_loader("timestamptz", MomentLoader)
_ADAPTERS.register_dumper(BinaryArray, _BinaryArrayDumper)


def own_adapters() -> AdaptersMap:
    """A new set of adapters, as psycopg's are before anybody changes them."""
    return AdaptersMap(_ADAPTERS)
