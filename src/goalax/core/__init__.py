"""The pure loop: one pytree, RunState, and the functions that take it a step further."""
