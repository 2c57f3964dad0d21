"""A conversion as the operator and the command both do it: read the table, decide, prepare, swap."""

from __future__ import annotations

from ..planner.conversion_plan import ConversionPlan, key_now, plan_conversion
from ..planner.conversion_rules import CHECK, Wanted, refusals
from .connection import Session
from .conversion_facts import read_rows, read_table, read_taken


def observe_conversion(connection: Session, wanted: Wanted) -> ConversionPlan:
    """How the table would be converted, or what forbids it. Reads only; of rows as `read_rows` does.

    ``wanted.spec.key`` is named. Raises `TableNotFound`, `UnknownTimeZone`, and psycopg's errors.
    """
    spec = wanted.spec
    table = read_table(connection, spec.table, spec.key or "", CHECK)
    if not refusals(table, wanted):
        _, _, now = key_now(table, wanted)
        table = read_rows(connection, table, spec.key_encoding, now)
    plan = plan_conversion(table, wanted)
    return plan_conversion(table, wanted, read_taken(connection, table, plan.names)) if plan.names else plan
