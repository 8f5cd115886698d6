"""Everything that crosses a process boundary, as strict immutable models, and nothing else."""
