"""What tasks save while they run: watched, sent to the scheduler in pieces, and put back where a later attempt goes on.

``saves`` is the door for whoever runs attempts. Attempts with a process of their own are watched; calls of functions that share warm processes
are not: they are short, and their folder is emptied after each.
"""
