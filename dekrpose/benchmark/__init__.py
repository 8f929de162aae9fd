"""``dekrpose benchmark``: how long an estimate takes, stage by stage, alone or against another setting in one run.

``settings`` says what is measured and loads it, ``naive`` is the network to compare with, ``stages`` takes the times,
``curves`` and ``memory`` measure growth and peak memory, ``report`` writes tables.
"""
