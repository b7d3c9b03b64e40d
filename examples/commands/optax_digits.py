"""JAX and optax: `run.lr` is a schedule, also inside `jax.jit`.

By hand:   python examples/commands/optax_digits.py
By clr:    clr tune --epochs 10 --iterations-per-epoch 24 --direction maximize -- \
               python examples/commands/optax_digits.py
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import clr

run = clr.current_run(base_lr=0.01, max_lr=0.1, step_size_up=120, steps=240)
pixels, labels = load_digits(return_X_y=True)
images = ((pixels - 4.9) / 6.0).astype(np.float32)

first, second = jax.random.split(jax.random.key(run.seed))
params = {
    "hidden": 0.1 * jax.random.normal(first, (64, 64)),
    "output": 0.1 * jax.random.normal(second, (64, 10)),
}
optimizer = optax.sgd(run.lr, momentum=0.9)
state = optimizer.init(params)


def outputs(params, x):
    """Of a network with one hidden layer."""
    return jax.nn.relu(x @ params["hidden"]) @ params["output"]


@jax.jit
def update(params, state, x, y):
    """One step; the loss before it."""

    def mean_loss(params):
        return optax.softmax_cross_entropy_with_integer_labels(outputs(params, x), y).mean()

    loss, gradients = jax.value_and_grad(mean_loss)(params)
    changes, state = optimizer.update(gradients, state)
    return optax.apply_updates(params, changes), state, loss


shuffled = np.random.default_rng(run.seed)
for step in range(run.steps):
    if step % 24 == 0:
        order = shuffled.permutation(1200)
    batch = order[step % 24 * 50 :][:50]
    params, state, loss = update(params, state, images[batch], labels[batch])
    accuracy = None
    if run.evaluates(step):
        accuracy = jnp.mean(outputs(params, images[1200:]).argmax(1) == labels[1200:])
    run.log(loss=loss, metric=accuracy)
