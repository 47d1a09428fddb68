"""Makes the golden values of losses, energies, quasimetrics and the goal law: float64 numpy, loops where clearer.

Each file beside this one, but frontier.npz, holds inputs and what these formulas make of them. Nothing of the project
is imported, so that a mistake there cannot hide here. Run:
    python make_golden.py            # computes all outputs from the stored inputs, writes the files anew
    python make_golden.py --check    # compares; a line for each array that differs, and exit code 1
"""

import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).parent
TOLERANCE = 1e-9  # relative, of each number
EPS = 1e-6  # of MRN, under the square root, so that its gradient is finite at 0
COSINE_SCALE = 1.0  # learned by the agent
REPULSION_SCALE, REPULSION_OFFSET = 100.0, 5.0  # of QRL


def lse(values):
    values = np.asarray(values)
    most = values.max()
    return most + np.log(sum(np.exp(value - most) for value in values))


def softplus(x):
    """-log sigmoid(-x)."""
    return np.logaddexp(0.0, x)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def all_pairs(function, x, y, *options):
    """function(x_i, y_j) of rows, [B, D] x [C, D] -> [B, C]."""
    return np.array([[function(a, b, *options) for b in y] for a in x])


def matched(function, x, y, *options):
    """function(x_i, y_i) of rows, [B, D] x [B, D] -> [B]."""
    return np.array([function(a, b, *options) for a, b in zip(x, y, strict=True)])


# ---- Contrastive losses: logits F [B, B], rows (s, a), columns goals, positives on the diagonal ----------------------


def infonce(logits):
    """-mean_i (F_ii - lse_j F_ij). van den Oord et al., arXiv 1807.03748, Eq. 4; backward: of the transposed logits."""
    return np.mean([lse(row) - row[i] for i, row in enumerate(logits)])


def binary(logits):
    """Mean cross-entropy of telling positives from negatives by sigmoid(F_ij). Eysenbach et al., arXiv 2206.07568."""
    return mean_of_entries(logits, lambda f, _, positive: softplus(-f if positive else f))


def flatnce(logits):
    """mean_i exp(c_i - stopgrad c_i), c_i = lse_j (F_ij - F_ii): the value. Chen et al., arXiv 2107.01152."""
    c = np.array([lse(row - row[i]) for i, row in enumerate(logits)])
    return np.mean(np.exp(c - c))


def flatnce_gradient(logits):
    """By hand: that of mean_i c_i, (softmax_j(F_i)_j - [i = j]) / B."""
    softmax = np.exp(logits - np.array([[lse(row)] for row in logits]))
    return (softmax - np.eye(len(logits))) / len(logits)


def fb(logits):
    """mean_i (-F_ii + sum_{j != i} F_ij^2 / (2 (B - 1))). Touati & Ollivier, arXiv 2103.07945."""
    total = 0.0
    for i, row in enumerate(logits):
        total += -row[i] + 0.5 * sum(f**2 for j, f in enumerate(row) if j != i) / (len(row) - 1)
    return total / len(logits)


def dpo(logits):
    """-mean_ij log sigmoid(F_ii - F_ij). Rafailov et al., arXiv 2305.18290."""
    return mean_of_entries(logits, lambda f, of_positive, _: softplus(f - of_positive))


def ipo(logits):
    """mean_ij (F_ii - F_ij - 1)^2. Azar et al., arXiv 2310.12036."""
    return mean_of_entries(logits, lambda f, of_positive, _: (of_positive - f - 1) ** 2)


def sppo(logits):
    """mean_ij w_ij (F_ij - (2 [i = j] - 1))^2, w = B for positives, else 1. Wu et al., arXiv 2405.00675."""
    weight = len(logits)
    return mean_of_entries(logits, lambda f, _, positive: weight * (f - 1) ** 2 if positive else (f + 1) ** 2)


def mean_of_entries(logits, entry):
    """mean_ij entry(F_ij, F_ii, i = j)."""
    return np.mean([[entry(f, row[i], i == j) for j, f in enumerate(row)] for i, row in enumerate(logits)])


def contrastive(logits):
    return {
        "infonce": infonce(logits),
        "infonce_backward": infonce(logits.T),
        "symmetric_infonce": infonce(logits) + infonce(logits.T),
        "binary": binary(logits),
        "flatnce": flatnce(logits),
        "flatnce_backward": flatnce(logits.T),
        "flatnce_grad": flatnce_gradient(logits),
        "flatnce_backward_grad": flatnce_gradient(logits.T).T,
        "fb": fb(logits),
        "dpo": dpo(logits),
        "ipo": ipo(logits),
        "sppo": sppo(logits),
        "logsumexp_penalty": np.mean([lse(row) ** 2 for row in logits]),  # of weight 1
    }


# ---- Energies: x, y [D] -> [], larger = closer -----------------------------------------------------------------------


def l2(x, y):
    """-|x - y|. Goalax has 1e-6 under the root; the stored values have not, which is 5e-9 of them here."""
    return -np.sqrt(sum((x - y) ** 2))


def l2_squared(x, y):
    """-|x - y|^2, which later releases of JaxGCRL (arXiv 2408.11052) call l2."""
    return -sum((x - y) ** 2)


def l1(x, y):
    """Minus the sum of absolute differences."""
    return -sum(abs(x - y))


def dot(x, y):
    """Inner product."""
    return sum(x * y)


def cosine(x, y):
    """Cosine of the angle between x and y times a scale, as in CLIP, arXiv 2103.00020."""
    return COSINE_SCALE * dot(x, y) / np.sqrt(dot(x, x) * dot(y, y))


def energies(x, y):
    functions = {"l2": l2, "l2_squared": l2_squared, "l1": l1, "dot": dot, "cosine": cosine}
    outputs = {name: matched(function, x, y) for name, function in functions.items()}
    return outputs | {f"pairwise_{name}": all_pairs(function, x, y) for name, function in functions.items()}


# ---- Quasimetrics: x, y [D] -> [] >= 0 -------------------------------------------------------------------------------


def gain(x, y):
    """max_i relu(x_i - y_i)."""
    return max(0.0, *(x - y))


def mrn(x, y, num_components):
    """Per contiguous chunk: `gain` of its first half + sqrt(|x - y|^2 + EPS) of its second; mean over the chunks.

    Liu et al., "Metric Residual Networks for Sample Efficient Goal-Conditioned RL", arXiv 2208.08133.
    """
    size, total = len(x) // num_components, 0.0
    for start in range(0, len(x), size):
        middle, end = start + size // 2, start + size
        total += gain(x[start:middle], y[start:middle])
        total += np.sqrt(sum((x[middle:end] - y[middle:end]) ** 2) + EPS)
    return total / num_components


def mrn_max(x, y, num_components):
    """`gain` of each contiguous chunk, mean over the chunks. Temporal metric distillation, arXiv 2509.20478, Eq. 20."""
    size = len(x) // num_components
    return np.mean([gain(x[start : start + size], y[start : start + size]) for start in range(0, len(x), size)])


def covered(intervals):
    """Length of the union of intervals (a, b): from left to right, what each adds to those before."""
    length, end = 0.0, -np.inf
    for a, b in sorted(intervals):
        length += max(0.0, b - max(a, end))
        end = max(end, b)
    return length


def iqe(x, y, num_components, alpha_raw):
    """Rows of num_components intervals [x_i, y_i] with x_i < y_i: alpha * mean + (1 - alpha) * max of what they cover.

    alpha = sigmoid(alpha_raw). Wang & Isola, "Improved Representation of Asymmetrical Distances with Interval
    Quasimetric Embeddings", arXiv 2211.15120 (IQE-maxmean).
    """
    starts = range(0, len(x), num_components)
    rows = [[(x[i], y[i]) for i in range(start, start + num_components) if x[i] < y[i]] for start in starts]
    lengths, alpha = [covered(row) for row in rows], sigmoid(alpha_raw)
    return alpha * np.mean(lengths) + (1 - alpha) * max(lengths)


def quasimetrics(x, y, num_components, alpha_raw):
    return {
        "mrn": matched(mrn, x, y, num_components),
        "mrn_max": matched(mrn_max, x, y, num_components),
        "iqe": matched(iqe, x, y, num_components, alpha_raw),
        "pairwise_mrn": all_pairs(mrn, x, y, num_components),
        "pairwise_iqe": all_pairs(iqe, x, y, num_components, alpha_raw),
    }


# ---- The loss terms of TMD and QRL, and the goal law -----------------------------------------------------------------


def linex(distance, target, discount, clip):
    """discount * exp(distance - target) - distance up to a difference of clip, above it the difference itself."""
    delta = distance - target
    return discount * np.exp(delta) - distance if delta <= clip else delta


def tmd(phi, psi_s, psi_next, psi_g, num_components, discount, clip, diag_backup):
    """The terms of temporal metric distillation, arXiv 2509.20478, with d = MRN: InfoNCE, invariance, backup.

    contrastive: backward InfoNCE of -d(phi_i, psi_g_j) / sqrt(D). invariance: mean_i d(psi_s_i, phi_i), and over all
    pairs. backup: LINEX divergence of d(phi_i, psi_g_j) from d(psi_next_i, psi_g_j); the mean of the diagonal has the
    weight diag_backup, the mean of all entries, the diagonal among them, the rest.
    """
    distance = all_pairs(mrn, phi, psi_g, num_components)
    target = all_pairs(mrn, psi_next, psi_g, num_components)
    pairs = range(len(distance))
    divergence = np.array([[linex(distance[i, j], target[i, j], discount, clip) for j in pairs] for i in pairs])
    positives = np.mean([divergence[i, i] for i in pairs])
    return {
        "contrastive": infonce(-distance.T / np.sqrt(phi.shape[1])),
        "invariance": np.mean(matched(mrn, psi_s, phi, num_components)),
        "invariance_all_pairs": np.mean(all_pairs(mrn, psi_s, phi, num_components)),
        "backup": diag_backup * positives + (1 - diag_backup) * np.mean(divergence),
        "distance": distance,
    }


def qrl(d_neg, d_pos, lam, eps):
    """The terms of quasimetric RL, arXiv 2304.01203: random pairs apart, one step per transition, the multiplier's loss.

    negative: mean of 100 softplus(5 - d / 100). positive: mean of relu(d - 1)^2. With the multiplier lam the value's
    loss is negative + lam * positive, and the multiplier's own lam * (eps - positive).
    """
    negative = np.mean([REPULSION_SCALE * softplus(REPULSION_OFFSET - d / REPULSION_SCALE) for d in d_neg])
    positive = np.mean([max(0.0, d - 1) ** 2 for d in d_pos])
    return {
        "negative": negative,
        "positive": positive,
        "value_loss": negative + lam * positive,
        "dual_loss": lam * (eps - positive),
    }


def goal_law(discounting, steps_left):
    """P(k) proportional to discounting^k on 1 <= k <= steps_left: the future goals of CRL, arXiv 2206.07568."""
    weights = [discounting**k for k in range(1, int(steps_left) + 1)]
    return {"probability": np.array([weight / sum(weights) for weight in weights])}


# ---- The files -------------------------------------------------------------------------------------------------------

# Name of a file -> names of its inputs, and (inputs) -> outputs.
FILES = {
    "contrastive": (("logits",), contrastive),
    "energies": (("x", "y"), energies),
    "goal_law": (("discounting", "steps_left"), goal_law),
    "qrl": (("d_neg", "d_pos", "lam", "eps"), qrl),
    "quasimetrics": (("x", "y", "num_components", "alpha_raw"), quasimetrics),
    "tmd": (("phi", "psi_s", "psi_next", "psi_g", "num_components", "discount", "clip", "diag_backup"), tmd),
}


def stored(name, folder=HERE):
    """All arrays of a file."""
    with np.load(folder / f"{name}.npz") as file:
        return dict(file)


def made(name, folder=HERE):
    """(inputs, outputs) of a file: the inputs as they are stored, the outputs computed."""
    inputs, function = FILES[name]
    arrays = stored(name, folder)
    given = {key: arrays[key] for key in inputs}
    exact = {key: value if value.dtype.kind == "i" else value.astype(np.float64) for key, value in given.items()}
    return given, {key: np.asarray(value) for key, value in function(**exact).items()}


def differences(name, folder=HERE):
    """A line for each array of a file that is not what the formulas make of its inputs."""
    inputs, outputs = made(name, folder)
    old = {key: value for key, value in stored(name, folder).items() if key not in inputs}
    lines = []
    for key in sorted(old.keys() | outputs.keys()):
        if key not in outputs or key not in old:
            lines.append(f"{name}.npz: {key} is {'stored' if key in old else 'computed'} only")
        elif (old[key].shape, old[key].dtype) != (outputs[key].shape, outputs[key].dtype):
            kinds = [f"{value.dtype}{list(value.shape)}" for value in (old[key], outputs[key])]
            lines.append(f"{name}.npz: {key} is stored as {kinds[0]}, computed as {kinds[1]}")
        else:
            error = np.abs(outputs[key] - old[key])
            if not np.all(error <= TOLERANCE * np.abs(outputs[key])):  # true of nan as well
                worst = np.max(error / np.maximum(np.abs(outputs[key]), np.finfo(float).tiny))
                lines.append(f"{name}.npz: {key} differs by {worst:.1e}, relative")
    return lines


def write(name, folder=HERE):
    """Computes a file anew and writes it, its inputs as they are."""
    inputs, outputs = made(name, folder)
    np.savez(folder / f"{name}.npz", **inputs, **outputs)


def main(argv, folder=HERE):
    if argv not in ([], ["--check"]):
        print("usage: python make_golden.py [--check]", file=sys.stderr)
        return 2
    if not argv:
        for name in FILES:
            write(name, folder)
        return 0
    lines = [line for name in FILES for line in differences(name, folder)]
    print("\n".join(lines) if lines else f"{len(FILES)} files are what the formulas make of their inputs")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
