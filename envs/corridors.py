"""The long corridors of scaling-crl (arXiv 2503.14858), as pictures: the way to the far goals leads away from them.

Of each maze there are three: the goals of training are all cells of the way, those of `_eval` the far ones, and that of
`_single_eval` the farthest. The paper's code has one `_single_eval`, that of u5_maze.
"""

CORRIDORS = {
    "u2_maze": """
        ######
        #RGGG#
        ####G#
        #GGGG#
        ######""",
    "u2_maze_eval": """
        ######
        #R...#
        ####.#
        #GGGG#
        ######""",
    "u2_maze_single_eval": """
        ######
        #R...#
        ####.#
        #G...#
        ######""",
    "u3_maze": """
        #######
        #RGGGG#
        #####G#
        #GGGGG#
        #######""",
    "u3_maze_eval": """
        #######
        #R....#
        #####.#
        #GGGGG#
        #######""",
    "u3_maze_single_eval": """
        #######
        #R....#
        #####.#
        #G....#
        #######""",
    "u4_maze": """
        #####
        #GGG#
        #R#G#
        ###G#
        #G#G#
        #GGG#
        #####""",
    "u4_maze_eval": """
        #####
        #...#
        #R#.#
        ###.#
        #G#.#
        #GGG#
        #####""",
    "u4_maze_single_eval": """
        #####
        #...#
        #R#.#
        ###.#
        #G#.#
        #...#
        #####""",
    "u5_maze": """
        ########
        #GGGGGG#
        #R####G#
        ######G#
        #G####G#
        #GGGGGG#
        ########""",
    "u5_maze_eval": """
        ########
        #......#
        #R####.#
        ######.#
        #G####G#
        #GGGGGG#
        ########""",
    "u5_maze_single_eval": """
        ########
        #......#
        #R####.#
        ######.#
        #G####.#
        #......#
        ########""",
    "u6_maze": """
        #######
        #GGGGG#
        #R###G#
        #####G#
        #G###G#
        #GGGGG#
        #######""",
    "u6_maze_eval": """
        #######
        #.....#
        #R###.#
        #####.#
        #G###G#
        #GGGGG#
        #######""",
    "u6_maze_single_eval": """
        #######
        #.....#
        #R###.#
        #####.#
        #G###.#
        #.....#
        #######""",
    "u7_maze": """
        ######
        #GGGG#
        #R##G#
        ####G#
        #G##G#
        #GGGG#
        ######""",
    "u7_maze_eval": """
        ######
        #....#
        #R##.#
        ####.#
        #G##G#
        #GGGG#
        ######""",
    "u7_maze_single_eval": """
        ######
        #....#
        #R##.#
        ####.#
        #G##.#
        #....#
        ######""",
}
