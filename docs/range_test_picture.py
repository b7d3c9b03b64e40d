"""Draw docs/range-test.svg: the range test of a small convolutional network on 10,000 images of Fashion-MNIST."""

from pathlib import Path

import torch

import clr
from clr.charts import svg


def main() -> None:
    """Run the test and write the picture beside this file."""
    torch.set_num_threads(1)  # what the workers give a run, and reproducible
    tested = clr.range_test(clr.load_task("fashion-mnist"), epochs=10)
    Path(__file__).with_name("range-test.svg").write_text(svg(tested.chart("accuracy")))
    print(tested.bounds)


if __name__ == "__main__":
    main()
