"""SGR and SAF: similarity networks on image regions and words, the encoders of NCR and its successors (ncr.md 5A, backbones.md 3).

Reference: H. Diao, Y. Zhang, L. Ma, H. Lu, Similarity Reasoning and Filtration for Image-Text Matching, AAAI 2021;
code as in github.com/XLearning-SCU/2021-NeurIPS-NCR. Parameter names are the official ones, so official weights load.

The similarity is no inner product: every image is compared with every caption word by word, one caption at a time.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

EPS = 1e-8
LAMBDA_SOFTMAX = 9.0
LEAK = 0.1


def l2norm(x: Tensor, dim: int) -> Tensor:
    """``x / (|x| + 1e-8)``: the constant is added, as in the official code, not clamped."""
    return x / (torch.linalg.vector_norm(x, dim=dim, keepdim=True) + EPS)


def l1norm(x: Tensor, dim: int) -> Tensor:
    """``x / (sum |x| + 1e-8)``."""
    return x / (x.abs().sum(dim, keepdim=True) + EPS)


class RegionEncoder(nn.Module):
    """Regions ``[n, r, region_dim]`` to unit vectors ``[n, r, embed_dim]``."""

    def __init__(self, region_dim: int, embed_dim: int) -> None:
        super().__init__()
        self.fc = nn.Linear(region_dim, embed_dim)

    def forward(self, images: Tensor) -> Tensor:
        return l2norm(self.fc(images), dim=-1)


class WordEncoder(nn.Module):
    """Word ids ``[m, L]`` of captions with ``lengths [m]``, in any order, to unit vectors ``[m, max(lengths), embed_dim]``.

    Positions behind the end of a caption are 0.
    """

    def __init__(self, vocabulary: int, word_dim: int, embed_dim: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, word_dim)
        self.dropout = nn.Dropout(dropout)
        self.cap_rnn = nn.GRU(word_dim, embed_dim, layers, batch_first=True, bidirectional=True)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        words = self.dropout(self.embed(tokens))
        packed = pack_padded_sequence(words, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.cap_rnn(packed)[0], batch_first=True)
        forward, backward = states.chunk(2, dim=-1)
        return l2norm((forward + backward) / 2, dim=-1)


class SelfAttention(nn.Module):
    """One vector per item: its local vectors ``[n, k, dim]``, weighted by their agreement with their mean ``[n, dim]``.

    ``regions`` given: the visual form, with batch normalisation whose channels are the regions; None: the textual form, without.
    """

    def __init__(self, dim: int, dropout: float, regions: int | None = None) -> None:
        super().__init__()
        self.embedding_local = self._branch(dim, dropout, regions)
        self.embedding_global = self._branch(dim, dropout, None if regions is None else dim)
        self.embedding_common = nn.Sequential(nn.Linear(dim, 1))

    @staticmethod
    def _branch(dim: int, dropout: float, channels: int | None) -> nn.Sequential:
        normalise = [] if channels is None else [nn.BatchNorm1d(channels)]
        return nn.Sequential(nn.Linear(dim, dim), *normalise, nn.Tanh(), nn.Dropout(dropout))

    def forward(self, local: Tensor, mean: Tensor) -> Tensor:
        agreement = self.embedding_local(local) * self.embedding_global(mean)[:, None]
        weight = self.embedding_common(agreement).squeeze(-1).softmax(dim=1)
        return l2norm((weight[..., None] * local).sum(dim=1), dim=-1)


class GraphReasoning(nn.Module):
    """One step of similarity graph reasoning: ``X <- relu(W softmax(Q(X) K(X)^T) X)`` over nodes ``[n, nodes, dim]``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.graph_query_w = nn.Linear(dim, dim)
        self.graph_key_w = nn.Linear(dim, dim)
        self.sim_graph_w = nn.Linear(dim, dim)

    def forward(self, nodes: Tensor) -> Tensor:
        edges = (self.graph_query_w(nodes) @ self.graph_key_w(nodes).mT).softmax(dim=-1)
        return F.relu(self.sim_graph_w(edges @ nodes))


class AttentionFiltration(nn.Module):
    """Similarity attention filtration: nodes ``[n, nodes, dim]`` weighted and added to one unit vector ``[n, dim]``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attn_sim_w = nn.Linear(dim, 1)
        self.bn = nn.BatchNorm1d(1)

    def forward(self, nodes: Tensor) -> Tensor:
        score = self.bn(self.attn_sim_w(nodes).mT).sigmoid()
        return l2norm((l1norm(score, dim=-1) @ nodes).squeeze(1), dim=-1)


class SimilarityEncoder(nn.Module):
    """Similarity of all images ``[n, r, embed_dim]`` with all captions ``[m, L, embed_dim]``."""

    def __init__(self, embed_dim: int, sim_dim: int, module: str, steps: int, dropout: float, regions: int) -> None:
        super().__init__()
        self.v_global_w = SelfAttention(embed_dim, dropout, regions)
        self.t_global_w = SelfAttention(embed_dim, dropout)
        self.sim_tranloc_w = nn.Linear(embed_dim, sim_dim)
        self.sim_tranglo_w = nn.Linear(embed_dim, sim_dim)
        self.sim_eval_w = nn.Linear(sim_dim, 1)
        if module == "SGR":
            self.SGR_module = nn.ModuleList(GraphReasoning(sim_dim) for _ in range(steps))
        else:
            self.SAF_module = AttentionFiltration(sim_dim)

    def forward(self, images: Tensor, captions: Tensor, lengths: Tensor) -> Tensor:
        """Raw scores ``R [n, m]`` before the sigmoid."""
        vectors = self.vectors(images, captions, lengths)
        return self.sim_eval_w(vectors).squeeze(-1)

    def vectors(self, images: Tensor, captions: Tensor, lengths: Tensor) -> Tensor:
        """Similarity vectors ``[n, m, sim_dim]``."""
        whole = self.v_global_w(images, images.mean(dim=1))
        columns = [self._column(images, whole, words[:k]) for words, k in zip(captions, lengths.tolist(), strict=True)]
        return torch.stack(columns, dim=1)

    def _column(self, images: Tensor, whole: Tensor, words: Tensor) -> Tensor:
        """Vectors ``[n, sim_dim]`` of all images with one caption of ``words [L, embed_dim]``."""
        sentence = self.t_global_w(words[None], words.mean(dim=0, keepdim=True))
        context = attend(words, images)
        local = l2norm(self.sim_tranloc_w((context - words).square()), dim=-1)
        overall = l2norm(self.sim_tranglo_w((whole - sentence).square()), dim=-1)
        nodes = torch.cat([overall[:, None], local], dim=1)
        if hasattr(self, "SAF_module"):
            return self.SAF_module(nodes)
        for step in self.SGR_module:
            nodes = step(nodes)
        return nodes[:, 0]


def attend(words: Tensor, images: Tensor) -> Tensor:
    """What every word ``[L, dim]`` sees of every image ``[n, r, dim]``: unit vectors ``[n, L, dim]``."""
    affinity = l2norm(F.leaky_relu(images @ words.mT, LEAK), dim=-1)
    weight = (LAMBDA_SOFTMAX * affinity).softmax(dim=1)
    return l2norm(weight.mT @ images, dim=-1)


class SGRAF(nn.Module):
    """Image encoder ``img``, text encoder ``txt`` and similarity encoder ``sim``, either SGR or SAF.

    "SGRAF" in tables is the mean of the similarities of one network of each kind.

    Args:
        region_dim: dimension of the region features.
        vocabulary: number of word ids.
        module: ``SGR`` (graph reasoning) or ``SAF`` (attention filtration).
        embed_dim, word_dim, sim_dim: dimensions of embeddings, word vectors and similarity vectors.
        regions: regions per image, fixed by the batch normalisation over them.
        layers: layers of the bidirectional GRU.
        steps: graph reasoning steps (SGR only).
        dropout: after word vectors and inside the self-attentions.

    Raises:
        ValueError: an unknown module.
    """

    batched: ClassVar[bool] = False

    def __init__(
        self,
        region_dim: int,
        vocabulary: int,
        module: Literal["SGR", "SAF"] = "SGR",
        *,
        embed_dim: int = 1024,
        word_dim: int = 300,
        sim_dim: int = 256,
        regions: int = 36,
        layers: int = 1,
        steps: int = 3,
        dropout: float = 0.4,
    ) -> None:
        if module not in ("SGR", "SAF"):
            raise ValueError(f"unknown similarity module {module!r}; known: SGR, SAF")
        super().__init__()
        self.img = RegionEncoder(region_dim, embed_dim)
        self.txt = WordEncoder(vocabulary, word_dim, embed_dim, layers, dropout)
        self.sim = SimilarityEncoder(embed_dim, sim_dim, module, steps, dropout, regions)
        self.apply(_initialise)
        nn.init.uniform_(self.txt.embed.weight, -0.1, 0.1)

    def forward(self, images: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Similarity ``S [n, m]`` in (0, 1) of images ``[n, regions, region_dim]`` and captions ``tokens [m, L]`` with ``lengths [m]``."""
        return self.raw(images, tokens, lengths).sigmoid()

    def raw(self, images: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        """The logits ``R [n, m]`` of the similarity."""
        return self.sim(self.img_emb(images), self.cap_emb(tokens, lengths), lengths)

    def img_emb(self, images: Tensor) -> Tensor:
        """Unit region embeddings ``[n, regions, embed_dim]``."""
        return self.img(images)

    def cap_emb(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Unit word embeddings ``[m, max(lengths), embed_dim]``, zero behind the end of a caption."""
        return self.txt(tokens, lengths)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
