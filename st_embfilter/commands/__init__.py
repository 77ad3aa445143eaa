"""The commands of ``st-embfilter``, one a file.

Only what a command needs is imported, inside it: ``--help`` answers at once.
"""
