"""Made-up run directories with known numbers, for the tests that compare runs."""

import csv
import json

EPISODE = 10
FLAGS = {"env_name": "toy", "eval_env": "toy", "agent": "crl", "exp_name": "x", "group_name": None, "batch_size": 8}
STEPS = (60, 100, 120)


def make_run(directory, seed, final, steps=STEPS, agent_flags=None, falls=None, updates=None, **flags):
    """A run whose scores rise to `final` at the last step: [time near the goal, episodes that reach it].

    falls: the share of episodes that end early, at all steps; None: a version that did not tell it.
    updates: those on a dataset so far, one number per row; None: of a run without a dataset.
    """
    directory.mkdir(parents=True)
    flags = {**FLAGS, "episode_length": EPISODE, "seed": seed, **flags}
    origin = {"versions": {"jax": "1.2"}, "device": "1 x cpu (cpu)", "git_commit": f"{seed % 2}" * 40 + "-dirty"}
    content = {"flags": flags, "agent_flags": agent_flags or {"h_dim": 8}, **origin}
    (directory / "config.json").write_text(json.dumps(content))
    near, reached = final
    with (directory / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        names = ("training/envsteps", "training/walltime", "eval/episode_success", "eval/episode_success_any")
        more = {} if falls is None else {"eval/falls": [falls] * len(steps)}
        more |= {} if updates is None else {"training/offline_updates": updates}
        writer.writerow([*names, "eval/final_dist", *more])
        for index, step in enumerate(steps, start=1):
            part = index / len(steps)
            row = [step, 60.0 * index, EPISODE * near * part, reached * part, 2 - part]
            writer.writerow([*row, *(values[index - 1] for values in more.values())])
    return directory
