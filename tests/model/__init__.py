"""A model of the allowed fate of rows: random sequences on a real server, checked after each step.

`sequence.play` plays one; the seed decides everything in it but the timing of processes.
"""
