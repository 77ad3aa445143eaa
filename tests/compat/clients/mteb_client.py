"""mteb's get_model, asked as its tasks ask it."""

import mteb
from client import main
from datasets import Dataset
from torch.utils.data import DataLoader


def embed(name, texts, options):
    if "embed_dims" in options:
        # mteb takes the backbone's hidden size for the only dimension, unless it is told of others.
        dims = options["embed_dims"]
        meta = mteb.get_model_meta(name, fetch_from_hf=True).model_copy(update={"embed_dim": dims})
        model = meta.load_model(device="cpu", embed_dim=dims[-1])
    else:
        model = mteb.get_model(name, device="cpu", **options)
    vectors = model.encode(
        DataLoader(Dataset.from_dict({"text": texts}), batch_size=32),
        task_metadata=mteb.get_task("STS13").metadata,
        hf_split="test",
        hf_subset="default",
        show_progress_bar=False,
    )
    return vectors.tolist()


main(embed)
