"""scripts/baselines.py: which commands are left, and the tables that it writes from runs."""

import re
import shlex

import pytest

from goalax.commands import baselines
from goalax.host.config import read_flags
from goalax.study import markdown
from tests.helpers import ROOT
from tests.helpers.experiments import make_run

STEPS = {"num_timesteps": 120}


def three_seeds(folder, env, name, final, **flags):
    for seed in range(3):
        make_run(folder / f"{name}_s{seed}", seed, final[seed], env_name=env, exp_name=name, **{**STEPS, **flags})


@pytest.mark.parametrize("env", baselines.ENVS)
def test_every_command_is_one_of_training(env):
    names = set()
    for words, name in baselines.rows(env).items():
        python, script, *flags = shlex.split(baselines.command(env, words))
        config, agent_config = read_flags(flags)
        assert (python, script, config.env_name) == ("python", "training.py", env)
        assert (config.exp_name, config.group_name, config.num_seeds) == (name, "baselines", 3)
        assert config.agent == words.split()[0] and getattr(agent_config, "use_her", False) == name.endswith("_her")
        names.add(name)
    assert len(names) == 11


def test_what_is_left(tmp_path, capsys):
    three_seeds(tmp_path, "reacher", "reacher_crl", [(0.5, 1.0)] * 3)  # finished
    three_seeds(tmp_path, "reacher", "reacher_tmd", [(0.5, 1.0)] * 3, num_timesteps=200)  # stopped at 120
    make_run(tmp_path / "reacher_cmd_s0", 0, (0.5, 1.0), env_name="reacher", exp_name="reacher_cmd", **STEPS)
    three_seeds(tmp_path, "reacher", "reacher_sac_her", [(0.5, 1.0)] * 3, num_timesteps=200)
    for seed in range(3):
        (tmp_path / f"reacher_sac_her_s{seed}" / "checkpoints" / "120").mkdir(parents=True)
    assert baselines.main([str(tmp_path), "--commands"]) == 0
    commands = {re.search(r"--exp_name (\w+)", line)[1]: line for line in capsys.readouterr().out.splitlines()}
    assert len(commands) == 21 and "reacher_crl" not in commands
    assert [name for name, line in commands.items() if "--resume" in line] == ["reacher_sac_her"]
    assert {"reacher_tmd", "reacher_cmd"} <= commands.keys()


def test_nothing_is_left(tmp_path, capsys):
    for env in baselines.ENVS:
        for name in baselines.rows(env).values():
            three_seeds(tmp_path, env, name, [(0.5, 1.0)] * 3)
    assert baselines.main([str(tmp_path), "--commands"]) == 0
    assert capsys.readouterr().out.strip() == ""


def test_tables_are_replaced(tmp_path, capsys):
    three_seeds(tmp_path / "runs", "reacher", "reacher_crl", [(0.1, 0.4), (0.2, 0.5), (0.6, 0.9)])
    three_seeds(tmp_path / "runs", "reacher", "reacher_tmd", [(0.1, 0.4)] * 3, num_timesteps=200)
    text = "a\n" + "".join("old\n".join(markdown.marks(env, "baselines.py")) + "b\n" for env in baselines.ENVS)
    (tmp_path / "x.md").write_text(text)
    for _ in range(2):  # the second time replaces what the first one wrote
        assert baselines.main([str(tmp_path / "runs"), "--out", str(tmp_path / "x.md")]) == 0
    written = (tmp_path / "x.md").read_text()
    assert "old" not in written and written.startswith("a\n") and written.count("b\n<!--") == 1
    lines = written.splitlines()
    assert lines.count("| `crl` | 0.60 (0.40 to 0.90) | 0.30 (0.10 to 0.60) | 120 | 0:03:00 |") == 1
    assert lines.count("| `tmd` | 0.40 (0.40 to 0.40) | 0.10 (0.10 to 0.10) | 120 (not finished) | 0:03:00 |") == 1
    assert written.count("not run") == 20 and lines.count("| `sac --use_her` | not run |  |  |  |") == 2
    for env in baselines.ENVS:
        assert lines.count(baselines.command(env, "sac --use_her")) == 1


@pytest.mark.parametrize(("out", "words"), [("no.md", "there is no such file"), ("empty.md", "without a place")])
def test_one_sentence_for_a_wrong_file(out, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.md").write_text("")
    assert baselines.main(["--out", out]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_the_document_has_its_tables_and_names_every_row():
    text = (ROOT / "docs" / "baselines.md").read_text()
    for env in baselines.ENVS:
        start, end = markdown.marks(env, "baselines.py")
        table = text.split(start)[1].split(end)[0]
        assert [line.split("` |")[0].removeprefix("| `") for line in table.splitlines()[2:13]] == [
            words.split(" --num")[0] for words in baselines.rows(env)
        ], "run scripts/baselines.py"
        assert all(baselines.command(env, words) in table for words in baselines.rows(env))
