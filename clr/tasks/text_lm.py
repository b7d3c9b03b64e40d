"""``text-lm``: a language model on the bytes or characters of a text file of one's own."""

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from clr.errors import DataMissing, InvalidArgument
from clr.tasks.networks import LanguageModel
from clr.tasks.registry import task
from clr.training.task import Task

Examples = tuple[Tensor, Tensor]


@task("text-lm")
def text_lm(
    data: Path,
    tokens: Literal["bytes", "characters"] = "bytes",
    context: Annotated[int, Field(ge=2, le=4096)] = 64,
    width: Annotated[int, Field(ge=1, le=4096)] = 64,
    depth: Annotated[int, Field(ge=1, le=64)] = 2,
    heads: Annotated[int, Field(ge=1, le=64)] = 2,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    val_share: Annotated[float, Field(gt=0, lt=1)] = 0.1,
) -> Task:
    """Language model on the bytes or characters of a text file; a small transformer; loss on the end of the text.

    The text is cut into pieces of ``context`` tokens, each of which is to be told from those before it in its piece.
    The loss is the mean cross-entropy of a token in nats; there is no other metric. AdamW suits transformers.

    Args:
        data: path of the text file; in UTF-8 where tokens are characters.
        tokens: what a token is.
        context: tokens in a piece.
        width: of the embedding, a multiple of heads.
        depth: number of transformer blocks.
        heads: attention heads of each block.
        dropout: share of units left out at each training step.
        val_share: share of the text, its end, that the model is scored on.
    """
    if width % heads:
        raise InvalidArgument("args.width", f"must be a multiple of args.heads = {heads}", width)
    train, val, vocabulary = _load(str(data.resolve()), tokens, context, val_share)
    return Task(
        model=lambda: LanguageModel(vocabulary, context, width, depth, heads, dropout),
        train=train,
        val=val,
        loss=next_token_loss,
        batch_size=32,
    )


def next_token_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of (n, length, vocabulary) logits and the (n, length) tokens that follow, in nats."""
    return F.cross_entropy(logits.flatten(0, 1).float(), target.flatten().long())


@lru_cache(maxsize=2)
def _load(data: str, tokens: str, context: int, val_share: float) -> tuple[Examples, Examples, int]:
    """Training and validation pieces, (n, context) int32, each with the tokens that follow; the number of tokens."""
    numbers, vocabulary = _numbers(Path(data), tokens)
    pieces = (len(numbers) - 1) // context
    val = max(1, round(pieces * val_share))
    if pieces < 2 or val >= pieces:
        raise InvalidArgument(
            "args.data",
            f"must be longer than two pieces of args.context = {context} tokens, one to train on and one to score, and "
            f"has {len(numbers)}",
            data,
        )
    inputs, follow = (torch.from_numpy(numbers[i : i + pieces * context]).view(pieces, context) for i in (0, 1))
    return (inputs[:-val], follow[:-val]), (inputs[-val:], follow[-val:]), vocabulary


def _numbers(path: Path, tokens: str) -> tuple[np.ndarray[tuple[int], np.dtype[np.int32]], int]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataMissing(f"args.data: must be a text file that can be read, but {path}: {error.strerror}") from error
    if tokens == "bytes":
        return np.frombuffer(raw, np.uint8).astype(np.int32), 256
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        where = f"{error.reason} at byte {error.start}"
        raise InvalidArgument("args.tokens", f"must be bytes where {path} is not in UTF-8 ({where})", tokens) from None
    known, numbers = np.unique(np.array(list(text)), return_inverse=True)
    return numbers.astype(np.int32), len(known)
