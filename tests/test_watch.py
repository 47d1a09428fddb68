"""--watch: the page tells how far a run is, without a server, and never stands in its way."""

import errno
import json
import os

import pytest

from goalax.study import watch
from tests.helpers import toy
from tests.helpers.runs import LONGER, RUN, envsteps

toy.register()


def told():
    text = (RUN / "watch.js").read_text()
    assert text.startswith("show(") and text.endswith(");\n")
    return json.loads(text.removeprefix("show(").removesuffix(");\n"))


def test_a_browser_sees_the_run(resumed_toy, browser, capsys):
    assert resumed_toy(*LONGER, "--watch", "true") == 0
    assert f"open {RUN / 'watch.html'} in a browser" in capsys.readouterr().out
    content = told()
    assert content["over"] and content["done"] == 1 and content["now"] == "It has ended."
    assert content["numbers"]["environment steps"] == f"{envsteps()[-1]}"
    (RUN / "watch.js").write_text(f"show({json.dumps({**content, 'film': 'policy.html'})});")  # the toy has no films
    page = browser((RUN / "watch.html").absolute().as_uri(), "--virtual-time-budget=2000", "--dump-dom").stdout
    for words in ("<h1>toy_crl_s0</h1>", "It has ended.", "environment steps", '<iframe id="film" src="policy.html"'):
        assert words in page
    assert page.count("<svg") == 1 and not list(RUN.glob("*.part"))


def test_while_it_trains_it_says_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "SECONDS", 0.01)
    words = iter(f"{number} steps" for number in range(10**6))
    last = []
    with watch.Watch(tmp_path, "a <b> & c", lambda: (next(words), 0.5), last.append) as page:
        assert "<h1>a &lt;b&gt; &amp; c</h1>" in (tmp_path / "watch.html").read_text()
        seen = set()
        while len(seen) < 3:
            if (tmp_path / "watch.js").exists():
                seen.add((tmp_path / "watch.js").read_text())
        assert all('"done": 0.5' in text and '"over": false' in text for text in seen)
        page.filmed(tmp_path / "policy_7.html")
    assert (
        '"over": true' in (tmp_path / "watch.js").read_text() and "policy_7.html" in (tmp_path / "watch.js").read_text()
    )
    assert last == [f"To watch it, open {tmp_path / 'watch.html'} in a browser."]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["watch.html", "watch.js"])
def test_a_page_that_cannot_be_written_is_given_up(resumed_toy, monkeypatch, capsys, name):
    replace = os.replace

    def full(source, target, **others):
        if os.fspath(target).endswith(name):
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(source, target, **others)

    monkeypatch.setattr(os, "replace", full)
    assert resumed_toy(*LONGER, "--watch", "true") == 0
    out = capsys.readouterr().out
    assert f"{RUN / name} cannot be written (No space left on device): training goes on without it." in out
    assert envsteps() == [60, 100, 120, 140, 160]
