"""Models into checkpoint folders of quantized weights: GPTQ, AWQ, compressed-tensors.

``schemes.py`` reads what a user asks for, ``source.py`` opens the model under Hugging Face's names, ``linears.py`` finds what is
quantized, ``plan.py`` says what each tensor becomes, ``layers.py`` and ``blocks.py`` do the work, ``write.py`` writes it, ``folder.py``
is the whole flow. ``repack.py``, ``codes.py`` and ``regrid.py`` are for models that are quantized already: their codes go over where the
new grid contains them.
"""
