#!/usr/bin/awk -f
# No Python: least squares by gradient descent on batches, in awk. All that clr asks of a program is to read the file
# that CLR_RUN names, and to append lines to the one that CLR_POINTS names (docs/commands.md).
#
# clr tune --epochs 10 --iterations-per-epoch 50 --direction minimize -- awk -f examples/commands/least_squares.awk

BEGIN {
    getline run < ENVIRON["CLR_RUN"]
    points = ENVIRON["CLR_POINTS"]
    policy = told("policy"); base = told("base_lr") + 0; top = told("max_lr") + 0; steps = told("steps") + 0
    up = told("step_size_up") + 0; down = told("step_size_down") + 0
    if (down == 0) down = up # null: as many
    pi = atan2(0, -1)
    size = 20; batch = 8
    srand(1)
    for (i = 1; i <= size; i++) truth[i] = 2 * rand() - 1
    srand(told("seed") + 0)
    for (step = 0; step < steps; step++) {
        loss = descend(rate(step))
        # Once it is no number, clr ends this program.
        printf "{\"step\": %d, \"loss\": %.9g}\n", step + 1, loss >> points
        fflush(points)
    }
}

# One step on a fresh batch with noise; the mean loss before it.
function descend(lr,   i, j, error, sum, x, gradient) {
    for (j = 1; j <= batch; j++) {
        error = 0.2 * (2 * rand() - 1)
        for (i = 1; i <= size; i++) {
            x[i] = 2 * rand() - 1
            error += x[i] * (weight[i] - truth[i])
        }
        for (i = 1; i <= size; i++) gradient[i] += error * x[i]
        sum += error * error
    }
    for (i = 1; i <= size; i++) weight[i] -= lr * gradient[i] / batch
    return sum / batch / 2
}

# The value of a name in the run's file, which is one line.
function told(name,   value) {
    match(run, "\"" name "\": *[^,}]*")
    value = substr(run, RSTART, RLENGTH)
    sub(/^[^:]*: */, "", value)
    gsub(/"/, "", value)
    return value
}

# The rate of a step, counted from 0, of the policies that clr hands out.
function rate(t,   place, last, peak) {
    if (policy == "fixed") return top
    if (policy == "exponential_ramp") return base * (top / base) ^ (t < up - 1 ? t / (up - 1) : 1)
    if (policy == "cosine") return between(top, base, t / (2 * up))
    if (policy == "one_cycle") {
        last = 2 * up - 1; peak = 0.6 * up - 1
        return t <= peak ? between(base, top, t / peak) : between(top, base / 1e4, (t - peak) / (last - peak))
    }
    if (policy == "triangular") {
        place = t % (up + down)
        return base + (top - base) * (place <= up ? place / up : (up + down - place) / down)
    }
    print "this program knows no policy " policy > "/dev/stderr"
    exit 1
}

# From low to high along half a cosine.
function between(low, high, share) {
    return low + (high - low) * (1 - cos(pi * (share < 1 ? share : 1))) / 2
}
