"""What tasks are: the contract with them, and the warm process that runs a job's function."""
