"""Claims about progress and tables where there is no terminal, or a narrow one."""

import io

import pytest
from rich.console import Console
from rich.table import Table

from gcattn.cli import progress
from gcattn.cli.table_printing import print_table


@pytest.fixture
def clock(monkeypatch):
    """Return a function that lets seconds pass."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def pass_seconds(seconds):
        now[0] += seconds

    return pass_seconds


def test_long_work_prints_a_plain_line_now_and_then_without_a_terminal(capsys, clock):
    with progress.document_progress("preparing", None) as on_progress:
        for batch in range(1, 10):
            clock(5)
            on_progress(batch * 100, batch * 1_000_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "preparing: 300 documents, 3,000,000 tokens, 200,000 tokens/s",
        "preparing: 600 documents, 6,000,000 tokens, 200,000 tokens/s",
        "preparing: 900 documents, 9,000,000 tokens, 200,000 tokens/s",
    ]


def test_reading_says_what_is_left_without_a_terminal(capsys, clock):
    with progress.reading_progress() as on_progress:
        clock(1)
        on_progress(10, 1000)
        clock(19)
        on_progress(250, 1000)
    assert capsys.readouterr().err == "read 250 of 1,000 tokens, 25%, 0:01:00 left\n"


def test_work_that_is_refused_at_once_shows_no_bar_even_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    for shown in (progress.document_progress("preparing", 3), progress.reading_progress()):
        with pytest.raises(ValueError, match="refused"), shown:
            raise ValueError("refused")
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress.document_progress("preparing", 3) as on_progress:
        on_progress(3, 5000)
    assert "3/3" in capsys.readouterr().err


def printed(table, width):
    stream = io.StringIO()
    print_table(Console(file=stream, width=width), table, num_labels=2)
    return stream.getvalue()


def test_a_table_that_is_too_wide_is_printed_row_by_row():
    table = Table("task", "length", "whole answer", "s/sample", caption="who took no part: nobody")
    table.add_row("single", "1k", "3/4 = 75.0 %", "0.25")
    table.add_row("two-hop-direct", "16m", "0/4 = 0.0 %", "")
    wide = printed(table, 80)
    assert "two-hop-direct" in wide and "│" in wide
    assert printed(table, 40) == (
        "single, 1k\n"
        "  whole answer  3/4 = 75.0 %\n"
        "  s/sample      0.25\n"
        "two-hop-direct, 16m\n"
        "  whole answer  0/4 = 0.0 %\n"
        "who took no part: nobody\n"
    )
