"""Add the filter to a pipeline of your own. Of the language model, only W_U is read for it.

python examples/append_filter.py [SOURCE]
"""

import sys

from st_embfilter import FilterModule, build_model, without_filter

source = sys.argv[1] if len(sys.argv) > 1 else "HuggingFaceTB/SmolLM2-135M-Instruct"

# Any pipeline will do whose pooling gives the language model's own hidden states. This one is
# Transformer and Pooling, with the prompt in the tokenizer.
model = without_filter(build_model(source))
print("raw:     ", model.encode("A man is eating.").shape)

model.append(FilterModule.from_pretrained(source, ratio=4))
print("filtered:", model.encode("A man is eating.").shape)
