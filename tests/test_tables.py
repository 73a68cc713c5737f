"""Numbers and tables as text."""

from __future__ import annotations

from mcts_utils.tables import BRACKETS, markdown_table, number, percent, points, shown, text_row


def test_numbers_come_with_their_intervals():
    assert percent(0.46, (0.401, 0.52)) == "46.0 % (40.1 to 52.0)"
    assert points(-0.0001, (-0.01, 0.074)) == "+0.0 (-1.0 to +7.4)"
    assert number(0.5, (0.254, 0.746), ".3f", ends=BRACKETS) == "0.500 [0.254, 0.746]"
    assert (number(2.306), percent(None, None)) == ("2.31", "-")


def test_rows_without_a_number_are_left_out():
    rows = (("solved", lambda run: percent(run)), ("never", lambda run: "-"))
    row = text_row(8, 7, 9)
    assert [row(*named) for named in shown(rows, [0.5, None, 1.0])] == ["solved   50.0 %        -  100.0 %"]


def test_markdown_needs_rows():
    assert markdown_table(["arm", "n"], [["base", "3"]]) == "| arm | n |\n|---|---:|\n| base | 3 |"
    assert markdown_table(["arm", "n"], []) == ""
