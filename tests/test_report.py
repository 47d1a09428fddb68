"""scripts/report.py: its numbers are those of the CSVs, and a browser without network shows all of it."""

import base64
import html
import itertools
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from goalax.commands import report as script
from goalax.study import curves, experiments
from goalax.study.hover import described
from goalax.study.script import script as runs_script
from tests.helpers.experiments import EPISODE, STEPS, make_run
from tests.helpers.films import count
from tests.helpers.runs import last


def tables(text):
    """Rows of cells of every table, by the heading above it; a cell is [value, interval] or [words]."""
    found = {}
    for title, rest in re.findall(r"<h2>(.*?)</h2>(.*?)</section>", text, re.DOTALL):
        rows = re.findall(r"<tr>(<td>.*?)</tr>", rest, re.DOTALL)
        cells = [[re.split("<.*?>", cell)[:2] for cell in re.findall("<td>(.*?)</td>", row)] for row in rows]
        found[title] = [[[html.unescape(part) for part in cell] for cell in row] for row in cells]
    return found


def plain(rows):
    return [[cell[0] for cell in row] for row in rows]


def near(cell, value):
    assert float(cell[0]) == pytest.approx(value, abs=5e-4)
    low, high = map(float, cell[1].split(" to "))
    assert low <= float(cell[0]) <= high


def test_numbers_of_real_runs_are_those_of_the_csvs(toy_runs, tmp_path, capsys):
    assert script.main([str(toy_runs), "--out", str(tmp_path / "a.html")]) == 0
    assert capsys.readouterr() == (f"{tmp_path / 'a.html'}\n", "")
    found = tables((tmp_path / "a.html").read_text())
    rows = found["Final evaluation"]
    assert [row[1] for row in rows] == [["crl, energy_fn dot"], ["crl, energy_fn l2"]]
    for energy, (env, _, seeds, steps, reached, at_goal, distance, _) in zip(("dot", "l2"), rows, strict=True):
        runs = [toy_runs / f"{energy}_s{seed}" for seed in range(3)]
        assert (env, seeds, steps) == (["toy"], ["3"], ["120"])
        near(reached, np.mean([last(run, "eval/episode_success_any") for run in runs]))  # of three, none is cut
        near(at_goal, np.mean([last(run, "eval/episode_success") for run in runs]) / EPISODE)
        near(distance, np.mean([last(run, "eval/final_dist") for run in runs]))
    assert found["Flags that differ"] == [
        [["toy"], ["crl, energy_fn dot"], ["dot"]],
        [["toy"], ["crl, energy_fn l2"], ["l2"]],
    ]


@pytest.fixture
def many(tmp_path):
    """Two agents in two environments, five seeds each, known numbers, one film."""
    for seed in range(5):
        for agent, bonus in (("crl", 0.0), ("tmd", 0.25)):
            for env in ("toy", "toy_eval"):
                final = (0.1 * seed + bonus, 0.5 + bonus)
                directory = tmp_path / "runs" / f"{env}_{agent}_s{seed}"
                make_run(directory, seed, final, env_name=env, eval_env=env, agent=agent, exp_name=f"<{env}>")
    film = [Image.new("P", (40, 30), index) for index in (10, 90)]
    film[0].save(tmp_path / "runs" / "toy_crl_s3" / "policy.gif", save_all=True, append_images=film[1:])
    return tmp_path / "runs"


def test_comparisons_by_hand(many, tmp_path, capsys):
    (many / "broken").mkdir()
    assert script.main([str(many), "--out", str(tmp_path / "a.html")]) == 0
    error = capsys.readouterr().err
    assert error == f"report.py: There is no run in {many}/broken: its config.json cannot be read. It is skipped.\n"
    text = (tmp_path / "a.html").read_text()
    assert html.escape(error.removeprefix("report.py: ").strip()) in text
    found = tables(text)
    rows = {(row[0][0], row[1][0]): row for row in found["Final evaluation"]}
    assert len(rows) == 6
    for env in ("toy", "toy_eval"):
        near(rows[env, "crl"][5], 0.2)  # of 0, 0.1, 0.2, 0.3, 0.4 without the ends
        near(rows[env, "tmd"][5], 0.45)
    near(rows["all environments", "tmd"][5], 0.45)
    assert rows["all environments", "tmd"][2] == ["10"]
    ((pair, envs, reached, at_goal),) = found["Probability of improvement"]
    assert (pair, envs) == (["crl over tmd"], ["toy, toy_eval"])
    assert reached == ["0.000", "0.000 to 0.000"]
    near(at_goal, 3 / 25)  # 0.3 > 0.25, 0.4 > 0.25, 0.4 > 0.35
    way = {(row[0][0], row[1][0]): row[2:] for row in found["On the way, and how safely"]}
    assert way.keys() == {(env, agent) for env in ("toy", "toy_eval") for agent in ("crl", "tmd")}
    near(way["toy", "crl"][0], 0.2 * (0.5 * 40 + 5 / 6 * 20) / 60)
    assert way["toy", "crl"][1] == ["> 120", "0 of 5 seeds"]  # of 0.4 at most
    assert way["toy", "tmd"][1] == ["> 120", "2 of 5 seeds"]  # 0.55 and 0.65 at the end
    assert "Performance profiles" in found and "Not trained in all environments" not in text
    film = base64.b64encode((many / "toy_crl_s3" / "policy.gif").read_bytes()).decode()
    assert text.count("data:image/gif") == text.count(f"data:image/gif;base64,{film}") == 1
    assert "crl in toy, seed 3" in text and "Flags that differ" not in text
    origins = {
        commit: (device, versions, runs) for device, commit, versions, runs in plain(found["Where they were trained"])
    }
    each = [f"{{}} of {agent} in {env}" for agent, env in itertools.product(("crl", "tmd"), ("toy", "toy_eval"))]
    assert origins.keys() == {"0000000000-dirty", "1111111111-dirty"}  # those of even and of odd seeds
    for number, (device, versions, runs) in zip((3, 2), (origins[commit] for commit in sorted(origins)), strict=True):
        assert (device, versions) == ("1 x cpu (cpu)", "jax 1.2")
        assert sorted(runs.split("; ")) == [words.format(number) for words in each]


def test_the_threshold_is_a_flag_and_falls_are_shown_where_runs_tell_them(tmp_path):
    for seed in range(3):
        make_run(tmp_path / f"a_s{seed}", seed, (0.3 * (seed + 1), 1), falls=0.2)
        make_run(tmp_path / f"b_s{seed}", seed, (0.9, 1), agent="tmd")
    assert script.main([str(tmp_path), "--threshold", "0.4", "--out", str(tmp_path / "a.html")]) == 0
    text = (tmp_path / "a.html").read_text()
    first, second = tables(text)["On the way, and how safely"]
    assert first[3] == ["100", "2 of 3 seeds"] and second[3] == ["100", "3 of 3 seeds"]
    near(first[4], 0.2)
    assert second[4] == [""] and "steps to 0.4 of the time" in text and "cells visited" not in text


def test_single_seeds_and_unequal_budgets(tmp_path):
    for name, seeds, steps in (("crl", 2, STEPS), ("tmd", 2, STEPS[:2]), ("qrl", 1, STEPS)):
        for seed in range(seeds):
            make_run(tmp_path / f"{name}_s{seed}", seed, (0.5, 1), agent=name, steps=steps)
    assert script.main([str(tmp_path), "--out", str(tmp_path / "a.html")]) == 0
    found = tables((tmp_path / "a.html").read_text())
    assert [row[:2] for row in plain(found["Probability of improvement"])] == [
        ["crl over tmd", "toy (after 120 and 100 steps)"]
    ]
    assert "Performance profiles" in found
    assert [row[4][1] for row in found["Final evaluation"] if row[1] == ["qrl"]] == ["one seed"]


def test_updates_on_a_dataset_are_no_steps(tmp_path):
    for seed in range(2):
        make_run(tmp_path / f"a_s{seed}", seed, (0.5, 1))
        make_run(tmp_path / f"b_s{seed}", seed, (0.3, 1), agent="gcbc", steps=(0, 0, 0), updates=(40, 60, 120))
        make_run(tmp_path / f"c_s{seed}", seed, (0.9, 1), agent="qrl", steps=(0, 0), updates=(40, 60))
    assert script.main([str(tmp_path), "--out", str(tmp_path / "a.html")]) == 0
    text = (tmp_path / "a.html").read_text()
    found = tables(text)
    assert [row[3] for row in plain(found["Final evaluation"])] == ["120", "120 updates", "60 updates"]
    assert [row[3] for row in plain(found["On the way, and how safely"])] == ["120", "> 120 updates", "60 updates"]
    assert [row[1] for row in plain(found["Probability of improvement"])] == [
        "toy (after 120 steps and 120 updates)",
        "toy (after 120 steps and 60 updates)",
        "toy (after 120 and 60 updates)",
    ]
    assert "Learning curves over environment steps, of offline runs updates" in text


def test_a_film_that_cannot_be_read_is_left_out_and_named(many, tmp_path, monkeypatch):
    """A training that goes on may have moved it away, just now."""
    read, gone = Path.read_bytes, many / "toy_crl_s3" / "policy.gif"
    (many / "toy_tmd_s1" / "policy.gif").write_bytes(b"a film")

    def fail(path):
        if path == gone:
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    assert script.main([str(many), "--out", str(tmp_path / "a.html")]) == 0
    text = (tmp_path / "a.html").read_text()
    assert text.count("data:image/gif") == 1 and "tmd in toy, seed 1" in text
    assert f"{gone} cannot be read (No such file or directory). It is left out." in text


def test_an_error_of_the_system_names_its_own_file(many, tmp_path, capsys):
    def save(*_):
        raise PermissionError(13, "Permission denied", "another/file")

    argv = [str(many), "--out", str(tmp_path / "a.html")]
    assert runs_script(argv, script.ReportConfig(), "report.py", "", (".html",), save) == 2
    assert capsys.readouterr().err == "report.py: another/file cannot be read or written: Permission denied.\n"


def test_the_pointer_tells_whole_numbers_as_they_are(tmp_path):
    make_run(tmp_path / "a_s0", 0, (0.123456789, 1), steps=(301_568, 10_027_008, 1_000_000_007))
    groups, _ = experiments.compare([tmp_path])
    (first, *_) = json.loads(described(curves.compare(groups, "steps"), "a"))["curves"]
    assert first["x"] == [301_568, 10_027_008, 1_000_000_007]
    (_, near) = json.loads(described(curves.compare(groups, "steps"), "a"))["curves"]
    assert near["y"][0][-1] == 0.12346 and near["y"][1] == [None] * 3


def test_a_browser_without_network_shows_all_of_it(many, browser, tmp_path):
    path = tmp_path / "a.html"
    assert script.main([str(many), "--out", str(path)]) == 0

    def complaints():
        lines = browser(path.as_uri(), "--enable-logging=stderr", "--dump-dom").stderr.splitlines()
        return [line for line in lines if "CONSOLE" in line]

    def colours(*options):
        browser(path.as_uri(), "--window-size=1100,900", f"--screenshot={tmp_path / 'shot.png'}", *options)
        shot = Image.open(tmp_path / "shot.png")
        return shot.getpixel((2, 2))[:3], [count(shot, np.array(to_rgb(c)) * 255, 20) for c in curves.COLOURS[:2]]

    assert complaints() == []
    for scheme, page in {1: (255, 255, 255), 0: (20, 24, 29)}.items():
        background, pixels = colours(f"--blink-settings=preferredColorScheme={scheme}")
        assert background == page and min(pixels) > 300
    path.write_text(path.read_text() + '<img src="https://example.org/a.png">')
    assert complaints(), "a request that fails would be seen"


ACTIONS = """
const chart = document.querySelector(".chart"), svg = chart.querySelector("svg"), told = [];
const [first] = JSON.parse(chart.dataset.curves).panels, frame = svg.getBoundingClientRect();
const [left, top_, right, bottom] = first.box;
function point(share) {
  const clientX = frame.left + frame.width * (left + share * (right - left));
  const clientY = frame.top + frame.height * (top_ + bottom) / 2;
  svg.dispatchEvent(new PointerEvent("pointermove", { clientX, clientY }));
  const tip = chart.querySelector(".tip");
  told.push(tip.hidden ? "hidden" : [...tip.children].map((line) => line.textContent).join("|"));
}
point(0.95);
const key = [...svg.querySelectorAll("[role=button]")].find((each) => each.getAttribute("aria-label") === "show tmd");
key.dispatchEvent(new MouseEvent("click", { bubbles: true }));
point(0.95);
told.push(key.getAttribute("aria-pressed"));
key.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true }));
point(0.95);
point(-0.2);
document.title = told.join("#");
"""


def test_pointing_tells_values_and_a_click_hides_a_line(many, browser, tmp_path):
    path = tmp_path / "a.html"
    assert script.main([str(many), "--out", str(path)]) == 0
    page = re.sub("<meta http-equiv=.*?>", "", path.read_text())  # it forbids any script but the report's own
    path.write_text(page.replace("</script>", f"{ACTIONS}</script>"))
    title = html.unescape(re.search("<title>(.*?)</title>", browser(path.as_uri(), "--dump-dom").stdout).group(1))
    both, alone, pressed, again, outside = title.split("#")
    along, tmd, crl = both.split("|")
    assert along == "120 environment steps" and pressed == "false" and outside == "hidden"
    for line, label, value in ((tmd, "tmd", 0.75), (crl, "crl", 0.5)):
        number, low, high, name = re.fullmatch(r"([\d.]+) \(([\d.]+) to ([\d.]+)\)  (.*)", line).groups()
        assert name == label and float(number) == pytest.approx(value) and float(low) <= float(number) <= float(high)
    assert alone == f"{along}|{crl}" and again == both


def test_pointing_tells_no_value_where_a_curve_has_ended(browser, tmp_path):
    make_run(tmp_path / "a_s0", 0, (0.5, 1), steps=(100, 200, 300, 400, 500, 600, 700, 800, 900, 1000))
    make_run(tmp_path / "b_s0", 0, (0.9, 1), steps=(90, 190), agent="tmd", agent_flags={"alpha": 1})
    path = tmp_path / "a.html"
    assert script.main([str(tmp_path), "--out", str(path)]) == 0
    page = re.sub("<meta http-equiv=.*?>", "", path.read_text())
    pointed = ACTIONS.split("point(0.95);")[0] + 'point(0.95); point(0.1); document.title = told.join("#");'
    path.write_text(page.replace("</script>", f"{pointed}</script>"))
    title = html.unescape(re.search("<title>(.*?)</title>", browser(path.as_uri(), "--dump-dom").stdout).group(1))
    end, begin = title.split("#")
    assert end.count("|") == 1 and end.endswith("crl")
    _, *lines = begin.split("|")
    assert {re.sub(r"^[\d.]+ +", "", line) for line in lines} in ({"crl at 100", "tmd"}, {"crl", "tmd at 90"}), begin


def test_a_full_disk_is_one_sentence(many, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Path, "write_text", lambda *_, **__: os.write(os.open("/dev/full", os.O_WRONLY), b"a"))
    assert script.main([str(many), "--out", str(tmp_path / "a.html")]) == 2
    assert capsys.readouterr().err == f"report.py: {tmp_path}/a.html cannot be written: No space left on device.\n"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "RUNS is missing; name run directories"),
        (["none"], "There is no directory none. It is skipped. No run is left to show."),
        (["a", "--out", "a.pdf"], "--out is 'a.pdf'; it must name a file that ends in .html, in a directory that"),
        (["--runs", "a"], "Unknown flag --runs; --help lists all flags."),
    ],
)
def test_one_sentence_for_wrong_flags(argv, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert script.main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"report.py: {words}") and error.count("\n") == 1
