"""Values of generated columns are written beside the rows, and read back for the very rows that had them."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, repeat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partwarden.archive import archived_rows
from partwarden.archive.archived_rows import Digest, valid_text
from partwarden.archive.folder import Folder
from partwarden.archive.generated_values import GeneratedWriter, beside, lines, proven
from partwarden.archive.manifest import GeneratedData
from partwarden.errors import ArchiveDamaged, PartwardenError, ProofFailed

LINES = [b"a\tb\n", b"\\N\t\\\\t\n", b"\t\n"]


def written(folder: Path, rows: Iterable[bytes] = LINES) -> tuple[GeneratedData, bytes]:
    store = Folder(folder)
    with GeneratedWriter(store, "archive/values") as writer:
        for each in rows:
            writer.write(each)
        data = writer.finish(("u", "v"))
    return data, b"".join(store.get("archive/values"))


def in_pieces(text: bytes, size: int) -> Iterator[bytes]:
    return (text[place : place + size] for place in range(0, len(text), size))


def test_it_is_gzip_of_a_line_for_each_row(tmp_path: Path) -> None:
    _, text = written(tmp_path)
    assert gzip.decompress(text) == b"".join(LINES)


@pytest.mark.parametrize("size", [1, 2, 7, 1 << 20])
def test_the_lines_come_back_however_they_are_read(tmp_path: Path, size: int) -> None:
    data, text = written(tmp_path)
    assert list(lines(in_pieces(text, size), data, 3)) == [each.rstrip(b"\n") for each in LINES]


def test_none_for_a_table_without_rows(tmp_path: Path) -> None:
    data, text = written(tmp_path, [])
    assert list(lines([text], data, 0)) == []


def test_more_than_a_piece(tmp_path: Path) -> None:
    rows = [b"%d\t%s\n" % (n, b"x" * 1000) for n in range(5000)]
    data, text = written(tmp_path, rows)
    assert sum(1 for _ in lines(in_pieces(text, 1 << 16), data, 5000)) == 5000


def test_an_error_leaves_no_object(tmp_path: Path) -> None:
    def breaks() -> Iterator[bytes]:
        yield b"a\n"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        written(tmp_path, breaks())
    assert list(Folder(tmp_path).below("archive", "*")) == []


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], type[PartwardenError]]] = {
    "a byte more": (lambda text: text + b"x", ArchiveDamaged),
    "cut": (lambda text: text[:-4], ArchiveDamaged),
    "nothing": (lambda text: b"", ArchiveDamaged),
    "no gzip": (lambda text: b"what", ArchiveDamaged),
    "other values": (lambda text: gzip.compress(b"x\ty\n" * 3), ArchiveDamaged),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_other_bytes_are_damage(tmp_path: Path, what: str) -> None:
    data, text = written(tmp_path)
    change, error = DAMAGES[what]
    with pytest.raises(error):
        list(lines([change(text)], data, 3))


def test_an_object_without_end_is_read_no_further_than_it_was_written(tmp_path: Path) -> None:
    data, text = written(tmp_path)
    with pytest.raises(ArchiveDamaged, match="more than the"):
        list(lines(chain([text], repeat(bytes(1000))), data, 3))


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_what_stands_behind_the_values_is_damage(tmp_path: Path, size: int) -> None:
    """Also where the digest is of all of it: gunzip would write it out."""
    data, text = written(tmp_path)
    twice = text * 2
    forged = data.model_copy(update={"bytes": len(twice), "sha256": hashlib.sha256(twice).hexdigest()})
    with pytest.raises(ArchiveDamaged, match="behind its end"):
        list(lines(in_pieces(twice, size), forged, 3))


def test_more_values_than_rows_are_read_no_further_whatever_they_unpack_to(tmp_path: Path) -> None:
    many = 1_500_000
    data, text = written(tmp_path, [b"x\n" * many])
    assert len(text) < 20_000
    assert sum(1 for _ in lines([text], data, many)) == many
    read: list[bytes] = []
    with pytest.raises(ProofFailed, match="archived were 3 of"):
        read.extend(proven([text], data, 3))
    assert read == []
    # Other bytes are damage, however much they unpack to.
    other = data.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(ArchiveDamaged):
        list(proven(in_pieces(text, 64), other, 3))


def test_other_values_of_a_forged_digest_are_refused(tmp_path: Path) -> None:
    data, text = written(tmp_path)
    forged = data.model_copy(update={"copy_sha256": "0" * 64})
    with pytest.raises(ProofFailed):
        list(lines([text], forged, 3))
    with pytest.raises(ProofFailed):
        list(lines([text], data, 4))


def test_a_last_line_that_does_not_end_is_refused(tmp_path: Path) -> None:
    data, text = written(tmp_path, [*LINES, b"a\tb"])
    assert b"".join(proven([text], data, 3)).endswith(b"a\tb")
    with pytest.raises(ProofFailed, match="breaks off"):
        list(lines([text], data, 3))


def test_a_line_that_no_row_has_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, text = written(tmp_path, [b"x" * 5_000_000, b"\n"])
    assert [len(each) for each in lines([text], data, 1)] == [5_000_000]
    monkeypatch.setattr(archived_rows, "LONGEST_LINE", 4_000_000)
    with pytest.raises(ProofFailed, match="no table has such a row"):
        list(lines([text], data, 1))
    # A proof keeps no line, and so needs no limit.
    assert sum(map(len, proven([text], data, 1))) == 5_000_001


@given(st.lists(st.text(st.sampled_from("aé日😀\t\n"), max_size=6), max_size=4).map("".join), st.integers(1, 5))
def test_text_passes_however_it_is_cut(text: str, size: int) -> None:
    content = Digest()
    assert b"".join(valid_text(content.through_lines(in_pieces(text.encode(), size)), content, ["u"])) == text.encode()


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
@pytest.mark.parametrize("wrong", [b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80"])
def test_bytes_that_are_no_text_are_refused_with_their_place(size: int, wrong: bytes) -> None:
    content, text = Digest(), "é\ta\n日\té".encode() + wrong + b"\n"
    with pytest.raises(ProofFailed, match=r"row 2 holds .*bytes that are not text") as refused:
        list(valid_text(content.through_lines(in_pieces(text, size)), content, ["u", "v"]))
    assert ("column 'v'" in str(refused.value)) == (size == 1 << 20)


@given(st.data())
def test_each_row_has_its_own_values_behind_it(data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.tuples(*[st.sampled_from([b"", b"a", b"\\N", b"\\\\"])] * 3), max_size=6))
    size = data.draw(st.integers(1, 9))
    names = data.draw(st.sampled_from([["u"], ["v"], ["v", "u"], ["u", "v"]]))
    about = GeneratedData(columns=("u", "v"), bytes=0, sha256="", copy_sha256="")
    text = b"".join(base + b"\n" for base, _, _ in rows)
    values = iter([b"\t".join(each[1:]) for each in rows])
    places = [{"u": 1, "v": 2}[name] for name in names]
    expected = b"".join(b"\t".join([each[0], *(each[place] for place in places)]) + b"\n" for each in rows)
    assert b"".join(beside(in_pieces(text, size), values, about, names)) == expected


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_values_than_rows_is_refused(count: int) -> None:
    about = GeneratedData(columns=("u",), bytes=0, sha256="", copy_sha256="")
    with pytest.raises(ProofFailed):
        list(beside([b"1\n2\n"], iter([b"x"] * count), about, ["u"]))
    with pytest.raises(ProofFailed, match="'w'"):
        list(beside([b"1\n"], iter([b"x"]), about, ["w"]))
