"""Super-convergence on several GPUs, one process for each:

    accelerate launch examples/distributed.py

Without `accelerate launch` it runs in one process. Every process makes every call, as all
training must. Each has its own part of the data, in batches of its own: with `n` processes
an optimizer step has the items of `n` batches, and an epoch has `n` times fewer steps. The
cycle is planned for those, and every process gets the same schedule, the same curve and the
same verdict. `lr_max` belongs to the batches of all processes together, so the range test
has to run inside `distrib_ctx`, too."""
from fastai.distributed import * # needs accelerate
from fastai.vision.all import *
from superconv_fastai.all import *

set_seed(0) # the same network in every process
model = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
                      nn.AdaptiveAvgPool2d(4), Flatten(), nn.Linear(256, 10))
learn = Learner(digits_dls('tune'), model, CrossEntropyLossFlat(), opt_func=partial(SGD, mom=.9), metrics=accuracy)

with learn.distrib_ctx(): # replaces BatchNorm by a synchronous one
    test = learn.lr_range_test(lr_max=2., n_steps=100)
    learn.fit_superconv(4, test.lr_max)

if not rank_distrib():
    print(test)
    print(f'accuracy {learn.recorder.values[-1][-1]:.3f}')
