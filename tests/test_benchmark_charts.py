"""benchmarks/charts.py: what a bar says, and that nothing lies outside of its chart."""

from __future__ import annotations

import json
import re
import sys

import pytest
from support import documentation

sys.path.append(str(documentation.ROOT))

from benchmarks import charts, report, stats, table


def case(title, **rates):
    """A case with the rates and CPU times of each contender in each round, of which uvloop's are 100."""
    rates = {name.replace("_", "-", 1): values for name, values in rates.items()}
    runs = [
        {"contender": name, "round": n, "rate": value, "cpu_us": 10_000 / value}
        for name, values in {**rates, "uvloop": [100] * 3}.items()
        for n, value in enumerate(values)
    ]
    return {"title": title, "kind": "echo", "runs": runs}


def draw(*cases, figure=charts.FIGURES[0]):
    return "\n".join(charts.chart(list(cases), "Echo", figure))


def positions(text):
    return [float(number) for number in re.findall(r'(?:x|x1|x2|width)="([\d.]+)%"', text)]


def test_a_bar_runs_from_one_to_the_median():
    scale = charts.Axis(0.25, 4)
    bar = charts.bar(stats.Spread(2, 1, 4, 1, 4, 3), scale, 1)
    assert re.findall(r'<rect class="(\w+)" x="([\d.]+)%" y="3" width="([\d.]+)%"', bar) == [
        ("win", "50.00", "25.00")
    ]
    assert 'class="spread" x1="50.00%" x2="100.00%"' in bar
    bar = charts.bar(stats.Spread(0.5, 0.25, 1, 0.25, 1, 3), scale, 1)
    assert re.findall(r'<rect class="(\w+)" x="([\d.]+)%"', bar) == [("loss", "25.00")]


def test_less_cpu_is_better():
    fast = case("fast", proact_epoll=[200, 200, 200])
    assert 'class="win"' in draw(fast)
    assert 'class="win"' in draw(fast, figure=charts.FIGURES[1])
    assert "loss" not in draw(fast, figure=charts.FIGURES[1])


def test_only_what_was_measured_is_drawn():
    text = draw(case("all", proact_epoll=[90, 100, 110], rloop=[50, 50, 50]), case("nothing"))
    assert re.findall('class="name">(.*?)<', text) == ["proact-epoll", "rloop"]
    assert "nothing" not in text
    assert draw(case("nothing")) == ""


def test_an_outlier_stays_inside_and_leaves_room_for_the_rest():
    usual = [case(str(n), proact_epoll=[90, 100, 110]) for n in range(20)]
    text = draw(*usual, case("outlier", proact_epoll=[1, 100, 120]))
    assert all(0 <= position <= 100 for position in positions(text))
    assert 'aria-label="1.00 [0.01–1.20]"' in text
    assert set(re.findall(r">(0\.\d+)</text>", text)) == {"0.8"}


@pytest.mark.parametrize("path", sorted(report.RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_all_ratios_of_our_results_are_drawn(path):
    results = json.loads(path.read_text())
    text = charts.section(results)
    for each in results["cases"]:
        for name in charts.SHOWN:
            ratio = stats.ratio(each["runs"], name, "uvloop", "memory" if each["kind"] == "idle" else "rate")
            assert ratio is None or f'aria-label="{table.times(ratio)}"' in text
    assert all(0 <= position <= 100 for position in positions(text))
