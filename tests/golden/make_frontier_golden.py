"""Golden values of the 2026 frontier agents: float64 numpy, loops where they are clearer than array tricks.

Writes frontier.npz beside this file: names are SECTION/in/NAME and SECTION/out/NAME. Formulas: frontier.md. Run:
    python make_frontier_golden.py
"""

import pathlib

import numpy as np

rng = np.random.default_rng(20261127)
store = {}


def put(section, inputs, outputs):
    for side, values in (("in", inputs), ("out", outputs)):
        for name, value in values.items():
            store[f"{section}/{side}/{name}"] = np.asarray(value)


def log_sigmoid(x):
    return -np.logaddexp(0.0, -x)


def softplus(x):
    return np.logaddexp(0.0, x)


# ---- AC-CRL: chunks, their validity, the masked InfoNCE, the target entropy ----------------------------------------


def chunks(episode, action, horizon):
    """episode [T] ids, action [T, A] -> chunk [T, H * A] (zeros where it leaves episode or array), valid [T]."""
    T, A = action.shape
    chunk, valid = np.zeros((T, horizon, A)), np.zeros(T, bool)
    for t in range(T):
        inside = [t + i < T and episode[t + i] == episode[t] for i in range(horizon)]
        valid[t] = all(inside)
        for i, ok in enumerate(inside):
            if ok:
                chunk[t, i] = action[t + i]
    return chunk.reshape(T, -1), valid


def masked_infonce(distance, positive, penalty):
    """distance [B, B], positive [B] 0/1: mean over positives of d_ii + lse_j(-d_ij), plus penalty * mean lse^2 (all rows)."""
    lse = np.log(np.sum(np.exp(-distance), axis=1))
    nce = np.sum(positive * (np.diagonal(distance) + lse)) / max(np.sum(positive), 1.0)
    return nce, nce + penalty * np.mean(lse**2)


episode = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 3])
action = rng.uniform(-1, 1, (12, 2))
for horizon in (1, 2, 3):
    chunk, valid = chunks(episode, action, horizon)
    put(
        f"ac_crl/chunk{horizon}",
        {"episode": episode, "action": action, "horizon": horizon},
        {"chunk": chunk, "valid": valid, "target_entropy": -0.5 * 2 * horizon},
    )
phi, psi = rng.normal(size=(6, 4)), rng.normal(size=(6, 4))
distance = np.sqrt(((phi[:, None] - psi[None]) ** 2).sum(-1) + 1e-12)
positive = np.array([1, 1, 0, 1, 0, 1.0])
nce, total = masked_infonce(distance, positive, 0.1)
put(
    "ac_crl/infonce",
    {"phi": phi, "psi": psi, "positive": positive, "logsumexp_penalty": 0.1},
    {"distance": distance, "infonce": nce, "loss": total},
)

# ---- SRL: bins, labels, hazard likelihood, value ----------------------------------------------------------------------


def geometric_edges(horizon, bins):
    if bins <= 0 or bins >= horizon:
        return np.arange(horizon + 1)
    edges = np.rint((horizon ** (1 / bins)) ** np.arange(bins + 1)).astype(int)
    return np.unique(np.concatenate([[0, horizon], np.clip(edges, 0, horizon)]))


def bin_weights(edges, gamma):
    """D_k = sum of gamma^t over edges[k] <= t < edges[k + 1]."""
    return np.array([sum(gamma**t for t in range(a, b)) for a, b in zip(edges[:-1], edges[1:])])


def first_hit(episode, achieved, goal, radius, horizon):
    """Per row t with goal[t]: event, tau (0 where already there, horizon where never later in the same episode)."""
    T = len(episode)
    event, tau = np.zeros(T, bool), np.full(T, horizon)
    for t in range(T):
        for j in range(t, T):
            if episode[j] == episode[t] and np.linalg.norm(achieved[j] - goal[t]) <= radius:
                event[t], tau[t] = True, min(j - t, horizon)
                break
    return event, tau


def hazard(logit0, logits):
    """log S at the start of each bin [B, K], and log S after the last one [B]."""
    after = np.cumsum(log_sigmoid(-logits), axis=1)
    before = np.concatenate([np.zeros((len(logits), 1)), after[:, :-1]], axis=1)
    return log_sigmoid(-logit0)[:, None] + before, log_sigmoid(-logit0) + after[:, -1]


def survival_nll(logit0, logits, edges, event, tau, censor):
    log_start, _ = hazard(logit0, logits)
    K, out = logits.shape[1], np.zeros(len(logit0))
    for b in range(len(logit0)):
        if event[b]:
            k = np.clip(np.searchsorted(edges, tau[b], side="right") - 1, 0, K - 1)
            out[b] = log_sigmoid(logit0[b]) if tau[b] == 0 else log_start[b, k] + log_sigmoid(logits[b, k])
        else:
            edge = np.clip(np.searchsorted(edges, censor[b], side="left"), 0, K)
            out[b] = log_sigmoid(-logit0[b]) + sum(log_sigmoid(-logits[b, j]) for j in range(edge))
    return -out


def survival_value(logit0, logits, edges, gamma):
    log_start, _ = hazard(logit0, logits)
    return -np.sum(np.exp(log_start) * bin_weights(edges, gamma), axis=1)


achieved = np.cumsum(rng.normal(scale=0.4, size=(12, 2)), axis=0)
goal_row = np.array([2, 3, 3, 2, 5, 5, 10, 9, 8, 1, 10, 11])  # 9 -> row 1 lies in another episode
event, tau = first_hit(episode, achieved, achieved[goal_row], 0.5, 6)
put(
    "srl/labels",
    {"episode": episode, "achieved": achieved, "goal": achieved[goal_row], "radius": 0.5, "horizon": 6},
    {"event": event, "tau": tau},
)
for name, edges in (("unit", np.arange(7)), ("geometric", geometric_edges(20, 6))):
    K, H = len(edges) - 1, int(edges[-1])
    logit0, logits = rng.normal(size=8) - 1, rng.normal(size=(8, K)) - 1
    ev = np.array([1, 1, 1, 0, 0, 1, 0, 1.0])
    ta = np.array([0, 1, H, H, H, 3, H, H - 1])
    ce = np.array([H, H, H, H, 0, H, 4, H])
    log_start, log_end = hazard(logit0, logits)
    mass = np.exp(log_start + log_sigmoid(logits)).sum(1) + np.exp(log_sigmoid(logit0)) + np.exp(log_end)
    assert np.allclose(mass, 1)
    nll, valid = survival_nll(logit0, logits, edges, ev, ta, ce), np.array([1, 1, 0, 1, 1, 1, 1, 0.0])
    put(
        f"srl/{name}",
        {
            "edges": edges,
            "logit0": logit0,
            "logits": logits,
            "event": ev,
            "tau": ta,
            "censor": ce,
            "valid": valid,
            "gamma": 0.9,
        },
        {
            "weights": bin_weights(edges, 0.9),
            "log_survival_start": log_start,
            "log_survival_end": log_end,
            "nll": nll,
            "loss": np.sum(valid * nll) / max(valid.sum(), 1),
            "value": survival_value(logit0, logits, edges, 0.9),
        },
    )
put("srl/edges", {"horizon": 1000, "bins": 32}, {"edges": geometric_edges(1000, 32)})  # 31 edges: 30 bins, not 32

# low-rank time head after the trunk, and the fusion before it
z_sa, z_g, h = rng.normal(size=(3, 4)), rng.normal(size=(3, 4)), rng.normal(size=(3, 5))
film, film_b = rng.normal(size=(4, 8)), rng.normal(size=8)
coeff, coeff_b, basis, bias = rng.normal(size=(5, 2)), rng.normal(size=2), rng.normal(size=(6, 2)), rng.normal(size=6)
scale_shift = z_g @ film + film_b
z = (1 + 0.1 * scale_shift[:, :4]) * z_sa + 0.1 * scale_shift[:, 4:]
put(
    "srl/head",
    {
        "z_sa": z_sa,
        "z_g": z_g,
        "film_kernel": film,
        "film_bias": film_b,
        "trunk": h,
        "coeff_kernel": coeff,
        "coeff_bias": coeff_b,
        "time_basis": basis,
        "time_bias": bias,
    },
    {"fused": np.concatenate([z, z_g, z - z_g, z * z_g], axis=1), "logits": (h @ coeff + coeff_b) @ basis.T + bias},
)

# ---- ChronoSRL: time regression, separation, occupancy, actor value ----------------------------------------------------


def occupancy_labels(episode, achieved, goal, terminal, radius, radii, edges):
    """Mean of the nested-region indicators per bin of steps ahead, and whether the bin was observed.

    terminal: {last row of an episode: True for a termination, False for a time limit or the end of what is stored}.
    A step ahead k >= 1 is observed while the episode lasts, and after a termination (where it is 0); not after a
    truncation. Rows past the array are never observed. Offset 0 is never counted.
    """
    T, K = len(episode), len(edges) - 1
    value, mask = np.zeros((T, K)), np.zeros((T, K))
    for t in range(T):
        last = max(j for j in range(T) if episode[j] == episode[t])
        for k in range(K):
            seen, hits = 0, 0.0
            for ahead in range(max(edges[k], 1), edges[k + 1]):
                j = t + ahead
                if j >= T:
                    continue
                if j <= last:
                    seen += 1
                    gap = np.linalg.norm(achieved[j] - goal[t])
                    hits += sum(gap <= radius * 0.5**i for i in range(radii)) / radii
                elif terminal[last]:
                    seen += 1
            value[t, k], mask[t, k] = hits / max(seen, 1), float(seen > 0)
    return value, mask


kappa, window = -np.log(0.999), 1000
B = 6
phi, psi = 0.4 * rng.normal(size=(B, 4)), 0.4 * rng.normal(size=(B, 4))  # half of all pairs within the window
goal = np.array([[0, 0], [0.2, 0.1], [3, 0], [0, 4], [5, 5], [9, 1.0]])  # 0 and 1 are nearer than the radius
tau = np.array([3, 0, 120, 1000, 1000, 700])
event, valid = np.array([1, 1, 1, 0, 0, 1.0]), np.array([1, 1, 1, 1, 0, 0.0])
distance = np.sqrt(((phi[:, None] - psi[None]) ** 2).sum(-1) + 1e-12)
residual = np.diagonal(distance) - kappa * tau
huber = np.where(np.abs(residual) <= 1, 0.5 * residual**2, np.abs(residual) - 0.5)
reached = event * valid * (tau >= 1)
time_loss = np.sum(reached * huber) / max(reached.sum(), 1)
hinge = np.maximum(0, kappa * window - distance)
apart = np.sqrt(((goal[:, None] - goal[None]) ** 2).sum(-1) + 1e-12) > 0.5
pairs, censored = (1 - np.eye(B)) * apart, (1 - event) * valid
separation = (np.sum(pairs * hinge) + np.sum(censored * np.diagonal(hinge))) / max(pairs.sum() + censored.sum(), 1)
put(
    "chronosrl/geometry",
    {
        "phi": phi,
        "psi": psi,
        "goal": goal,
        "radius": 0.5,
        "tau": tau,
        "event": event,
        "valid": valid,
        "gamma": 0.999,
        "window": window,
    },
    {
        "distance": distance,
        "huber": huber,
        "time_loss": time_loss,
        "hinge": hinge,
        "pairs": pairs,
        "separation_loss": separation,
    },
)
edges = np.array([0, 1, 2, 4, 8])
terminal = {3: True, 5: False, 10: True, 11: False}
value, mask = occupancy_labels(episode, achieved, achieved[goal_row], terminal, 0.8, 3, edges)
terminates = np.array([terminal[max(j for j in range(12) if episode[j] == e)] for e in episode], float)
put(
    "chronosrl/occupancy_labels",
    {
        "episode": episode,
        "achieved": achieved,
        "goal": achieved[goal_row],
        "radius": 0.8,
        "radii": 3,
        "edges": edges,
        "terminates": terminates,
    },
    {"occupancy": value, "mask": mask},
)
logits, valid = rng.normal(size=(12, 4)), rng.integers(0, 2, 12).astype(float)
logit0, hazards = rng.normal(size=12), rng.normal(size=(12, 8)) - 1
weight = mask * valid[:, None]
occupancy_loss = np.sum(weight * (softplus(logits) - logits * value)) / max(weight.sum(), 1)
weights = bin_weights(edges, 0.9)
weights[0] = 0  # offset 0 counts nowhere
beta = np.sum(terminates * valid) / max(valid.sum(), 1)
q = survival_value(logit0, hazards, np.arange(9), 0.9) + beta * np.sum(weights / (1 + np.exp(-logits)), axis=1)
put(
    "chronosrl/occupancy",
    {
        "logits": logits,
        "occupancy": value,
        "mask": mask,
        "valid": valid,
        "terminates": terminates,
        "logit0": logit0,
        "hazard_logits": hazards,
        "edges": edges,
        "gamma": 0.9,
    },
    {"occupancy_loss": occupancy_loss, "beta": beta, "weights": weights, "actor_value": q},
)

# ---- MQE: n-step quasimetric backup ------------------------------------------------------------------------------------


def backup(d, d_way, steps, gamma, clip, diagonal):
    """LINEX divergence of d [B, B] from steps [B] * log(1 / gamma) + d_way [B, B]; diagonal: extra weight of positives."""
    delta = d - d_way
    div = np.where(delta > clip, delta, gamma ** steps[:, None] * np.exp(np.minimum(delta, clip)) - d)
    return div, (1 - diagonal) * div.mean() + diagonal * np.diagonal(div).mean()


d, d_way = rng.uniform(0, 8, (5, 5)), rng.uniform(0, 4, (5, 5))
steps, ahead = np.array([1, 7, 20, 1, 3]), np.array([4, 7, 60, 1, 9])
d_self = rng.uniform(0, 1, 5)
div, loss = backup(d, d_way, steps, 0.995, 5.0, 0.5)
assert (d - d_way > 5).any()
put(
    "mqe",
    {"d": d, "d_way": d_way, "steps": steps, "gamma": 0.995, "clip": 5.0, "diagonal": 0.5, "d_state_to_action": d_self},
    {"divergence": div, "backup_loss": loss, "invariance_loss": np.mean((np.exp(-d_self) - 1) ** 2)},
)
uniform, bernoulli = rng.uniform(size=5), np.array([True, False, False, True, False])
geometric = 1 + np.floor(np.log1p(-uniform) / np.log(0.95)).astype(int)  # P(k) ~ 0.95^k on k >= 1
put(
    "mqe/waypoint",
    {"uniform": uniform, "one_step": bernoulli, "ahead": ahead, "lambda": 0.95},
    {"steps": np.where(bernoulli, 1, np.minimum(geometric, ahead))},
)

# ---- scaling-crl: the residual network ------------------------------------------------------------------------------------


def layer_norm(x, scale, bias):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-6) * scale + bias


def swish(x):
    return x / (1 + np.exp(-x))


def trunk(x, weights, depth):
    """One layer, then depth // 4 blocks x + layer^4(x); a layer is swish(LayerNorm(dense))."""
    layers = iter(weights)

    def layer(x):
        w, b, scale, bias = next(layers)
        return swish(layer_norm(x @ w + b, scale, bias))

    x = layer(x)
    for _ in range(depth // 4):
        y = x
        for _ in range(4):
            y = layer(y)
        x = x + y
    return x


for depth in (4, 8):
    width, F, D, A = 6, 5, 3, 2
    sizes = [F] + [width] * (depth + 1)
    weights = [
        (
            rng.uniform(-1, 1, (i, o)) / np.sqrt(i),
            0.1 * rng.normal(size=o),
            1 + 0.1 * rng.normal(size=o),
            0.1 * rng.normal(size=o),
        )
        for i, o in zip(sizes[:-1], sizes[1:])
    ]
    last, mean_w, std_w = (rng.normal(size=(width, o)) / 3 for o in (D, A, A))
    last_b, mean_b, std_b = (0.1 * rng.normal(size=o) for o in (D, A, A))
    x = rng.normal(size=(4, F))
    t = trunk(x, weights, depth)
    given = {
        "x": x,
        "depth": depth,
        "last_kernel": last,
        "last_bias": last_b,
        "mean_kernel": mean_w,
        "mean_bias": mean_b,
        "log_std_kernel": std_w,
        "log_std_bias": std_b,
    }
    for i, (w, b, s, c) in enumerate(weights):
        given |= {f"layer{i}_kernel": w, f"layer{i}_bias": b, f"layer{i}_ln_scale": s, f"layer{i}_ln_bias": c}
    put(
        f"scaling_crl/depth{depth}",
        given,
        {
            "trunk": t,
            "representation": t @ last + last_b,
            "mean": t @ mean_w + mean_b,
            "log_std": -5 + 3.5 * (np.tanh(t @ std_w + std_b) + 1),
        },
    )

# ---- the goal mix of SRL and ChronoSRL: probability of every row as the future goal of row t ------------------------------
prob = np.zeros((12, 12))
for t in range(12):
    later = [j for j in range(t + 1, 12) if episode[j] == episode[t]]
    w = np.array([0.9 ** (j - t) for j in later])
    prob[t, later if later else t] = w / w.sum() if later else 1.0
put("goals/future", {"episode": episode, "gamma": 0.9}, {"probability": prob})

path = pathlib.Path(__file__).with_name("frontier.npz")
np.savez(path, **store)
print(path, len(store), "arrays", path.stat().st_size, "bytes")
