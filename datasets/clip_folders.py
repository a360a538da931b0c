"""``flickr30k-clip``, ``coco-clip``, ``cc120k-clip``: the field's sets on CLIP features of your own, in the folder format (folder.py)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from .features import SPLITS
from .folder import read_folder, sizes
from .registry import register_dataset
from .types import DataError, PairDataset


@dataclass(frozen=True)
class ClipFolder:
    """A set of known size under ``<data root>/<name>``.

    Attributes:
        name: of the set and of its folder.
        title: what people call it.
        images: images in train, val and test.
        captions_per_image: exactly so many.
        has_real_noise: see :class:`PairDataset`.
    """

    name: str
    title: str
    images: tuple[int, int, int]
    captions_per_image: int
    has_real_noise: bool = False

    def load(self, data_root: Path) -> PairDataset:
        """Read and compare the sizes.

        Raises:
            DataError: absent, of another size, or unusable.
        """
        remark = self.preview(data_root)
        dataset = read_folder(data_root / self.name, self.name)
        return dataclasses.replace(
            dataset, shared_space=True, has_real_noise=self.has_real_noise, remark=remark.partition(" (")[0]
        )

    def preview(self, data_root: Path) -> str:
        """The sentence for lists, from the headers of the files alone; same errors as :meth:`load`."""
        folder = data_root / self.name
        if not folder.is_dir():
            raise DataError(
                f"{self.name}: there is no folder {folder}; make it from your CLIP features of {self.title} "
                'as README.md, "Bring your own features", shows'
            )
        found = sizes(folder)
        for split, images in zip(SPLITS, self.images, strict=True):
            expected = (images, images * self.captions_per_image)
            if found[split] != expected:
                raise DataError(
                    f"{folder / split}: {found[split][0]:,} images and {found[split][1]:,} captions, but the {split} split of "
                    f"{self.title} has {expected[0]:,} and {expected[1]:,}; use the split of README.md or a folder name of your own"
                )
        text = ", ".join(f"{split} {pair[0]:,} x {pair[1]:,}" for split, pair in found.items())
        return f"{self.title}, CLIP features of your own ({text})"


FLICKR30K = ClipFolder("flickr30k-clip", "Flickr30K", (29_000, 1_014, 1_000), 5)
COCO = ClipFolder("coco-clip", "MS-COCO", (113_287, 5_000, 5_000), 5)
CC120K = ClipFolder("cc120k-clip", "CC120K", (118_851, 1_000, 1_000), 1, has_real_noise=True)


@register_dataset(name="flickr30k-clip", preview=FLICKR30K.preview)
def flickr30k(data_root: Path) -> PairDataset:
    """Flickr30K: 29,000 / 1,014 / 1,000 images, 5 captions each (Karpathy's split)."""
    return FLICKR30K.load(data_root)


@register_dataset(name="coco-clip", preview=COCO.preview)
def coco(data_root: Path) -> PairDataset:
    """MS-COCO: 113,287 / 5,000 / 5,000 images, 5 captions each (Karpathy's split)."""
    return COCO.load(data_root)


@register_dataset(name="cc120k-clip", preview=CC120K.preview)
def cc120k(data_root: Path) -> PairDataset:
    """CC120K: 118,851 / 1,000 / 1,000 pairs from the web (NPC's split), an estimated 3-20 % of them mismatched, in all splits."""
    return CC120K.load(data_root)
