"""Rights that a conversion needs on what the table is joined with: asked before anything is done.

What belongs to the table is done as its owner; views above it and tables that refer to it are changed as the connected
role, since they may be another role's.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.sql import SQL

from ..planner.conversion import Conversion
from .connection import pinned, run

LACKING = """
WITH t AS (SELECT c.*, pg_get_userbyid(relowner) AS owner FROM pg_class c WHERE oid = {oid})
SELECT what, way_out FROM t, LATERAL (
  SELECT format('%s %s is made anew, and role %I may not act as its owner, %I',
                CASE o.relkind WHEN 'v' THEN 'view' ELSE 'a foreign key of table' END, o.oid::regclass, current_user,
                pg_get_userbyid(o.relowner)),
         format('connect as a superuser, or GRANT %I TO %I', pg_get_userbyid(o.relowner), current_user)
  FROM pg_class o
  WHERE NOT pg_has_role(o.relowner, 'USAGE') AND (o.oid IN (
      SELECT r.ev_class FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
      WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = t.oid)
    OR o.oid IN (SELECT conrelid FROM pg_constraint WHERE contype = 'f' AND confrelid = t.oid))
  UNION
  SELECT format('foreign key %I needs REFERENCES on %s for role %I', k.conname, o.oid::regclass, t.owner),
         format('GRANT REFERENCES ON %s TO %I', o.oid::regclass, t.owner)
  FROM pg_constraint k JOIN pg_class o ON o.oid = k.confrelid
  WHERE k.contype = 'f' AND k.conrelid = t.oid
    AND EXISTS (SELECT FROM unnest(k.confkey) n WHERE NOT has_column_privilege(t.relowner, o.oid, n, 'REFERENCES'))
  UNION
  SELECT format('trigger %I needs EXECUTE on %s for role %I', g.tgname, g.tgfoid::regprocedure, t.owner),
         format('GRANT EXECUTE ON FUNCTION %s TO %I', g.tgfoid::regprocedure, t.owner)
  FROM pg_trigger g
  WHERE g.tgrelid = t.oid AND NOT g.tgisinternal AND NOT has_function_privilege(t.relowner, g.tgfoid, 'EXECUTE')
  UNION
  SELECT format('column %I needs USAGE on type %s for role %I', a.attname, format_type(a.atttypid, NULL), t.owner),
         format('GRANT USAGE ON TYPE %s TO %I', format_type(coalesce(nullif(y.typelem, 0), y.oid), NULL), t.owner)
  FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
  WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
    AND NOT has_type_privilege(t.relowner, a.atttypid, 'USAGE')
  UNION
  SELECT format('statistics %I need CREATE on schema %s for role %I', e.stxname, e.stxnamespace::regnamespace, t.owner),
         format('GRANT USAGE, CREATE ON SCHEMA %s TO %I', e.stxnamespace::regnamespace, t.owner)
  FROM pg_statistic_ext e
  WHERE e.stxrelid = t.oid AND NOT (has_schema_privilege(t.relowner, e.stxnamespace, 'CREATE')
                                    AND has_schema_privilege(t.relowner, e.stxnamespace, 'USAGE'))
  UNION
  SELECT format('statistics %I belong to role %I', e.stxname, pg_get_userbyid(e.stxowner)),
         format('ALTER STATISTICS %s.%I OWNER TO %I', e.stxnamespace::regnamespace, e.stxname, t.owner)
  FROM pg_statistic_ext e WHERE e.stxrelid = t.oid AND NOT pg_has_role(t.relowner, e.stxowner, 'USAGE')
  UNION
  SELECT format('table or indexes need CREATE on tablespace %I for role %I', s.spcname, t.owner),
         format('GRANT CREATE ON TABLESPACE %I TO %I', s.spcname, t.owner)
  FROM pg_tablespace s
  WHERE NOT has_tablespace_privilege(t.relowner, s.oid, 'CREATE') AND s.oid IN (
    SELECT c.reltablespace FROM pg_class c
    WHERE c.oid = t.oid OR c.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = t.oid))
) found(what, way_out)
ORDER BY 1 LIMIT 50
"""


def lacking(connection: psycopg.Connection[Any], conversion: Conversion) -> tuple[tuple[str, str], ...]:
    """What the owner of the table, or the connected role, may not do, and its way out. Raises psycopg's errors."""
    query = SQL(LACKING).format(oid=conversion.oid)
    _, _, rows, _ = run(connection, "BEGIN READ ONLY", pinned("500ms", "10s"), query, "COMMIT")
    return tuple((what, way_out) for what, way_out in rows)
