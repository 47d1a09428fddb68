"""Float64 reference values for the offline losses: fixed random inputs beside outputs, one npz per loss.

Every function here is written from its formula in plain numpy, takes arrays only (what
networks would give), and uses no randomness: noises, times and indices are inputs. Run it with any numpy; it writes
into the directory given (default: where it lies). `python make_offline_golden.py --check` recomputes and compares.
"""

import sys
from pathlib import Path

import numpy as np

F = np.float64
OUT: dict[str, dict[str, np.ndarray]] = {}


def rng(seed):
    return np.random.default_rng(seed)


def save(name, seed, **arrays):
    OUT[name] = {"seed": np.int64(seed), **{k: np.asarray(v) for k, v in arrays.items()}}


# ---- shared pieces -----------------------------------------------------------------------------------------------


def expectile_weight(advantage, tau):
    return np.where(advantage >= 0, tau, 1 - tau)


def expectile_loss(advantage, difference, tau):
    """mean of |tau - [advantage < 0]| difference^2; advantage and difference may differ (double estimator)."""
    return np.mean(expectile_weight(advantage, tau) * difference**2)


def awr_weight(advantage, alpha, cap=100.0):
    return np.minimum(np.exp(alpha * advantage), cap)


def gaussian_log_density(action, mean, std=1.0):
    """Diagonal Gaussian, no tanh, [B, A] -> [B]."""
    z = (action - mean) / std
    return np.sum(-0.5 * z**2 - np.log(std) - 0.5 * np.log(2 * np.pi), axis=-1)


def logsumexp(x, axis):
    m = np.max(x, axis=axis, keepdims=True)
    return np.squeeze(m, axis) + np.log(np.sum(np.exp(x - m), axis=axis))


def softmax(x, axis=-1):
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return e / np.sum(e, axis=axis, keepdims=True)


# ---- expectile, AWR, DDPG+BC --------------------------------------------------------------------------------------


def golden_expectile():
    r = rng(100)
    adv, diff = r.normal(size=16), r.normal(size=16)
    adv[3] = 0.0  # the boundary counts as positive
    taus = np.array([0.5, 0.7, 0.9, 0.99])
    save(
        "expectile",
        100,
        advantage=adv,
        difference=diff,
        taus=taus,
        weight=np.stack([expectile_weight(adv, t) for t in taus]),
        loss_two_arguments=[expectile_loss(adv, diff, t) for t in taus],
        loss_one_argument=[expectile_loss(diff, diff, t) for t in taus],
    )


def golden_awr():
    r = rng(101)
    adv = 0.5 * r.normal(size=16)
    adv[0], adv[1] = 5.0, -5.0  # the cap, and almost nothing
    mean, action = np.tanh(r.normal(size=(16, 3))), np.tanh(r.normal(size=(16, 3)))
    alphas = np.array([1.0, 3.0, 10.0])
    logp = gaussian_log_density(action, mean)
    save(
        "awr",
        101,
        advantage=adv,
        mean=mean,
        action=action,
        alphas=alphas,
        log_density=logp,
        weight=np.stack([awr_weight(adv, a) for a in alphas]),
        loss=[-np.mean(awr_weight(adv, a) * logp) for a in alphas],
    )


def golden_ddpg_bc():
    r = rng(102)
    q1, q2 = -20 + 5 * r.normal(size=16), -20 + 5 * r.normal(size=16)
    mean, action = r.normal(size=(16, 3)), np.tanh(r.normal(size=(16, 3)))
    alpha = 0.3
    q = np.minimum(q1, q2)
    logp = gaussian_log_density(action, mean)
    q_loss, bc_loss = -np.mean(q) / (np.mean(np.abs(q)) + 1e-6), -alpha * np.mean(logp)
    save(
        "ddpg_bc",
        102,
        q1=q1,
        q2=q2,
        mean=mean,
        action=action,
        alpha=alpha,
        clipped_action=np.clip(mean, -1, 1),
        q_loss=q_loss,
        bc_loss=bc_loss,
        loss=q_loss + bc_loss,
    )


# ---- goal-conditioned -----------------------------------------------------------------------------------------------


def sparse_goal_reward(same, negative=True):
    """same [B] bool: the goal IS the sampled state (equal rows). -> (reward, mask)."""
    s = same.astype(F)
    return s - (1.0 if negative else 0.0), 1.0 - s


def ivl_loss(reward, mask, v_target, v_next_target, v, tau, gamma):
    """GCIVL, HIQL, HILP: v_target, v_next_target, v are [2, B]. Weights from the target networks, targets per member."""
    q = reward + gamma * mask * np.min(v_next_target, axis=0)
    advantage = q - np.mean(v_target, axis=0)
    targets = reward + gamma * mask * v_next_target  # [2, B], member i bootstraps from member i
    return sum(expectile_loss(advantage, targets[i] - v[i], tau) for i in (0, 1)), advantage, targets


def golden_gcivl():
    r = rng(110)
    B, gamma, tau, alpha = 16, 0.99, 0.9, 10.0
    same = r.random(B) < 0.2
    reward, mask = sparse_goal_reward(same)
    vt, vnt, v = (-10 + 3 * r.normal(size=(2, B)) for _ in range(3))
    loss, advantage, targets = ivl_loss(reward, mask, vt, vnt, v, tau, gamma)
    va, vna = (-10 + 0.2 * r.normal(size=(2, B)) for _ in range(2))  # online networks at the actor's goals
    adv_actor = np.mean(vna, 0) - np.mean(va, 0)
    save(
        "gcivl",
        110,
        same=same,
        reward=reward,
        mask=mask,
        v_target=vt,
        v_next_target=vnt,
        v=v,
        gamma=gamma,
        tau=tau,
        advantage=advantage,
        targets=targets,
        value_loss=loss,
        actor_v=va,
        actor_v_next=vna,
        alpha=alpha,
        actor_advantage=adv_actor,
        actor_weight=awr_weight(adv_actor, alpha),
    )


def golden_gciql():
    r = rng(111)
    B, gamma, tau = 16, 0.99, 0.9
    same = r.random(B) < 0.2
    reward, mask = sparse_goal_reward(same)
    qt, q = (-10 + 3 * r.normal(size=(2, B)) for _ in range(2))
    v, v_next = (-10 + 3 * r.normal(size=B) for _ in range(2))
    diff = np.min(qt, axis=0) - v
    target = reward + gamma * mask * v_next
    save(
        "gciql",
        111,
        same=same,
        reward=reward,
        mask=mask,
        q_target=qt,
        q=q,
        v=v,
        v_next=v_next,
        gamma=gamma,
        tau=tau,
        value_loss=expectile_loss(diff, diff, tau),
        target=target,
        critic_loss=np.mean((q[0] - target) ** 2 + (q[1] - target) ** 2),
    )


def golden_hiql():
    r = rng(112)
    B, R, low_alpha, high_alpha = 12, 10, 3.0, 3.0
    v_low, v_low_next = (-8 + 0.3 * r.normal(size=(2, B)) for _ in range(2))  # V(s, w), V(s', w)
    v_high, v_high_sub = (-20 + 0.5 * r.normal(size=(2, B)) for _ in range(2))  # V(s, g), V(w, g)
    raw = r.normal(size=(B, R))  # subgoal representation before its length is fixed
    rep = raw / np.linalg.norm(raw, axis=-1, keepdims=True) * np.sqrt(R)
    high_mean = r.normal(size=(B, R))
    low_mean, action = r.normal(size=(B, 3)), np.tanh(r.normal(size=(B, 3)))
    low_adv = np.mean(v_low_next, 0) - np.mean(v_low, 0)
    high_adv = np.mean(v_high_sub, 0) - np.mean(v_high, 0)
    low_logp, high_logp = gaussian_log_density(action, low_mean), gaussian_log_density(rep, high_mean)
    save(
        "hiql",
        112,
        v_low=v_low,
        v_low_next=v_low_next,
        v_high=v_high,
        v_high_sub=v_high_sub,
        raw_representation=raw,
        representation=rep,
        high_mean=high_mean,
        low_mean=low_mean,
        action=action,
        low_alpha=low_alpha,
        high_alpha=high_alpha,
        low_advantage=low_adv,
        high_advantage=high_adv,
        low_log_density=low_logp,
        high_log_density=high_logp,
        low_loss=-np.mean(awr_weight(low_adv, low_alpha) * low_logp),
        high_loss=-np.mean(awr_weight(high_adv, high_alpha) * high_logp),
    )


def golden_qrl():
    r = rng(113)
    far, one = 10 + 300 * r.random(32), 0.5 + r.random(32)
    lam, eps = 1.7, 0.05
    push = np.mean(100 * np.log1p(np.exp(5 - far / 100)))
    excess = np.mean(np.maximum(one - 1, 0) ** 2)
    save(
        "qrl",
        113,
        d_random=far,
        d_next=one,
        multiplier=lam,
        eps=eps,
        push=push,
        excess=excess,
        value_loss=push + lam * excess,
        multiplier_loss=lam * (eps - excess),
    )


def golden_crl_binary():
    r = rng(114)
    E, B, D = 2, 8, 6
    phi, psi = r.normal(size=(E, B, D)), r.normal(size=(E, B, D))
    logits = np.einsum("eik,ejk->eij", phi, psi) / np.sqrt(D)
    softplus = lambda x: np.logaddexp(0, x)  # noqa: E731
    eye = np.eye(B, dtype=bool)
    loss = np.mean(np.where(eye, softplus(-logits), softplus(logits)))
    save("crl_binary", 114, phi=phi, psi=psi, logits=logits, loss=loss)


def mrn(x, y, K, eps=1e-6):
    """Mean over K contiguous chunks of max relu over the first half + sqrt(sum of squares + eps) over the second."""
    d = x.shape[-1] // K
    parts = []
    for k in range(K):
        a, b = x[..., k * d : (k + 1) * d], y[..., k * d : (k + 1) * d]
        h = d // 2
        parts.append(
            np.max(np.maximum(a[..., :h] - b[..., :h], 0), axis=-1)
            + np.sqrt(np.sum((a[..., h:] - b[..., h:]) ** 2, axis=-1) + eps)
        )
    return np.mean(parts, axis=0)


def golden_tmd():
    """The terms of the authors' TMD, one ensemble member or more; weights 1, 1, zeta."""
    r = rng(115)
    E, B, D, K = 2, 6, 16, 2
    gamma, zeta, t, w = 0.99, 0.05, 3.0, 0.5
    phi, psi_s, psi_next, psi_g = (2 * r.normal(size=(E, B, D)) for _ in range(4))
    d = mrn(phi[:, :, None], psi_g[:, None], K)  # [E, B, B]
    logits = -d / np.sqrt(D)
    columns = logits - logsumexp(logits, axis=1)[:, None, :]  # softmax over state-action pairs, for every goal
    contrastive = -np.mean(np.diagonal(columns, axis1=1, axis2=2))
    invariance = np.mean(mrn(psi_s, phi, K))
    d_next = mrn(psi_next[:, :, None], psi_g[:, None], K)
    delta = d - d_next
    linex = np.where(delta > t, delta, gamma * np.exp(np.minimum(delta, t)) - d)
    diagonal = np.diagonal(linex, axis1=1, axis2=2)
    backup = (1 - w) * np.mean(linex) + w * np.mean(diagonal)
    cmd_logits = logits
    softplus = lambda x: np.logaddexp(0, x)  # noqa: E731
    cmd = np.mean(np.where(np.eye(B, dtype=bool), softplus(-cmd_logits), softplus(cmd_logits)))
    save(
        "tmd",
        115,
        phi=phi,
        psi_s=psi_s,
        psi_next=psi_next,
        psi_g=psi_g,
        components=K,
        gamma=gamma,
        zeta=zeta,
        clip=t,
        diag=w,
        distance=d,
        logits=logits,
        contrastive=contrastive,
        invariance=invariance,
        linex=linex,
        backup=backup,
        loss=contrastive + invariance + zeta * backup,
        cmd_binary_loss=cmd,
    )


def golden_goal_sampling():
    """The index law of OGBench's GCDataset with its random numbers as inputs (compact data, valid rows only)."""
    r = rng(116)
    lengths = [5, 7, 4]  # rows per trajectory: transitions + 1
    terminals_file = np.concatenate([np.eye(1, n, n - 1)[0] for n in lengths])
    valid = 1 - terminals_file
    terminals = np.minimum(terminals_file + np.append(terminals_file[1:], 1.0), 1.0)
    rows = np.nonzero(valid)[0]
    idx = r.choice(rows, 20)
    ends = np.nonzero(terminals)[0]
    final = ends[np.searchsorted(ends, idx)]
    geometric = r.geometric(1 - 0.9, 20)
    u = r.random(20)
    random_goal = r.choice(rows, 20)
    uniform_goal = np.round(np.minimum(idx + 1, final) * u + final * (1 - u)).astype(int)
    u_kind, u_cur = r.random(20), r.random(20)
    p_cur, p_traj = 0.2, 0.5
    goal = np.where(u_kind < p_traj / (1 - p_cur), np.minimum(idx + geometric, final), random_goal)
    goal = np.where(u_cur < p_cur, idx, goal)
    save(
        "goal_sampling",
        116,
        rows_per_trajectory=lengths,
        terminals_in_file=terminals_file,
        terminals=terminals,
        valids=valid,
        idx=idx,
        final=final,
        geometric_offset=geometric,
        geometric_goal=np.minimum(idx + geometric, final),
        uniform_number=u,
        uniform_goal=uniform_goal,
        random_goal=random_goal,
        u_kind=u_kind,
        u_cur=u_cur,
        p_cur=p_cur,
        p_traj=p_traj,
        value_goal=goal,
        reward=(goal == idx).astype(F) - 1,
        mask=1 - (goal == idx).astype(F),
    )


# ---- reward-based ---------------------------------------------------------------------------------------------------


def golden_cql():
    """CQL(H) penalty with importance weights (n random, n policy at s, n policy at s'), [2] critics, and without."""
    r = rng(120)
    B, n, A = 8, 5, 3
    q_rand, q_cur, q_next = (10 + 4 * r.normal(size=(2, B, n)) for _ in range(3))
    logp_cur, logp_next = (-1 + r.normal(size=(B, n)) for _ in range(2))
    q_data = 10 + 4 * r.normal(size=(2, B))
    log_uniform = np.log(0.5**A)
    temp, alpha, gap, log_lagrange = 1.0, 5.0, 0.8, 0.3

    def penalty(q_list):
        return temp * logsumexp(np.concatenate(q_list, axis=-1) / temp, axis=-1) - q_data  # [2, B]

    weighted = penalty([q_rand - log_uniform, q_next - logp_next, q_cur - logp_cur])
    plain = penalty([q_rand, q_data[..., None], q_next, q_cur])
    lagrange = np.clip(np.exp(log_lagrange), 0, 1e6)
    per_critic = np.mean(weighted, axis=-1)
    # the entropy-free Bellman target of the same step
    reward, terminal, qt_next = r.normal(size=B), (r.random(B) < 0.3).astype(F), 10 + 4 * r.normal(size=(2, B))
    target = reward + 0.99 * (1 - terminal) * np.min(qt_next, axis=0)
    save(
        "cql",
        120,
        q_random=q_rand,
        q_current=q_cur,
        q_next=q_next,
        log_density_current=logp_cur,
        log_density_next=logp_next,
        q_data=q_data,
        action_size=A,
        temperature=temp,
        alpha=alpha,
        gap=gap,
        log_lagrange=log_lagrange,
        penalty_weighted=weighted,
        penalty_plain=plain,
        fixed_loss=alpha * np.sum(per_critic),
        lagrange_critic_loss=np.sum(lagrange * alpha * (per_critic - gap)),
        lagrange_own_loss=-0.5 * np.sum(lagrange * alpha * (per_critic - gap)),
        clipped_minus_200=np.clip(weighted, -200, np.inf),
        reward=reward,
        terminal=terminal,
        q_target_next=qt_next,
        target=target,
        bellman_loss=np.sum(np.mean((q_data - target) ** 2, axis=-1)),
    )


def golden_rebrac():
    r = rng(121)
    B, A, gamma, b_actor, b_critic, sigma, clip = 12, 3, 0.99, 0.1, 0.1, 0.2, 0.5
    reward, mask = r.normal(size=B), (r.random(B) > 0.2).astype(F)
    pi_next, noise, data_next = np.tanh(r.normal(size=(B, A))), r.normal(size=(B, A)), np.tanh(r.normal(size=(B, A)))
    smoothed = np.clip(pi_next + np.clip(sigma * noise, -clip, clip), -1, 1)
    q_next_target, q = 5 + r.normal(size=(2, B)), 5 + r.normal(size=(2, B))
    next_value = np.min(q_next_target, 0) - b_critic * np.sum((smoothed - data_next) ** 2, -1)
    target = reward + gamma * mask * next_value
    pi, data = np.tanh(r.normal(size=(B, A))), np.tanh(r.normal(size=(B, A)))
    q_pi = 5 + r.normal(size=(2, B))
    lower = np.min(q_pi, 0)
    mse = np.sum((pi - data) ** 2, -1)
    save(
        "rebrac",
        121,
        reward=reward,
        mask=mask,
        policy_next=pi_next,
        noise=noise,
        data_next_action=data_next,
        smoothed=smoothed,
        q_next_target=q_next_target,
        q=q,
        q_policy=q_pi,
        policy=pi,
        data_action=data,
        gamma=gamma,
        actor_bc=b_actor,
        critic_bc=b_critic,
        sigma=sigma,
        clip=clip,
        target=target,
        critic_loss_mean=np.mean((q - target) ** 2),
        critic_loss_sum=np.sum(np.mean((q - target) ** 2, axis=1)),
        actor_loss=-np.mean(lower) / np.mean(np.abs(lower)) + b_actor * np.mean(mse),
        bc=mse,
    )


def golden_hilp():
    """V(s, g) = -|phi(s) - phi(g)|, two members; IVL value loss; skill reward; latent by least squares."""
    r = rng(122)
    B, D, gamma, tau = 16, 8, 0.99, 0.9
    phi_s, phi_n, phi_g = (3 * r.normal(size=(2, B, D)) for _ in range(3))  # online
    tphi_s, tphi_n, tphi_g = (3 * r.normal(size=(2, B, D)) for _ in range(3))  # target
    same = r.random(B) < 0.2
    reward, mask = sparse_goal_reward(same)
    v = lambda a, b: -np.sqrt(np.maximum(np.sum((a - b) ** 2, -1), 1e-12))  # noqa: E731
    loss, advantage, targets = ivl_loss(reward, mask, v(tphi_s, tphi_g), v(tphi_n, tphi_g), v(phi_s, phi_g), tau, gamma)
    z = r.normal(size=(B, D))
    z = z / np.linalg.norm(z, axis=-1, keepdims=True) * np.sqrt(D)
    skill_reward = np.sum((phi_n[0] - phi_s[0]) * z, -1)
    task_reward = r.normal(size=B)
    w = np.linalg.lstsq(phi_n[0] - phi_s[0], task_reward, rcond=None)[0]
    save(
        "hilp",
        122,
        phi_s=phi_s,
        phi_next=phi_n,
        phi_g=phi_g,
        target_phi_s=tphi_s,
        target_phi_next=tphi_n,
        target_phi_g=tphi_g,
        same=same,
        reward=reward,
        mask=mask,
        gamma=gamma,
        tau=tau,
        advantage=advantage,
        targets=targets,
        value_loss=loss,
        z=z,
        skill_reward=skill_reward,
        task_reward=task_reward,
        inferred_latent=w / np.linalg.norm(w) * np.sqrt(D),
    )


def golden_fb():
    r = rng(123)
    B, D, gamma, c = 8, 6, 0.99, 1.0
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True) * np.sqrt(D)  # noqa: E731
    Fo, Ft = r.normal(size=(2, B, D)), r.normal(size=(2, B, D))  # F(s, z, a), target F(s', z, a')
    Bo, Bt = unit(r.normal(size=(B, D))), unit(r.normal(size=(B, D)))  # B(s'), target B(s')
    M = np.einsum("esd,td->est", Fo, Bo)
    Mt = np.mean(np.einsum("esd,td->est", Ft, Bt), axis=0)
    off = 1 - np.eye(B)
    off_loss = 0.5 * np.sum(((M - gamma * Mt) * off) ** 2, -1) / (B - 1)  # [2, B]
    diag_loss = -np.diagonal(M, axis1=1, axis2=2)
    cov = Bo @ Bo.T
    ortho = c * np.mean(-2 * np.diag(cov) + np.sum((cov * off) ** 2, -1) / (B - 1))
    z = unit(r.normal(size=(B, D)))
    q = np.einsum("esd,sd->es", Fo, z)
    reward = r.normal(size=B)
    w = reward @ Bo / B
    save(
        "fb",
        123,
        forward=Fo,
        target_forward_next=Ft,
        backward=Bo,
        target_backward=Bt,
        gamma=gamma,
        ortho_weight=c,
        measures=M,
        target_measures=Mt,
        representation_loss=np.mean(diag_loss + off_loss),
        ortho_loss=ortho,
        loss=np.mean(diag_loss + off_loss) + ortho,
        z=z,
        q=q,
        reward=reward,
        inferred_latent=w / np.linalg.norm(w) * np.sqrt(D),
    )


def golden_infom():
    """SARSA flow matching: vector field v(x, t; s, a, z) = W [x, t, s, a, z] (linear, so that it is a pure function)."""
    r = rng(124)
    B, S, A, Z, gamma, kl_weight, steps = 6, 3, 2, 4, 0.99, 0.05, 10
    W, Wt = 0.3 * r.normal(size=(S, S + 1 + S + A + Z)), 0.3 * r.normal(size=(S, S + 1 + S + A + Z))
    s, s2, a, a2 = r.normal(size=(B, S)), r.normal(size=(B, S)), r.normal(size=(B, A)), r.normal(size=(B, A))
    mu, log_std, eps_z = r.normal(size=(B, Z)), 0.3 * r.normal(size=(B, Z)), r.normal(size=(B, Z))
    z = mu + np.exp(log_std) * eps_z
    t, n0, n1 = r.random(B), r.normal(size=(B, S)), r.normal(size=(B, S))
    low, high = -2.5 * np.ones(S), 2.5 * np.ones(S)

    def field(weights, x, time, state, action):
        return np.concatenate([x, time[:, None], state, action, z], -1) @ weights.T

    x0 = t[:, None] * s + (1 - t[:, None]) * n0
    current = np.mean((s - n0 - field(W, x0, t, s, a)) ** 2, -1)
    x = n1  # Euler from noise with the target field at (s', a'), clipped to the range of the data
    for k in range(steps):
        x = x + field(Wt, x, np.full(B, k / steps), s2, a2) / steps
        x = np.clip(x, low + 1e-5, high - 1e-5)
    future_state = x
    xf = t[:, None] * future_state + (1 - t[:, None]) * n1
    target = field(Wt, xf, t, s2, a2)
    future = np.mean((target - field(W, xf, t, s, a)) ** 2, -1)
    flow = np.mean((1 - gamma) * current + gamma * future)
    kl = -0.5 * np.mean(1 + 2 * log_std - mu**2 - np.exp(2 * log_std))
    N = 5
    reward_of_goals, q = r.normal(size=(N, B)), 30 * r.normal(size=(2, B))
    q_target = np.mean(reward_of_goals, 0) / (1 - gamma)
    save(
        "infom",
        124,
        W=W,
        W_target=Wt,
        s=s,
        next_s=s2,
        a=a,
        next_a=a2,
        mean=mu,
        log_std=log_std,
        latent_noise=eps_z,
        z=z,
        t=t,
        current_noise=n0,
        future_noise=n1,
        low=low,
        high=high,
        steps=steps,
        gamma=gamma,
        kl_weight=kl_weight,
        current_loss=current,
        future_state=future_state,
        future_target=target,
        future_loss=future,
        flow_loss=flow,
        kl=kl,
        loss=flow + kl_weight * kl,
        reward_of_goals=reward_of_goals,
        q=q,
        q_target=q_target,
        critic_loss=expectile_loss(q_target - q, q_target - q, 0.9),
    )


def golden_crl_infonce():
    r = rng(125)
    E, B, D, penalty = 2, 8, 6, 0.01
    phi, psi = r.normal(size=(E, B, D)), r.normal(size=(E, B, D))
    logits = np.einsum("eik,ejk->eij", phi, psi) / np.sqrt(D)
    rows = logsumexp(logits, axis=2)
    loss = np.mean(rows - np.diagonal(logits, axis1=1, axis2=2) + penalty * rows**2)
    lower = np.min(np.maximum(logits, np.log(1e-6)), axis=0)  # log max(exp, 1e-6), least of the two critics
    log_ratio = np.diag(lower) - logsumexp(lower, axis=-1) + np.log(B)
    reward = r.normal(size=B)
    save(
        "crl_infonce",
        125,
        phi=phi,
        psi=psi,
        logsumexp_penalty=penalty,
        logits=logits,
        loss=loss,
        lower=lower,
        log_ratio=log_ratio,
        reward=reward,
        q=np.exp(log_ratio) * reward,
    )


# ---- sequences and planning -----------------------------------------------------------------------------------------


def golden_returns_to_go():
    r = rng(130)
    reward = r.normal(size=9)
    starts = np.array([0, 4, 9])  # two episodes: rows 0-3, 4-8

    def rtg(x, gamma):
        out = np.zeros_like(x)
        total = 0.0
        for i in range(len(x) - 1, -1, -1):
            total = x[i] + gamma * total
            out[i] = total
        return out

    both = {g: np.concatenate([rtg(reward[a:b], g) for a, b in zip(starts, starts[1:])]) for g in (1.0, 0.99)}
    save(
        "returns_to_go",
        130,
        reward=reward,
        episode_bounds=starts,
        undiscounted=both[1.0],
        discounted_099=both[0.99],
        scaled_1000=both[1.0] / 1000,
    )


def symlog(x):
    return np.sign(x) * np.log1p(np.abs(x))


def symexp(x):
    return np.sign(x) * np.expm1(np.abs(x))


def two_hot(x, bins, low, high):
    """[...] -> [..., bins]: symlog, clamp, two neighbouring bins with linear weights."""
    y = (np.clip(symlog(x), low, high) - low) / (high - low) * (bins - 1)
    i = np.floor(y).astype(int)
    frac = y - i
    out = np.zeros((*np.shape(x), bins))
    np.put_along_axis(out, i[..., None], (1 - frac)[..., None], -1)
    j = (i + 1) % bins  # at the upper end the weight is 0, so where it goes does not matter
    np.put_along_axis(out, j[..., None], np.take_along_axis(out, j[..., None], -1) + frac[..., None], -1)
    return out


def golden_two_hot():
    r = rng(131)
    bins, low, high = 101, -10.0, 10.0
    x = np.concatenate([[0.0, 1.0, -1.0, 0.05, 30000.0, -30000.0, 22025.0], 100 * r.normal(size=9)])
    target = two_hot(x, bins, low, high)
    logits = r.normal(size=(len(x), bins))
    logp = logits - logsumexp(logits, -1)[:, None]
    grid = np.linspace(low, high, bins)
    save(
        "two_hot",
        131,
        x=x,
        bins=bins,
        low=low,
        high=high,
        symlog=symlog(x),
        target=target,
        decoded_target=symexp(target @ grid),
        logits=logits,
        decoded_logits=symexp(softmax(logits) @ grid),
        soft_cross_entropy=-np.sum(target * logp, -1),
    )


def golden_simnorm():
    r = rng(132)
    x = 3 * r.normal(size=(4, 32))
    save("simnorm", 132, x=x, group=8, y=softmax(x.reshape(4, 4, 8)).reshape(4, 32))


def golden_mppi():
    """One refinement of MPPI: elites, weights, new mean and std; and the value of rollouts with a terminal value."""
    r = rng(133)
    H, N, E, A, temp, lo, hi, gamma = 3, 16, 4, 2, 0.5, 0.05, 2.0, 0.95
    actions = np.clip(r.normal(size=(H, N, A)), -1, 1)
    rewards, terminal_value = r.normal(size=(H, N)), 3 * r.normal(size=N)
    value = sum(gamma**h * rewards[h] for h in range(H)) + gamma**H * terminal_value
    elite = np.argsort(-value, kind="stable")[:E]
    score = np.exp(temp * (value[elite] - np.max(value[elite])))
    score = score / np.sum(score)
    mean = np.einsum("n,hna->ha", score, actions[:, elite]) / (np.sum(score) + 1e-9)
    std = np.sqrt(np.einsum("n,hna->ha", score, (actions[:, elite] - mean[:, None]) ** 2) / (np.sum(score) + 1e-9))
    save(
        "mppi",
        133,
        actions=actions,
        rewards=rewards,
        terminal_value=terminal_value,
        gamma=gamma,
        temperature=temp,
        num_elites=E,
        min_std=lo,
        max_std=hi,
        value=value,
        elite=elite,
        score=score,
        mean=mean,
        std=np.clip(std, lo, hi),
    )


def golden_percentile_scale():
    r = rng(134)
    q = 20 * r.normal(size=40)
    spread = max(np.percentile(q, 95) - np.percentile(q, 5), 1.0)
    save("percentile_scale", 134, q=q, before=3.0, tau=0.01, spread=spread, after=3.0 + 0.01 * (spread - 3.0))


def golden_speculation():
    """Which step of the speculative automaton each decision is: 0 fresh plan, 1 planned action, 2 extension, 3 miss."""
    r = rng(135)
    T, plan, threshold = 40, 3, 0.5
    distance = np.abs(0.35 * r.normal(size=T))  # what |z - predicted z| would be where a plan is older than this step
    out = {}
    for execute in (1, 3, 6):
        kinds, steps, k, left = [], [], 0, 0
        for t in range(T):
            fresh = left <= 0
            if fresh:
                k, left = 0, execute
            miss = not fresh and distance[t] > threshold
            kinds.append(0 if fresh else 3 if miss else 1 if k < plan else 2)
            if miss:  # the new plan's first action is executed in this very step
                k, left = 0, execute
            steps.append(k)
            k, left = k + 1, left - 1
        out[f"kind_{execute}"], out[f"step_{execute}"] = np.array(kinds), np.array(steps)
    save("speculation", 135, distance=distance, threshold=threshold, plan_horizon=plan, **out)


ALL = [value for name, value in sorted(globals().items()) if name.startswith("golden_")]


def main():
    folder = Path(sys.argv[-1]) if len(sys.argv) > 1 and not sys.argv[-1].startswith("--") else Path(__file__).parent
    for make in ALL:
        make()
    for name, arrays in OUT.items():
        for key, value in arrays.items():
            assert value.dtype != np.float32 and np.all(np.isfinite(value.astype(F))), (name, key)
        path = folder / f"{name}.npz"
        if "--check" in sys.argv:
            with np.load(path) as old:
                assert sorted(old.files) == sorted(arrays), name
                for key in arrays:
                    np.testing.assert_allclose(old[key], arrays[key], rtol=1e-12, atol=1e-12, err_msg=f"{name}/{key}")
        else:
            np.savez(path, **arrays)
    print(f"{'checked' if '--check' in sys.argv else 'wrote'} {len(OUT)} files:", *sorted(OUT))


if __name__ == "__main__":
    main()
