"""Flags of TMD, and of some other agents, that mean nothing together, or have nothing to learn from, are refused."""

import dataclasses

import pytest

from goalax.agents import tmd
from goalax.flags import FlagError
from goalax.host.config import read_flags
from goalax.host.make import make_run
from tests.helpers import toy
from tests.helpers.chain import chain_agent

toy.register()


@pytest.mark.parametrize("value", ["hazard", "both"])
def test_an_actor_that_nothing_teaches_is_refused(value):
    with pytest.raises(FlagError, match=f"--actor_value is '{value}'; it must come with --hazard_weight above 0"):
        chain_agent("tmd", actor_value=value)


def test_a_distance_that_nothing_teaches_is_refused():
    nothing = dict.fromkeys(("contrastive_weight", "zeta", "invariance_weight", "step_weight"), 0.0)
    with pytest.raises(FlagError, match="^--contrastive_weight is 0, .* with --actor_value distance one of them must"):
        chain_agent("tmd", **nothing)
    with pytest.raises(FlagError, match="^--contrastive_weight is 0, .* with --actor_value distance one of them must"):
        chain_agent("tmd", **nothing, hazard_weight=1.0)  # of a head
    for teaches in ({"step_weight": 0.1}, {"time_weight": 1.0}, {"hazard_weight": 1.0, "hazards": "distance"}):
        chain_agent("tmd", **nothing | teaches)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            {"window": 9},
            "--window is 9; it means nothing with --hazard_weight, --time_weight and --separation_weight 0",
        ),
        ({"time_weight": 1.0, "time_bins": 9}, "--time_bins is 9; it means nothing with --hazard_weight 0"),
        ({"hazards": "distance"}, "--hazards is distance; it means nothing with --hazard_weight 0"),
        (
            {"hazard_weight": 1.0, "hazards": "distance", "head_dim": 9},
            "--head_dim is 9; it means nothing with --hazards distance, which has no head",
        ),
        (
            {"censor": "episode"},
            "--censor is episode; it means nothing with --hazard_weight, --time_weight and --separation_weight 0",
        ),
        (
            {"time_weight": 1.0, "censor": "episode"},
            "--censor is episode; it means nothing with --hazard_weight and --separation_weight 0",
        ),
        (
            {"hazard_weight": 1.0, "visit_backup": True, "censor": "episode", "time_bins": 0},
            "--censor is episode; it means nothing with --visit_backup, --time_bins 0 and no --separation_weight",
        ),
        (
            {"contrastive_weight": 0.0, "potential": False},
            "--potential is False; it means nothing with --contrastive_weight 0",
        ),
        (
            {"original_goals": 0.5},
            "--original_goals is 0.5; it means nothing with --hazard_weight, --time_weight and --separation_weight 0",
        ),
        (
            {"hazard_weight": 1.0, "value_discounting": 0.9},
            "--value_discounting is 0.9; it means nothing with --actor_value distance",
        ),
    ],
)
def test_flags_that_mean_nothing_are_refused(flags, words):
    with pytest.raises(FlagError, match=f"^{words}: leave one of them out.$"):
        chain_agent("tmd", **flags)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"critic_goal": "state"}, "--critic_goal state, whose goals are full states"),
        ({"backup": "waypoint"}, "--backup waypoint, whose way-points lie on ways to goals that were reached"),
    ],
)
def test_what_cannot_have_original_goals_says_so(flags, words):
    with pytest.raises(FlagError, match=f"^--original_goals is 0.25; with {words}, it must be 0.$"):
        chain_agent("tmd_visits", **flags)
    assert chain_agent("tmd_visits", original_goals=0.0, **flags).needs.original == 0
    chain_agent("tmd_visits", hazard_weight=0.0, actor_value="distance", value_discounting=0.999, **flags)


def test_original_goals_need_something_that_learns_from_those_that_were_not_reached():
    with pytest.raises(
        FlagError, match=r"^--original_goals is 0.25; with --hazard_weight and --separation_weight 0, .* 0.$"
    ):
        chain_agent("tmd", time_weight=1.0, original_goals=0.25)
    assert chain_agent("tmd", separation_weight=1.0, original_goals=0.25).needs.original == 0.25


def test_positives_are_left_out_of_nothing_where_a_loss_has_no_logsumexp():
    binary = tmd.TMDConfig(contrastive_loss_fn="binary", resubs=False)
    assert binary.penalties["resubs"] is False  # in the penalty
    assert tmd.TMDConfig(resubs=False, logsumexp_penalty=0.0).penalties["resubs"] is False  # in InfoNCE
    with pytest.raises(
        FlagError, match="^--resubs is False; without --logsumexp_penalty --contrastive_loss_fn binary has"
    ):
        _ = dataclasses.replace(binary, logsumexp_penalty=0.0).penalties


def test_what_means_nothing_may_be_said_as_tmd_has_it():
    plain = {"hazard_weight": 0.0, "actor_value": "distance"}
    said = {"original_goals": 0.0, "time_bins": 48, "head_dim": 0, "value_discounting": 0.99}
    assert chain_agent("tmd_visits", **plain, **said).needs == chain_agent("tmd_visits", **plain).needs
    with pytest.raises(FlagError, match="^--time_bins is 7; it means nothing with --hazard_weight 0"):
        chain_agent("tmd_visits", **plain, time_bins=7)
    for name, value in (("time_bins", 0), ("value_discounting", 0.999)):  # defaults of srl, which tmd is not made from
        with pytest.raises(FlagError, match=f"^--{name} is {value}; it means nothing"):
            chain_agent("tmd", **{name: value})


def test_an_actor_with_goals_of_its_own_sees_no_original_ones():
    needs = chain_agent("tmd_visits", actor_relabel="geometric", actor_any_goals=0.1).needs
    assert needs.original == 0.25 and needs.actor_goals == (0.9, 0.0, 0.1)


@pytest.mark.parametrize(("share", "number"), [("0.05", 0), ("0.97", 8)])
def test_a_share_of_original_goals_that_is_none_or_all_is_refused(share, number):
    flags = read_flags([*toy.TINY, "--agent", "srl", "--original_goals", share])  # batches of 8
    with pytest.raises(FlagError, match=f"^--original_goals is {share}, which is {number} of --batch_size 8 samples"):
        make_run(*flags)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--random_goals 0.05", "--random_goals is 0.05, which is 0 of --batch_size 8 samples; it must be 0, or at"),
        ("--agent sac --use_her --her_ratio 0.05", "--her_ratio is 0.05, which is 0 of --batch_size 8 samples"),
        ("--agent sac --use_her --her_ratio 0 --her_strategy goal_law", "--her_strategy .* with --her_ratio 0"),
        ("--agent td3 --target_noise 0 --noise_clip 0.3", "--noise_clip is 0.3; it .* with --target_noise 0"),
        ("--agent td3 --noise_clip 0 --target_noise 0.3", "--target_noise is 0.3; it .* with --noise_clip 0"),
        ("--agent dino_rebrac --target_noise 0 --noise_clip 0.3", "--noise_clip is 0.3; it .* with --target_noise 0"),
        ("--agent dino_rebrac --view_clip 0 --view_noise 0.3", "--view_noise is 0.3; it .* with --view_clip 0"),
        ("--agent cql --cql_alpha 0 --cql_floor 1", "--cql_floor is 1.0; it .* with --cql_alpha 0"),
        ("--agent c_tec --l2_penalty 0.1", "--l2_penalty is 0.1; it .* for representations of unit length"),
        ("--agent tmd_visits --action_repeat 2", "--original_goals is 0.25; with --action_repeat 2, .* it must be 0"),
    ],
)
def test_what_comes_to_nothing_is_refused(flags, words):
    sizes = ["--env_name", "toy", "--num_envs", "4", "--batch_size", "8", "--num_timesteps", "1000000"]
    with pytest.raises(FlagError, match=f"^{words}"):
        make_run(*read_flags([*sizes, *flags.split()]))
    for all_of_them in ("--random_goals 1", "--agent sac --use_her --her_ratio 1", "--agent td3 --target_noise 0"):
        make_run(*read_flags([*sizes, *all_of_them.split()]))
