"""The kinds of value that options take.

Rule 1: a number is written in digits, and nothing else is rounded to one.
"""

import re
from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter, Token
from cyclopts.validators import Number


def _read_whole(_: object, tokens: Sequence[Token]) -> int:
    if not re.fullmatch("-?[0-9]{1,18}", tokens[0].value):
        raise ValueError
    return int(tokens[0].value)


Count = Annotated[int, Parameter(converter=_read_whole, validator=Number(gte=0))]
Port = Annotated[int, Parameter(converter=_read_whole, validator=Number(gte=0, lte=65535))]
