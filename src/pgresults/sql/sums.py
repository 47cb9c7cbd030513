"""Sums of what anybody who may write can say."""

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, cast, func, literal_column


def capped(total: ColumnElement[Any]) -> ColumnElement[Any]:
    """A sum as a ``bigint``: rows may say any size, and the sum of hostile ones must not end the query for all."""
    most: ColumnElement[Any] = literal_column("9223372036854775807")
    return cast(func.least(func.coalesce(total, literal_column("0")), most), BigInteger)
