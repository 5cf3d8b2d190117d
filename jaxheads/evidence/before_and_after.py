"""Does removing a head undo what the phase change did, token by token?"""

import numpy as np


def before_and_after(
    steps: np.ndarray,
    token_losses: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    clean: np.ndarray,
    ablated: np.ndarray,
) -> dict[str, np.ndarray]:
    """Effects of heads along the change of per-token losses over the phase change.

    ``u = (after - before) / |after - before|`` over the S losses, and
    ``by_head[l, h] = u . (losses with head (l, h) removed - losses)``. Where losses
    fell u is negative, so a head whose removal raises just those losses has a negative
    product; one of ``-|after - before|`` undoes the whole change.

    Args:
        steps: int [E], of the evaluations, rising.
        token_losses: [E, N, S], nats, of the evaluations. Targets that are NaN
            anywhere, of windows without one that counts, are left out.
        before: [N], step at which the phase change begins; negative or NaN: the seed
            has none. The evaluation nearest to it is taken.
        after: [N], step at which it is over.
        clean: [N, S], losses of the model whose heads are removed.
        ablated: [N, L, H, S], with each head removed, see ``ablation_attribution``. Of
            these and the evaluations, those of more samples are cut to the first S of
            the others: windows are drawn in one order.

    Returns:
        float64 by name: "by_head" [N, L, H], nats along u (with S samples a loss that
        falls by d everywhere has a change of length ``d sqrt(S)``); "share"
        [N, L, H], ``by_head`` over the length, -1: the whole change is undone; "length"
        [N], nats; "direction" [N, S], u, 0 at targets that are left out. NaN for seeds
        without a phase change, or whose losses did not change.

    Source: Olsson et al. 2022, before-and-after vectors.
    """
    samples = min(token_losses.shape[-1], clean.shape[-1])
    token_losses, clean, ablated = (
        np.asarray(each, np.float64)[..., :samples]
        for each in (token_losses, clean, ablated)
    )
    runs = len(clean)
    change = np.full((runs, samples), np.nan)
    for n, ends in enumerate(zip(before, after, strict=True)):
        if np.isfinite(ends).all() and min(ends) >= 0:
            begin, end = (np.abs(np.asarray(steps) - step).argmin() for step in ends)
            change[n] = token_losses[end, n] - token_losses[begin, n]
    effects = ablated - clean[:, None, None]  # [N, L, H, S]
    dated = np.isfinite(change).any(axis=1)
    counted = np.isfinite(change) & np.isfinite(effects).all(axis=(1, 2))
    change = np.where(counted, change, 0.0)
    length = np.where(dated, np.linalg.norm(change, axis=1), np.nan)
    length = np.where(length > 0, length, np.nan)
    direction = change / length[:, None]  # [N, S]
    effects = np.where(counted[:, None, None], effects, 0.0)
    by_head = np.einsum("nlhs,ns->nlh", effects, direction)
    return {
        "by_head": by_head,
        "share": by_head / length[:, None, None],
        "length": length,
        "direction": direction,
    }
