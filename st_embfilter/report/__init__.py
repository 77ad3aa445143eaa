"""The report of ``st-embfilter inspect``: which tokens a model's embeddings write.

``subject`` → ``inspection`` (every figure) → ``reading`` (what they say) and ``plots`` → ``page``.
"""
