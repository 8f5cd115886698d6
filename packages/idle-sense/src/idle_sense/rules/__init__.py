"""From facts to reasons, one file for each noun. Pure functions: a reading, the policy, what was remembered; out come the
reasons that speak for busy, and what to remember."""
