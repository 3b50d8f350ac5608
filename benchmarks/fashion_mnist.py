"""Fashion-MNIST as ``recipes/fashion_mnist_vit.yaml`` reads it.

    python benchmarks/fashion_mnist.py /usr/share/datasets/fashion-mnist data/fashion_mnist
    paretopath search recipes/fashion_mnist_vit.yaml
    paretopath exits runs/fashion_mnist_vit --max-loss 0.5
    python benchmarks/early_exit.py runs/fashion_mnist_vit --max-loss 0.5 --threads 1

The first folder holds the four published files in IDX format (Xiao et al., "Fashion-MNIST",
arXiv 1708.07747), as Debian's package ``dataset-fashion-mnist`` installs them; the second gets
``train.parquet`` (60,000 images) and ``test.parquet`` (10,000), columns ``image`` and ``label``.
"""

import argparse
import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt
from datasets import ClassLabel, Dataset, Features, Image

PARTS = {"train": "train", "test": "t10k"}
KINDS = (
    *("t-shirt or top", "trousers", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)


def read_idx(file: Path) -> npt.NDArray[np.uint8]:
    """An array of bytes in IDX format, gzipped: its last byte of four says how many axes, each as
    long as the big-endian numbers after it say.
    """
    content = gzip.decompress(file.read_bytes())
    if content[:3] != b"\0\0\x08":
        raise ValueError(f"{file} must hold bytes in IDX format, but begins with {content[:3]!r}")
    shape = np.frombuffer(content, ">u4", count=content[3], offset=4).tolist()
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("published", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    features = Features({"image": Image(), "label": ClassLabel(names=list(KINDS))})
    for part, name in PARTS.items():
        images = read_idx(arguments.published / f"{name}-images-idx3-ubyte.gz")
        labels = read_idx(arguments.published / f"{name}-labels-idx1-ubyte.gz")
        table = Dataset.from_dict({"image": list(images), "label": labels.tolist()}, features)
        table.to_parquet(arguments.folder / f"{part}.parquet")
        print(f"{part}: {len(table)} images")


if __name__ == "__main__":
    main()
