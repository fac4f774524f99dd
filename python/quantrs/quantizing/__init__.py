"""Models into checkpoint folders of quantized weights: GPTQ, AWQ, compressed-tensors.

``schemes.py`` reads what a user asks for, ``source.py`` opens the model under Hugging Face's names, ``linears.py`` finds what is
quantized, ``plan.py`` says what each tensor becomes, ``layers.py`` and ``blocks.py`` do the work, ``folder.py`` is the whole flow.
"""
