"""Texts of anybody's, shown as what they are."""

import json
import re

UNSHOWABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What would steer a terminal, turn the reading direction, or not be encodable."""


def visible(text: str) -> str:
    """The text on one line, with what cannot be shown as it is as JSON writes it."""
    return UNSHOWABLE.sub(lambda found: json.dumps(found[0])[1:-1], text)
