"""Hostile text made harmless."""

from idle_accelerator.web import plain


def test_no_mark_of_a_label_stays_markup():
    for hostile in (
        "[x](javascript:alert(1))",
        "$x^2$",
        ":red[danger] :material/key: **bold** `code` <b>x</b> ~~no~~ # head",
        "www.example.com http://example.com ![i](http://example.com/i.png)",
    ):
        shown = plain.label(hostile)
        for place, mark in enumerate(shown):
            if mark in "[](){}$:*`<>~#!._\\/|" and mark != "\\":
                assert shown[place - 1] == "\\", (hostile, shown)
        assert shown.replace("\\", "").replace("\u2060", "") == hostile


def test_what_markdown_finds_after_escapes_is_broken_by_an_invisible_mark():
    shown = plain.label("http://a.b :smile: a@b.c WWW.d.e").replace("\\", "")
    for found in ("http://", ":smile:", "a@b", "WWW.d"):
        assert found not in shown


def test_a_line_is_one_printable_line_of_bounded_length():
    assert plain.line("a\nb\0c\u202ed\x1b[31m") == "a\ufffdb\ufffdc\ufffdd\ufffd[31m"
    assert plain.line("x" * 10_000) == "x" * (plain.LABEL_LIMIT - 1) + "…"
    assert plain.line("火箭 🚀") == "火箭 🚀"


def test_an_empty_label_is_still_something_to_click():
    assert plain.label("").strip(" ") != ""


def test_output_reads_as_a_terminal_would_leave_it():
    raw = b"\x1b[32mgreen\x1b[0m\r\n 10%\r 50%\r100%\ndone\x07\n\x1b]0;title\x07end"
    assert plain.output(raw) == "green\n100%\ndone\ufffd\nend"


def test_output_cuts_lines_that_would_choke_a_browser():
    shown = plain.output(b"x" * 1_000_000 + b"\nshort")
    first, second = shown.split("\n")
    assert len(first) == plain.LINE_LIMIT + 1
    assert second == "short"


def test_output_that_is_no_text_is_still_shown():
    assert plain.output(b"\xff\xfe\x00ok\xe4\xbd") == "\ufffd\ufffd\ufffdok\ufffd"


def test_a_block_keeps_its_lines_and_its_limit():
    assert plain.block("a\n\tb\0", 100) == "a\n\tb\ufffd"
    assert len(plain.block("ab\n" * 1000, 50)) == 51


def test_a_download_has_a_name_that_every_system_takes():
    assert plain.file_name("out/frames/1.png") == "1.png"
    assert plain.file_name('a/b:c*d?"<>|e.txt') == "b_c_d_____e.txt"
    assert plain.file_name("图 表.csv") == "图 表.csv"
    assert plain.file_name("...") == "file"
    assert len(plain.file_name("n" * 1000 + ".tar.gz")) <= plain.LABEL_LIMIT
    assert plain.file_name("n" * 1000 + ".tar.gz").endswith(".tar.gz")
