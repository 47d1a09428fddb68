"""What agents are made of: networks, energies, contrastive losses, quasimetrics."""
