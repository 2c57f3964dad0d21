"""``spec.convert``: whether a policy partitions a table that is not partitioned yet, and how."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from .types import Identifier, Model


class ConvertMode(StrEnum):
    """What becomes of a table that is not partitioned, or that a policy has partitioned."""

    NEVER = "Never"
    ATTACH = "Attach"
    UNDO = "Undo"


class Split(StrEnum):
    """Whether the table that was converted is divided into partitions of one interval each."""

    NEVER = "Never"
    BACKGROUND = "Background"


class Convert(Model):
    """The conversion of a plain table."""

    mode: Annotated[ConvertMode, Field(strict=False)] = Field(
        ConvertMode.NEVER,
        description="Attach makes a plain table the first partition of a partitioned one that has its name; no row "
        "moves. Undo makes it the plain table again that it was, and the policy does nothing else then. Never takes "
        "back what an interrupted conversion has prepared, and else does nothing. Default: Never.",
    )
    widen_keys: bool = Field(
        False,
        description="true adds the partition key to primary key and unique constraints that lack it: rows of two "
        "partitions may be equal in the narrow key then. Default: false, which refuses such a table.",
    )
    legacy_name: Identifier | None = Field(
        None,
        description="What the table is called as the first partition. Absent: run_until_2026_12, after the last "
        "interval that it holds.",
    )
    move_back: int = Field(
        1000,
        ge=0,
        le=1_000_000,
        description="Most rows of later partitions that Undo moves back into the table, while all others wait; if "
        "there are more, nothing is done. Default: 1000.",
    )
    split: Annotated[Split, Field(strict=False)] = Field(
        Split.NEVER,
        description="Background moves the rows of the first partition into partitions of one interval each, the "
        "youngest first, in spec.maintenance.window, once the last interval that it holds has passed. With mode: "
        "Attach only. Default: Never.",
    )
    split_max_rows: int = Field(
        100_000,
        ge=1,
        le=10_000_000,
        description="Most rows that leave the first partition at once, since all others wait meanwhile, at most a "
        "second; an interval of more rows leaves in parts. Default: 100000.",
    )
