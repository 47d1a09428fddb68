"""PPO by Brax's own trainer: the trainer, its environments, its reports."""
