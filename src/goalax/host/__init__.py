"""The host's side of a run: flags, what they stand for, directories, checkpoints, what a person sees."""
