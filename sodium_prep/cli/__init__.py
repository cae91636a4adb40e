"""Talks to the user: command lines, tools, exit codes."""
