"""Tables are read as they are meant, and what is wrong is told with its row and column."""

import datetime
import json
import sys
import zipfile

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest

from steepest.errors import DataError, InputError, UnsupportedError
from steepest.tasks.text.columns import choose_columns, labelled
from steepest.tasks.text.reading import Formula, read_table

ROWS = [('a, "quoted" text\nof two lines', "x"), ("NA", "y"), ("한국어 텍스트", "x")]


def workbook(path, rows, *, more=()):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    for name in more:
        book.create_sheet(name)
    book.save(path)
    return path


def text_file(path, content):
    path.write_bytes(content)
    return path


def csv_bytes(encoding):
    text = 'text,label\r\n"a, ""quoted"" text\nof two lines",x\r\nNA,y\r\n한국어 텍스트,x\r\n'
    return text.encode(encoding)


def make(tmp_path, kind):
    if kind == "xlsx":
        return workbook(tmp_path / "t.xlsx", [("text", "label"), *ROWS])
    if kind == "tsv":
        lines = [
            "text\tlabel",
            '"a, ""quoted"" text\nof two lines"\tx',
            "NA\ty",
            "한국어 텍스트\tx",
        ]
        return text_file(tmp_path / "t.tsv", "\n".join(lines).encode())
    if kind == "semicolons":
        return text_file(
            tmp_path / "t.csv", csv_bytes("utf-8").replace(b",x", b";x").replace(b",y", b";y")
            .replace(b"text,label", b"text;label"))  # fmt: skip
    if kind == "jsonl":
        lines = [json.dumps({"text": t, "label": k}, ensure_ascii=False) for t, k in ROWS]
        return text_file(tmp_path / "t.jsonl", "\n".join(lines).encode())
    if kind == "parquet":
        columns = {"text": [t for t, _ in ROWS], "label": [k for _, k in ROWS]}
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
        return tmp_path / "t.parquet"
    return text_file(tmp_path / "t.csv", csv_bytes(kind))


@pytest.mark.parametrize(
    "kind",
    ["xlsx", "tsv", "semicolons", "jsonl", "parquet", "utf-8", "utf-8-sig", "utf-16", "cp949"],
)
def test_every_kind_and_encoding_gives_the_same_cells(tmp_path, kind):
    table = read_table(make(tmp_path, kind))
    assert table.columns == ("text", "label")
    assert table.rows == ROWS
    noted = any("read as cp949" in note for note in table.notes)
    assert noted == (kind == "cp949")


def test_rows_are_numbered_as_a_person_sees_them(tmp_path):
    assert read_table(make(tmp_path, "utf-8")).numbers == [2, 4, 5]  # the first has two lines
    assert read_table(make(tmp_path, "xlsx")).numbers == [2, 3, 4]
    path = text_file(tmp_path / "gap.jsonl", b'{"a": 1}\n\n{"a": 2}\n')
    assert read_table(path).numbers == [1, 3]


def test_western_bytes_are_not_taken_for_korean(tmp_path):
    content = "text,label\nÄnderung für Überraschungsgäste,x\nÄrger über Öl,y\n".encode("latin-1")
    path = text_file(tmp_path / "t.csv", content)
    with pytest.raises(
        DataError, match=r"neither UTF-8 \(line 2, character 1 has the byte 0xc4\) nor Korean"
    ):
        read_table(path)
    assert read_table(path, encoding="latin-1").rows[1][0] == "Ärger über Öl"
    with pytest.raises(
        DataError, match=r"is not written in ascii: line 2, character 1 has the byte 0xc4"
    ):
        read_table(path, encoding="ascii")
    with pytest.raises(InputError, match=r"unknown encoding 'kr'"):
        read_table(path, encoding="kr")


def test_a_wrong_byte_far_into_a_file_is_told_with_its_place(tmp_path):
    line = "가나다,x\n".encode()
    path = text_file(tmp_path / "t.csv", b"text,label\n" + line * 150_000 + b"ab\xff,x\n")
    assert path.stat().st_size > 1 << 20  # it is read in pieces
    with pytest.raises(DataError, match=r"line 150002, character 3 has the byte 0xff"):
        read_table(path, encoding="utf-8")


def test_utf16_without_a_mark_is_asked_about(tmp_path):
    path = text_file(tmp_path / "t.csv", "text,label\n가,x\n".encode("utf-16-le") + b"\xff\xd8")
    with pytest.raises(DataError, match=r"encoding=utf-16-le"):
        read_table(path)


def test_a_text_that_begins_with_an_equals_sign_is_a_text_and_a_formula_is_none(tmp_path):
    path = workbook(
        tmp_path / "t.xlsx",
        [("text", "label"), ("=?big5?Q?=A4W?= hello", "x"), ("=A1&B1", "y"), ("== now ==", "x")],
    )
    table = read_table(path)
    assert [row[0] for row in table.rows] == [
        "=?big5?Q?=A4W?= hello",
        Formula("=A1&B1"),
        "== now ==",
    ]
    assert "2 cells that begin with '='" in table.notes[0]
    with pytest.raises(DataError, match=r"t.xlsx, row 3: column 'text' holds a formula without"):
        labelled(table, "text", "label")


def test_sheets(tmp_path):
    path = workbook(tmp_path / "t.xlsx", [("text", "label"), *ROWS], more=["Other"])
    assert "first of 2 sheets, 'Sheet'" in read_table(path).notes[0]
    with pytest.raises(InputError, match=r"unknown sheet of t.xlsx 'Othr'; did you mean 'Other'"):
        read_table(path, sheet="Othr")
    with pytest.raises(DataError, match=r"sheet 'Other' is empty"):
        read_table(path, sheet="Other")
    with pytest.raises(InputError, match=r"is for workbooks"):
        read_table(make(tmp_path, "utf-8"), sheet="Other")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", r"t.csv is empty"),
        ("t.csv", b"text,label\n", r"no row below its first one"),
        ("t.csv", b"text,,label\na,b,c\n", r"row 1: column 2 has no name"),
        ("t.csv", b"text,text\na,b\n", r"row 1: two columns are called 'text'"),
        ("t.csv", b"text,label\na,b\nc,d,e\n", r"line 3: 3 cells where the first row has 2 after"),
        ("t.csv", b"text,label\na\n", r"line 2: 1 cells .* column 'label' is missing"),
        ("t.csv", b'text,label\na,b\n"c,d\n', r"line 3: unexpected end of data"),
        ("t.jsonl", b'{"a": 1}\n{"a": \n', r"line 2 is not JSON"),
        ("t.jsonl", b'{"a": 1}\n[1]\n', r"line 2 is a list; every line must be one object"),
        ("t.xlsx", b"PK no", r"t.xlsx is no workbook"),
        ("t.parquet", b"PAR no", r"t.parquet is no parquet file"),
        ("t.xls", b"", r"none of the tables that can be read: .xlsx.*save it as .xlsx"),
    ],
)
def test_a_damaged_table_is_told_with_its_line(tmp_path, name, content, message):
    path = text_file(tmp_path / name, content)
    with pytest.raises(InputError, match=message):
        read_table(path)


def test_a_zip_that_is_no_workbook(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w") as packed:
        packed.writestr("hello.txt", "hello")
    with pytest.raises(DataError, match=r"t.xlsx is no workbook"):
        read_table(tmp_path / "t.xlsx")


def test_a_missing_file_names_the_tables_beside_it(tmp_path):
    make(tmp_path, "utf-8")
    with pytest.raises(InputError, match=r"there is no file .*tt.csv; tables there: t.csv"):
        read_table(tmp_path / "tt.csv")


def test_a_large_file_is_refused_until_the_limit_is_raised(tmp_path):
    line = b"a text of some length that is repeated again and again,x\n"
    path = text_file(tmp_path / "t.csv", b"text,label\n" + line * 40_000)  # 2.3 MB
    with pytest.raises(InputError, match=r"t.csv holds 2 MB and limit_mb is 1; .*say limit_mb=3"):
        read_table(path, limit_mb=1)
    assert len(read_table(path, limit_mb=3).rows) == 40_000


def test_the_unpacked_size_of_a_workbook_counts(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("xl/worksheets/sheet1.xml", b"0" * 5_000_000)
    assert (tmp_path / "t.xlsx").stat().st_size < 10_000
    with pytest.raises(InputError, match=r"t.xlsx holds 5 MB and limit_mb is 1"):
        read_table(tmp_path / "t.xlsx", limit_mb=1)


def test_without_the_package_the_install_line_is_printed(tmp_path, monkeypatch):
    path = make(tmp_path, "xlsx")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(UnsupportedError, match=r'pip install "steepest\[tables\]"'):
        read_table(path)


def table_of(tmp_path, head, rows):
    return read_table(workbook(tmp_path / "t.xlsx", [head, *rows]))


LONG = [f"this is a text with the number {i}" for i in range(40)]


def test_plain_columns_are_guessed_and_said(tmp_path):
    rows = [(i, LONG[i], "ab"[i % 2]) for i in range(40)]
    table = table_of(tmp_path, ("nr", "mail", "kind"), rows)
    assert choose_columns(table, None, None)[:2] == ("mail", "kind")
    assert "'mail' as the text and 'kind' as the label" in choose_columns(table, None, None)[2][0]
    assert choose_columns(table, "mail", "kind") == ("mail", "kind", ())
    korean = table_of(tmp_path, ("번호", "본문", "분류"), rows)
    assert choose_columns(korean, None, None)[:2] == ("본문", "분류")


def test_columns_that_are_not_plain_are_asked_for(tmp_path):
    rows = [(LONG[i], LONG[-i], "ab"[i % 2]) for i in range(40)]
    table = table_of(tmp_path, ("question", "answer", "kind"), rows)
    with pytest.raises(InputError, match=r"text is not plain, 2 could be it \(question, answer\)"):
        choose_columns(table, None, None)
    with pytest.raises(InputError, match=r"'qestion'; did you mean 'question'\?"):
        choose_columns(table, "qestion", None)
    with pytest.raises(InputError, match=r"are both 'kind'"):
        choose_columns(table, "kind", "kind")
    numbers = table_of(tmp_path, ("a", "b"), [(i, i / 7) for i in range(40)])
    with pytest.raises(InputError, match=r"text is not plain, none looks like it"):
        choose_columns(numbers, None, None)


def test_empty_cells_are_named_or_skipped(tmp_path):
    rows = [(LONG[i], "ab"[i % 2]) for i in range(10)]
    rows[3] = ("  ", "a")
    rows[6] = (LONG[6], None)
    table = table_of(tmp_path, ("text", "label"), rows)
    with pytest.raises(
        DataError, match=r"t.xlsx, row 5: column 'text' is empty \(2 empty cells; row 8, 'label'\)"
    ):
        labelled(table, "text", "label")
    found = labelled(table, "text", "label", empty_cells="skip")
    assert found.rows == [0, 1, 2, 4, 5, 7, 8, 9]
    assert "2 of 10 rows are left out" in found.notes[0]


def test_numbers_are_labels_in_their_order(tmp_path):
    rows = [(LONG[i], (10, 2.0, 1)[i % 3]) for i in range(12)]
    found = labelled(table_of(tmp_path, ("text", "label"), rows), "text", "label")
    assert found.classes == ("1", "2", "10")
    assert found.labels[:3] == [2, 1, 0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a"] * 12, r"column 'label' holds one class only, 'a', in all 12 rows"),
        ([i / 7 for i in range(12)], r"holds 12 different values in 12 rows.*no label of a class"),
        (["a"] * 6 + ["b"] * 5 + ["bb"], r"row 13: column 'label': class 'bb' has 1 row; .*slip"),
        (["a"] * 6 + ["b"] * 4 + ["c"] * 2, r"row 12: column 'label': class 'c' has 2 rows"),
        ([datetime.datetime(2024, 1, 1)] * 12, r"row 2: column 'label' holds a date"),
    ],
)
def test_labels_that_are_no_classes_are_refused_with_their_row(tmp_path, labels, message):
    rows = list(zip(LONG[:12], labels, strict=True))
    with pytest.raises(DataError, match=message):
        labelled(table_of(tmp_path, ("text", "label"), rows), "text", "label")


def test_a_text_of_another_kind_is_refused(tmp_path):
    rows = [(LONG[i], "ab"[i % 2]) for i in range(10)]
    rows[4] = (datetime.datetime(2024, 1, 1), "a")
    with pytest.raises(DataError, match=r"row 6: column 'text' holds a datetime .*expected a text"):
        labelled(table_of(tmp_path, ("text", "label"), rows), "text", "label")
