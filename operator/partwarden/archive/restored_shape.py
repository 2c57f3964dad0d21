"""What a user may have altered of a restored table, beside its rows, as one digest.

It is taken in the transaction that makes the table, and stands in its mark: an equal one later says that the table has
the name, owner, columns, constraints, indexes, triggers, rules, policies and comments that it was made with, and that
no trigger or rule was switched on or off. Privileges are no part of it: a grant is for those who read the table while
it is there, and changes nothing in it. Nor are the targets of statistics, or what VACUUM and ANALYZE write.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import psycopg
from psycopg import sql

from ..planner import marker
from ..postgres.connection import run

# Of the text the server sends the digest alone: its owner may have made it as long as they like. Converted into the
# encoding that it has: nothing of it is lost, and nothing can fail.
SHAPE = """
SELECT encode(sha256(convert_to(jsonb_build_array(
  (SELECT jsonb_build_array(n.nspname, c.relname, c.relowner::int8, c.relkind, c.relpersistence, c.relispartition,
                            c.relrowsecurity, c.relforcerowsecurity, c.relreplident, c.reloftype::int8, c.reloptions)
   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = {oid}),
  (SELECT jsonb_agg(jsonb_build_array(
     a.attnum, a.attname, a.atttypid::int8, a.atttypmod, a.attnotnull, a.attcollation::int8, a.attidentity,
     a.attgenerated, a.attisdropped, pg_get_expr(d.adbin, d.adrelid)) ORDER BY a.attnum)
   FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
   WHERE a.attrelid = {oid} AND a.attnum > 0),
  (SELECT jsonb_agg(jsonb_build_array(k.conname, k.conrelid::int8, pg_get_constraintdef(k.oid)) ORDER BY k.oid)
   FROM pg_constraint k WHERE {oid} IN (k.conrelid, k.confrelid)),
  (SELECT jsonb_agg(pg_get_indexdef(i.indexrelid) ORDER BY i.indexrelid) FROM pg_index i WHERE i.indrelid = {oid}),
  (SELECT jsonb_agg(jsonb_build_array(pg_get_triggerdef(t.oid), t.tgenabled) ORDER BY t.oid)
   FROM pg_trigger t WHERE t.tgrelid = {oid} AND NOT t.tgisinternal),
  (SELECT jsonb_agg(jsonb_build_array(pg_get_ruledef(r.oid), r.ev_enabled) ORDER BY r.oid)
   FROM pg_rewrite r WHERE r.ev_class = {oid}),
  (SELECT jsonb_agg(jsonb_build_array(
     p.polname, p.polcmd, p.polpermissive, p.polroles::int8[], pg_get_expr(p.polqual, p.polrelid),
     pg_get_expr(p.polwithcheck, p.polrelid)) ORDER BY p.oid)
   FROM pg_policy p WHERE p.polrelid = {oid}),
  (SELECT jsonb_agg(s.stxname ORDER BY s.oid) FROM pg_statistic_ext s WHERE s.stxrelid = {oid}),
  (SELECT jsonb_agg(jsonb_build_array(i.inhrelid::int8, i.inhparent::int8) ORDER BY i.inhrelid, i.inhparent)
   FROM pg_inherits i WHERE {oid} IN (i.inhrelid, i.inhparent)),
  (SELECT jsonb_agg(jsonb_build_array(d.objsubid, d.description) ORDER BY d.objsubid) FROM pg_description d
   WHERE d.objoid = {oid} AND d.classoid = 'pg_class'::regclass AND d.objsubid > 0)
)::text, getdatabaseencoding())), 'hex')
"""


def digest(connection: psycopg.Connection[Any], oid: int, comment: str | None) -> str:
    """In lower case hexadecimal digits, of the table with that OID; ``comment``: its own, whose mark does not count.

    To be asked in a transaction that has pinned its settings. Raises psycopg's errors.
    """
    (((catalog,),),) = run(connection, sql.SQL(SHAPE).format(oid=sql.SQL("{}::oid").format(oid)))
    return hashlib.sha256(json.dumps([catalog, marker.without_restored(comment)]).encode()).hexdigest()
