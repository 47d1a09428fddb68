"""Which agents of this release wait for longer suites, because relatives of theirs are tested before."""

# All others, and every agent that is new, are tested first.
RELATIVES = frozenset(
    {
        *("bc", "c_tec", "chronosrl", "cmd", "cmd2", "cql", "crl_infonce", "dino_rebrac", "gcivl", "hilp", "infom"),
        *("iql", "qrl", "rebrac", "srl"),
    }
)
