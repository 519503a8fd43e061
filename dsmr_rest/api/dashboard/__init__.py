"""The dashboard: a page for people, live through /stream; its style, its modules, and one file of texts per language.

Nothing in here knows the meter or how a file is served: files.py loads what the browser gets.
"""
