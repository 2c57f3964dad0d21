"""Which tables can be managed at all."""

from dataclasses import replace

import pytest

from partwarden import errors
from partwarden.api.retention import KeyEncoding
from partwarden.api.types import Interval
from partwarden.planner.context import check_table
from partwarden.planner.inventory import Inventory, KeyPart, Parent, RelationKind, Strategy
from partwarden.planner.keys import TYPES, Codec, KeyType
from support import values
from support.values import inventory, spec

AT = KeyPart("submitted_at", "date")


def with_parent(parent: Parent | None) -> Inventory:
    return replace(inventory(), parent=parent)


@pytest.mark.parametrize(
    ("encoding", "key_type"), [(encoding, each) for encoding, types in TYPES.items() for each in types]
)
def test_a_table_with_one_column_of_time(encoding: KeyEncoding, key_type: KeyType) -> None:
    parent = values.parent(key_type)
    policy = spec(key="submitted_at", key_encoding=encoding)
    assert check_table(policy, with_parent(parent)) == (parent, "submitted_at", Codec(key_type, encoding))


@pytest.mark.parametrize(
    ("encoding", "key_type", "way_out"),
    [
        (KeyEncoding.NATIVE, "uuid", "set spec.keyEncoding to UUIDv7, whichever"),
        (KeyEncoding.NATIVE, "bigint", "set spec.keyEncoding to EpochSeconds or EpochMilliseconds, whichever"),
        (KeyEncoding.NATIVE, "integer", "set spec.keyEncoding to EpochSeconds, whichever"),
        (KeyEncoding.UUID_V7, "date", "needs uuid: leave spec.keyEncoding out, or set it to Native"),
        (KeyEncoding.UUID_V7, "bigint", "set spec.keyEncoding to EpochSeconds or EpochMilliseconds, whichever"),
        (KeyEncoding.EPOCH_SECONDS, "uuid", "needs bigint or integer: set spec.keyEncoding to UUIDv7"),
        (KeyEncoding.EPOCH_SECONDS, "timestamp with time zone", "leave spec.keyEncoding out"),
        (KeyEncoding.EPOCH_MILLISECONDS, "integer", "needs bigint: set spec.keyEncoding to EpochSeconds"),
        (KeyEncoding.EPOCH_MILLISECONDS, "smallint", "only date, timestamp"),
        (KeyEncoding.UUID_V7, "text", "uuid, bigint and integer can be managed"),
    ],
)
def test_a_key_that_cannot_hold_its_encoding(encoding: KeyEncoding, key_type: str, way_out: str) -> None:
    found = with_parent(replace(values.PARENT, key=(KeyPart("id", key_type),)))
    with pytest.raises(errors.UnsupportedKeyType) as caught:
        check_table(spec(key_encoding=encoding), found)
    assert str(caught.value).startswith(f"public.run is partitioned by 'id' of type {key_type}")
    assert way_out in str(caught.value)


@pytest.mark.parametrize(
    ("parent", "error", "words"),
    [
        (None, errors.TableNotFound, "table public.run does not exist in database 'orchestrator'"),
        (
            replace(values.PARENT, kind=RelationKind.TABLE, strategy=None, key=()),
            errors.NotPartitioned,
            "public.run is not a partitioned table (kind: table)",
        ),
        (values.parent(kind=RelationKind.OTHER, strategy=None), errors.NotPartitioned, "(kind: other relation)"),
        (values.parent(strategy=Strategy.LIST), errors.UnsupportedStrategy, "is partitioned by LIST"),
        (values.parent(strategy=Strategy.HASH), errors.UnsupportedStrategy, "is partitioned by HASH"),
    ],
)
def test_tables_that_cannot_be_managed(parent: Parent | None, error: type[errors.PartwardenError], words: str) -> None:
    with pytest.raises(error) as caught:
        check_table(spec(), with_parent(parent))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("key", "error", "words"),
    [
        ((KeyPart(None, "date"),), errors.UnsupportedKey, "by an expression"),
        ((AT, AT), errors.UnsupportedKey, "by 2 columns or expressions"),
        (
            (KeyPart("at", "date"),),
            errors.WrongKey,
            "spec.key is 'submitted_at', but public.run is partitioned by 'at'",
        ),
        ((KeyPart("submitted_at", "bigint"),), errors.UnsupportedKeyType, "of type bigint"),
    ],
)
def test_keys_that_cannot_be_managed(key: tuple[KeyPart, ...], error: type[errors.PartwardenError], words: str) -> None:
    found = with_parent(replace(values.PARENT, key=key))
    with pytest.raises(error) as caught:
        check_table(spec(key="submitted_at"), found)
    assert words in str(caught.value)


def test_hours_of_a_date() -> None:
    with pytest.raises(errors.IntervalTooFine, match=r"spec\.interval is Hour, but public\.run"):
        check_table(spec(interval=Interval.HOUR), with_parent(values.parent(KeyType.DATE)))


def test_a_server_that_is_too_old_is_reported_before_anything_else() -> None:
    server = replace(values.SERVER, version=130022, version_text="13.22")
    with pytest.raises(errors.ServerTooOld, match=r"PostgreSQL 13\.22; Partwarden needs 14 or newer"):
        check_table(spec(), replace(inventory(), server=server, parent=None))
