"""The network of guests in a sandbox: none, named hosts by a proxy, or all that is public; as owner and task agree.

Guests live in a network namespace without any way out. What leads out of it is made from outside of it, by the kernel's leave to
whoever made the namespace (setns(2)): nothing of ours runs inside.
"""
