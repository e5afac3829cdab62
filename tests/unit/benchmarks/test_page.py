"""The results that a run of `python -m benchmarks` leaves behind: records, plots and a page; and the arithmetic of its
comparisons."""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.command import main as measure
from benchmarks.kit.compare import quantile, ratio_of_medians, scaling, slope
from benchmarks.kit.contract import Benchmark, Figures, Measured
from benchmarks.measures.scale import slopes
from benchmarks.page import Report, page_of
from benchmarks.registry import all_benchmarks, run_benchmark
from benchmarks.views.plots import draw
from benchmarks.views.queued_view import view_queue
from benchmarks.views.scale_view import view_scale
from benchmarks.views.seed_view import view_seed
from benchmarks.views.view import BarPlot, Curve, CurvePlot, Table, View, shown, shown_number, shown_ratio

MACHINE = {"cores": 2, "cpu": "a processor", "system": "Linux", "date": "2026-01-02", "load_1m": 0.5}
CURVES = CurvePlot("growth", "Growth", "processes", "tasks a second", (Curve("hits", ((1, 10), (4, 40))),), log_x=True)
BARS = BarPlot("sides", "Sides", "ms", ("a", "b"), {"ours": (1.0, 2.0), "theirs": (3.0, 4.0)})


def document(bench: str, figures: Figures, **more: Any) -> dict[str, Any]:
    return {"bench": bench, "figures": figures, "machine": dict(MACHINE), "versions": {"python": "3.11"}, **more}


@pytest.fixture
def benches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two benchmarks of the test's own, the first with a view."""

    def first(_progress: Any, *, quick: bool) -> Figures:
        return {"p50_ms": 2.0}

    def second(_progress: Any, *, quick: bool) -> Measured:
        return Measured({"rate_per_s": 512.0}, ("a peer is not installed and left out",))

    def view(figures: Mapping[str, float]) -> View:
        return View(
            "So it was measured.", (Table(("what", "ms"), (("a hit | a miss", *shown(figures, "p50_ms")),)),), (CURVES, BARS)
        )

    for name in list(all_benchmarks()):
        monkeypatch.delitem(all_benchmarks(), name)
    monkeypatch.setitem(all_benchmarks(), "first", Benchmark("first", "How fast the first is.", 1, first, view))
    monkeypatch.setitem(all_benchmarks(), "second", Benchmark("second", "How fast the second is.", 2, second))


@pytest.mark.usefixtures("benches")
class TestTheFolder:
    def test_it_holds_the_page_the_records_and_the_plots_in_both_formats(self, tmp_path: Path) -> None:
        """All that the page links to is there, and nothing else."""
        report = Report(tmp_path)
        report.record(document("first", {"p50_ms": 2.0}), quick=False)
        assert report.write_page() == ()
        names = {path.name for path in (tmp_path / "benchmarks").iterdir()}
        assert names == {"first.json"} | {f"first-{plot}{suffix}" for plot in ("growth", "sides") for suffix in (".png", ".svg")}
        page = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
        for name in names:
            assert f"benchmarks/{name})" in page
        assert json.loads((tmp_path / "benchmarks" / "first.json").read_text(encoding="utf-8"))["figures"] == {"p50_ms": 2.0}

    def test_a_second_run_of_one_benchmark_keeps_the_others(self, tmp_path: Path) -> None:
        """`python -m benchmarks NAME --out` makes the page anew from all records."""
        Report(tmp_path).record(document("first", {"p50_ms": 2.0}), quick=False)
        report = Report(tmp_path)
        report.record(document("second", {"rate_per_s": 512.0}), quick=False)
        report.write_page()
        page = report.page.read_text(encoding="utf-8")
        assert page.index("## first") < page.index("## second")
        assert "| rate_per_s | 512 |" in page

    def test_a_run_that_could_measure_nothing_keeps_the_last_figures(self, tmp_path: Path) -> None:
        """Such as the page's, without a browser."""
        report = Report(tmp_path)
        report.record(document("first", {"p50_ms": 2.0}), quick=False)
        report.record(document("first", {}, notes=["no browser is installed"]), quick=False)
        report.record(document("second", {}, notes=["no browser is installed"]), quick=False)
        kept = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (tmp_path / "benchmarks").glob("*.json")}
        assert (kept["first"]["figures"], "notes" in kept["first"]) == ({"p50_ms": 2.0}, False)
        assert (kept["second"]["figures"], kept["second"]["notes"]) == ({}, ["no browser is installed"])

    def test_plots_that_are_no_longer_drawn_are_removed(self, tmp_path: Path) -> None:
        """Else the folder would keep pictures of another run."""
        report = Report(tmp_path)
        stale = tmp_path / "benchmarks" / "first-old.svg"
        stale.write_text("old")
        report.record(document("first", {"p50_ms": 2.0}), quick=False)
        report.write_page()
        assert not stale.exists()

    def test_without_matplotlib_the_page_is_written_and_a_note_says_what_is_left_out(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is an optional dependency."""
        monkeypatch.setattr("benchmarks.page.plots_available", lambda: False)
        report = Report(tmp_path)
        report.record(document("first", {"p50_ms": 2.0}), quick=False)
        (note,) = report.write_page()
        assert "matplotlib" in note
        page = report.page.read_text(encoding="utf-8")
        assert "a hit" in page
        assert ".svg" not in page

    def test_a_failed_benchmark_leaves_no_figures(self, tmp_path: Path) -> None:
        """Its figures are wrong; and the lines of a log that come after the first problem are not for a page."""
        report = Report(tmp_path)
        report.record(document("first", {"p50_ms": 2.0}), quick=False)
        report.record(document("first", {"p50_ms": 0.1}), quick=False, problems=["a wrong answer", "File /home/somebody/x.py"])
        report.write_page()
        page = report.page.read_text(encoding="utf-8")
        assert "- a wrong answer" in page
        assert "somebody" not in page
        assert "0.1" not in page
        assert not list((tmp_path / "benchmarks").glob("*.svg"))


@pytest.mark.usefixtures("benches")
class TestThePage:
    def test_it_tells_how_and_on_what_it_was_measured(self) -> None:
        """Once for all, where all were measured on the same."""
        page = page_of([document("first", {"p50_ms": 2.0}), document("second", {"rate_per_s": 1.0})], {})
        assert page.count("Measured on 2026-01-02: cores 2, cpu a processor") == 1
        assert "load_1m" not in page
        assert "How fast the first is." in page
        assert "So it was measured." in page

    def test_benchmarks_that_were_measured_on_different_machines_say_so_each(self) -> None:
        """A page may be made of several runs."""
        other = document("second", {"rate_per_s": 1.0})
        other["machine"]["cores"] = 64
        page = page_of([document("first", {"p50_ms": 2.0}), other], {})
        assert page.count("Measured") == 2
        assert "cores 64" in page

    def test_figures_of_a_quick_run_are_marked(self) -> None:
        """They are not to be quoted."""
        assert "quick" not in page_of([document("first", {"p50_ms": 2.0})], {})
        assert "## first (quick: not to be quoted)" in page_of([document("first", {"p50_ms": 2.0}, quick=True)], {})

    def test_notes_stand_beside_the_figures(self) -> None:
        """Notes on what was left out are part of the result."""
        assert "Note: a peer is left out" in page_of([document("second", {}, notes=["a peer is left out"])], {})

    def test_a_cell_cannot_break_its_table(self) -> None:
        """A bar within a cell would end it."""
        assert "a hit &#124; a miss | 2 |" in page_of([document("first", {"p50_ms": 2.0})], {})


@pytest.mark.usefixtures("benches")
def test_the_document_of_a_run_has_notes_only_if_there_are_any_and_never_the_name_of_the_machine() -> None:
    """Four keys are promised; the page may be published."""
    first, second = (run_benchmark(each, print) for each in all_benchmarks().values())
    assert set(first) == {"bench", "figures", "machine", "versions"}
    assert second["notes"] == ["a peer is not installed and left out"]
    assert second["figures"] == {"rate_per_s": 512.0}
    assert socket.gethostname() not in json.dumps(first)


@pytest.mark.usefixtures("benches")
@pytest.mark.slow
def test_the_command_measures_those_that_are_named_and_writes_them_beside_what_it_prints(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """One name: a document. Several: a list, in the order asked for and each once."""
    assert measure(["second", "first", "second", "--json", "--quick", "--out", str(tmp_path)]) == 0
    said = capfdbinary.readouterr()
    assert [each["bench"] for each in json.loads(said.out)] == ["second", "first"]
    assert b"written: " in said.err
    assert "## first (quick: not to be quoted)" in (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    assert measure(["first", "--json"]) == 0
    assert json.loads(capfdbinary.readouterr().out)["bench"] == "first"
    assert measure(["first"]) == 0
    assert b"a hit | a miss" in capfdbinary.readouterr().out


@pytest.mark.usefixtures("benches")
def test_a_long_benchmark_is_run_by_its_name_only(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """And a run without names says that it left it out. On the page it keeps its record, with how to renew it."""
    monkeypatch.setitem(all_benchmarks(), "second", all_benchmarks()["second"]._replace(long=True))
    assert measure(["--json"]) == 0
    said = capfdbinary.readouterr()
    assert [each["bench"] for each in json.loads(said.out)] == ["first"]
    assert b"left out, as they take many minutes (run them by name): second" in said.err
    assert measure(["second", "--json"]) == 0
    assert json.loads(capfdbinary.readouterr().out)["bench"] == "second"
    page = page_of([document("first", {"p50_ms": 2.0}), document("second", {"rate_per_s": 512.0})], {})
    assert page.count("--out docs` renews it") == 1


@pytest.mark.slow
def test_equal_plots_give_equal_files(tmp_path: Path) -> None:
    """A page that is made anew from the same figures changes nothing in a repository."""
    for run in ("one", "two"):
        (tmp_path / run).mkdir()
        assert draw([CURVES, BARS], tmp_path / run, "x") == ["x-growth", "x-sides"]
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name
    assert "tasks a second" in (tmp_path / "one" / "x-growth.svg").read_text(encoding="utf-8")


class TestViews:
    """Each shows what its benchmark measures, and does without a figure that there is not."""

    def test_the_seed_s_columns_are_the_claim_this_run_and_the_limit(self) -> None:
        figures = {f"{prefix}{name}_saved_pct": 90.0 for prefix in ("claim_", "", "limit_")
                   for name in ("repeat50", "patterns10", "dashboard20")}  # fmt: skip
        figures |= {"claim_hit_ms": 2, "hit_ms": 0.01}
        view = view_seed(figures)
        rows = {row[0]: row[1:] for row in view.tables[0].rows}
        assert rows["50 equal: time saved, %"] == ("90", "90", "90")
        assert rows["a hit, ms"] == ("2", "0.01", "-")

    def test_the_queue_s_table_of_others_has_those_that_were_measured(self) -> None:
        figures = {"persona_hit_per_s": 300.0, "rq_hit_per_s": 30.0, "persona_to_rq_ratio": 10.0}
        figures |= {"persona_to_rq_ratio_low": 9.0, "persona_to_rq_ratio_high": 11.0}
        others = view_queue(figures).tables[-1]
        assert [row[0] for row in others.rows] == ["persona", "rq"]
        assert others.rows[1][:3] == ("rq", "30", "10.00x (9.00-11.00)")
        assert len(view_queue({"hit_per_s": 1.0}).tables) == 3

    def test_scale_s_curves_go_through_the_measured_sizes(self) -> None:
        figures = {f"workers{size}_miss_per_s": 10.0 * size for size in (1, 4, 2)}
        plot = view_scale(figures).plots[0]
        assert isinstance(plot, CurvePlot)
        assert plot.curves[1].points == ((1.0, 10.0), (2.0, 20.0), (4.0, 40.0))
        assert plot.curves[0].points == ()

    def test_slopes_are_per_process_and_growth_is_an_exponent(self) -> None:
        figures: Figures = {}
        for size in (1, 2, 4):
            of_size = {"miss_per_s": 10.0 * size, "hit_per_s": 300.0, "invalidate_p50_ms": 1.0 + 0.5 * size}
            of_size |= {"idle_cache_commands_per_s": 14.0 * size, "idle_broker_commands_per_s": 5.0}
            figures |= {f"workers{size}_{name}": number for name, number in of_size.items()}
        for name in ("reads_per_s", "cache_commands_per_s", "invalidate_p50_ms"):
            figures |= {f"readers{size}_{name}": 7.0 for size in (1, 2)}
        found = slopes(figures, (1, 2, 4), (1, 2))
        assert found["workers_miss_exponent"] == pytest.approx(1)
        assert found["workers_hit_exponent"] == pytest.approx(0)
        assert found["workers_idle_cache_commands_per_s_slope"] == pytest.approx(14)
        assert found["workers_invalidate_p50_ms_slope"] == pytest.approx(0.5)
        assert found["readers_read_exponent"] == pytest.approx(0)


class TestComparison:
    def test_a_ratio_is_of_the_medians_and_its_spread_is_of_the_rounds(self) -> None:
        """One slow moment of the machine widens the spread and leaves the ratio."""
        ratio = ratio_of_medians([9, 10, 2], [10, 10, 10])
        assert ratio == (0.9, 0.2, 1.0)
        assert ratio.figures("x") == {"x": 0.9, "x_low": 0.2, "x_high": 1.0}

    @pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], [1.0, 2.0])])
    def test_rounds_that_do_not_match_are_refused(self, ours: list[float], theirs: list[float]) -> None:
        """They were not measured in turn."""
        with pytest.raises(ValueError, match="rounds"):
            ratio_of_medians(ours, theirs)

    @pytest.mark.parametrize(("share", "expected"), [(0.0, 1.0), (0.5, 2.5), (1.0, 4.0), (0.25, 1.75)])
    def test_a_quantile_lies_between_two_values(self, share: float, expected: float) -> None:
        """Of 4, 1, 3, 2."""
        assert quantile([4, 1, 3, 2], share) == expected

    def test_a_quantile_of_nothing_is_an_error(self) -> None:
        """And no figure."""
        with pytest.raises(ValueError, match="no values"):
            quantile([], 0.5)

    def test_slope_and_exponent_are_those_computed_by_hand(self) -> None:
        """y = 3x + 1, and y = 5 x^2."""
        assert slope([(1, 4), (2, 7), (5, 16)]) == pytest.approx(3)
        assert scaling([(1, 5), (2, 20), (4, 80)]) == pytest.approx(2)
        assert slope([(2, 7)]) == 0
        assert not math.isnan(scaling([(2, 7), (2, 9)]))


@pytest.mark.parametrize(("number", "text"), [(500, "500"), (0.31249, "0.312"), (5511.7, "5512"), (-0.5, "-0.5"), (0.0, "0")])
def test_numbers_are_shown_by_three_digits_that_count(number: float, text: str) -> None:
    """And whole numbers as they are."""
    assert shown_number(number) == text


def test_a_ratio_that_there_is_not_is_a_dash() -> None:
    """As any other figure."""
    assert shown_ratio({}, "x") == "-"
