"""Makes the golden values of TD-MPC2 and of speculative execution: float64 numpy, from the formulas, nothing of Goalax.

python make_planning_golden.py            # writes the files beside it anew
python make_planning_golden.py --check    # compares; a line for each array that differs, and exit code 1
"""

import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).parent


def softmax(x):
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def symlog(x):
    return np.sign(x) * np.log1p(np.abs(x))


def symexp(x):
    return np.sign(x) * np.expm1(np.abs(x))


def simnorm():
    """Softmax in groups of 8. arXiv 2310.16828, section 3.1."""
    x = 3 * np.random.default_rng(132).normal(size=(4, 32))
    return {"x": x, "group": 8, "y": softmax(x.reshape(4, 4, 8)).reshape(4, 32)}


def two_hot():
    """The two bins around symlog(x), one number after the other. arXiv 2310.16828."""
    rng, bins, low, high = np.random.default_rng(131), 101, -10.0, 10.0
    x = np.concatenate([[0.0, 1.0, -1.0, 0.05, 30000.0, -30000.0, 22025.0], 100 * rng.normal(size=9)])
    logits = rng.normal(size=(len(x), bins))
    target = np.zeros((len(x), bins))
    for weights, number in zip(target, np.clip(symlog(x), low, high), strict=True):
        place = (number - low) / (high - low) * (bins - 1)
        first = int(np.floor(place))
        weights[first] += 1 - (place - first)
        weights[(first + 1) % bins] += place - first
    grid = np.linspace(low, high, bins)
    return {
        "x": x,
        "bins": bins,
        "low": low,
        "high": high,
        "symlog": symlog(x),
        "target": target,
        "decoded_target": symexp(target @ grid),
        "logits": logits,
        "decoded_logits": symexp(softmax(logits) @ grid),
        "soft_cross_entropy": -np.sum(target * np.log(softmax(logits)), -1),
    }


def mppi():
    """One iteration: returns of sequences [H, N, A], elites, their weights, mean and deviation. arXiv 2203.04955."""
    rng, steps, num, elites = np.random.default_rng(133), 3, 16, 4
    temperature, low, high, gamma = 0.5, 0.05, 2.0, 0.95
    actions = np.clip(rng.normal(size=(steps, num, 2)), -1, 1)
    rewards, terminal_value = rng.normal(size=(steps, num)), 3 * rng.normal(size=num)
    value = sum(gamma**t * rewards[t] for t in range(steps)) + gamma**steps * terminal_value
    elite = np.argsort(-value, kind="stable")[:elites]
    score = softmax(temperature * value[elite])
    mean = np.einsum("n,hna->ha", score, actions[:, elite])
    std = np.sqrt(np.einsum("n,hna->ha", score, (actions[:, elite] - mean[:, None]) ** 2))
    return {
        "actions": actions,
        "rewards": rewards,
        "terminal_value": terminal_value,
        "gamma": gamma,
        "temperature": temperature,
        "num_elites": elites,
        "min_std": low,
        "max_std": high,
        "value": value,
        "elite": elite,
        "score": score,
        "mean": mean,
        "std": np.clip(std, low, high),
    }


def percentile_scale():
    """A slow mean of max(95th - 5th percentile, 1). arXiv 2310.16828; arXiv 2301.04104."""
    q = 20 * np.random.default_rng(134).normal(size=40)
    spread = max(np.percentile(q, 95) - np.percentile(q, 5), 1.0)
    return {"q": q, "before": 3.0, "tau": 0.01, "spread": spread, "after": 3.0 + 0.01 * (spread - 3.0)}


def speculation():
    """What each decision of one environment is: 0 a plan, 1 its next action, 2 an extension, 3 a plan after a miss."""
    rng, plan, threshold = np.random.default_rng(135), 3, 0.5
    distance, out = np.abs(0.35 * rng.normal(size=40)), {}
    for execute in (1, 3, 6):
        kinds, steps, step, left = [], [], 0, 0
        for dist in distance:
            none = left == 0
            miss = not none and dist > threshold
            if none or miss:
                step, left = 0, execute
            kinds.append(0 if none else 3 if miss else 1 if step < plan else 2)
            steps.append(step)
            step, left = step + 1, left - 1
        out |= {f"kind_{execute}": np.array(kinds), f"step_{execute}": np.array(steps)}
    return {"distance": distance, "threshold": threshold, "plan_horizon": plan, **out}


FILES = {function.__name__: function for function in (simnorm, two_hot, mppi, percentile_scale, speculation)}


def differences(name, folder=HERE):
    """A line for each array of a file that is not what the formulas make."""
    made = FILES[name]()
    with np.load(folder / f"{name}.npz") as file:
        stored = dict(file)
    lines = [f"{name}.npz: {key} is stored or computed only" for key in sorted(stored.keys() ^ made.keys())]
    both = sorted(stored.keys() & made.keys())
    return lines + [f"{name}.npz: {k} differs" for k in both if not np.allclose(stored[k], made[k], 1e-9, 1e-12)]


def main(argv, folder=HERE):
    if argv not in ([], ["--check"]):
        print("usage: python make_planning_golden.py [--check]", file=sys.stderr)
        return 2
    if not argv:
        for name, function in FILES.items():
            np.savez(folder / f"{name}.npz", **function())
        return 0
    lines = [line for name in FILES for line in differences(name, folder)]
    print("\n".join(lines) if lines else f"{len(FILES)} files are what the formulas make")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
