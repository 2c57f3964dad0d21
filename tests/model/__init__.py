"""A model of what may become of rows: random sequences on a real server, judged after each step.

`sequence.play` plays one; the seed decides everything in it but the timing of processes.
"""
