"What the training studies share: small tasks with their networks, learners from a seed, and arms tuned alike."
import warnings
from functools import cache
from fastai.basics import *
from fastai.callback.all import *
from superconv_fastai.compare import *
from superconv_fastai.data import digits, image_dls, tensor_dls
from superconv_fastai.models import resnet8, resnet_cifar
from superconv_fastai.schedule import *
from common import results, save_results
from stored import *
import math, time # after the star imports

def quiet_start():
    "One thread, so that runs repeat to the bit, and no warning for each run"
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')

class EvaluateAt(Callback):
    "Evaluate only after these epochs, counted from 1"
    def __init__(self, epochs): self.epochs = epochs
    def before_validate(self):
        if self.epoch+1 not in self.epochs: raise CancelValidException()

# ---- networks ----

def conv_net(n_in, bn=True):
    "Two convolutions: 6,000 parameters"
    def block(i, o): return [nn.Conv2d(i,o,3,padding=1,bias=not bn)] + [nn.BatchNorm2d(o)]*bn + [nn.ReLU()]
    body = *block(n_in, 16),nn.MaxPool2d(2),*block(16, 32)
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(2), Flatten(), nn.Linear(128, 10))

# ---- learners ----

sgd = partial(SGD, mom=.9)

def classifier(dls, model, opt=sgd, wd=.01, **kwargs):
    "A learner of this network, scored by its accuracy"
    return Learner(dls, model, loss_func=nn.CrossEntropyLoss(), opt_func=opt, metrics=accuracy, wd=wd,
                   path=Path('/tmp'), **kwargs)

@cache
def digit_tensors(): return {k:digits(k) for k in ('train','tune','test')}

def digits_learner(
    valid, # 'tune' or 'test'
    seed, bs=64, opt=sgd, wd=.01, bn=True
):
    "Digits, 1,000 images of 8x8, and a network of two convolutions. `compare_fits` seeds before it calls"
    d = digit_tensors()
    dls = tensor_dls(d['train'], d[valid], bs=bs, device='cpu')
    return classifier(dls, conv_net(1, bn), opt, wd)

def resnet8_learner(dls, n_in, opt, wd, width):
    "ResNet-8, which halves the images in its first layer: 78,000 parameters, with width 8 20,000"
    model = resnet8(width, n_in, stride=2)
    if width>=16: model.to(memory_format=torch.channels_last) # oneDNN fails with fewer channels: its issue 6035
    return classifier(dls, model, opt, wd)

def fashion_learner(valid, seed, n_train=10_000, bs=128, opt=sgd, wd=.01, width=16):
    "Fashion-MNIST at 14x14, scored on 5,000 images"
    dls = image_dls('fashion_mnist', bs, n_train, 5000, valid, size=14, device='cpu')
    return resnet8_learner(dls, 1, opt, wd, width)

def few_of(learn, seed, n, total):
    "Only `n` training images of `total`, others with each seed; repeated, so that an epoch has as many steps"
    ds = learn.dls.train.dataset
    i = np.resize(np.random.RandomState(seed).permutation(total)[:n], total)
    learn.dls.train.dataset = type(ds)(*(t[i] for t in ds.tensors))
    return learn

def few_digits(valid, seed, n, total): return few_of(digits_learner(valid, seed), seed, n, total)
def few_fashion(valid, seed, n, total): return few_of(fashion_learner(valid, seed, total, width=8), seed, n, total)

def cifar_learner(valid, seed, n_train=10_000, bs=128, opt=sgd, wd=.01, width=16):
    "CIFAR-10 at 16x16, mirrored at random, scored on 5,000 images"
    dls = image_dls('cifar10', bs, n_train, 5000, valid, 'mirror', size=16, device='cpu')
    return resnet8_learner(dls, 3, opt, wd, width)

def cifar_full_learner(valid, seed):
    "CIFAR-10 whole, crop and mirror, a ResNet-20; for a GPU"
    return classifier(image_dls('cifar10', 128, 45_000, valid=valid, aug='crop+mirror'), resnet_cifar(20))

paper_sgd = partial(SGD, mom=.9, decouple_wd=False) # L2, as Caffe has it

def paper_learner(valid, seed, n_train=10_000):
    "`cifar_learner` with the weight decay of the papers: coupled, on all parameters"
    learn = cifar_learner(valid, seed, n_train, opt=paper_sgd, wd=1e-4, width=8)
    learn.wd_bn_bias = True
    return learn

def full_paper_learner(valid, seed):
    "Figure 1a's own: ResNet-56, batches of 1,000, moving averages of BatchNorm over 20 batches; for a GPU"
    dls = image_dls('cifar10', 1000, valid=valid, aug='mirror')
    return classifier(dls, resnet_cifar(56, shortcut='pool', bn_mom=.05), paper_sgd, 1e-4, wd_bn_bias=True)

# ---- arms ----

def critical(learn, n_epoch, lr): learn.fit_superconv(n_epoch, lr, moms='critical')

arms = {'fit_one_cycle': Learner.fit_one_cycle,
        'fit_superconv': Learner.fit_superconv,
        'fit_superconv, authors': partial(Learner.fit_superconv, policy='authors'),
        'fit_superconv, cosine': partial(Learner.fit_superconv, policy='cosine'),
        'fit_superconv, critical': critical,
        'linear to zero': fit_linear,
        'multistep': fit_multistep}

def tuned_comparison(name, learner, arms, budgets, lrs, seeds, tune_seeds, log=True):
    "Tune each arm at each of its budgets on 'tune', then score all on 'test': the comparison, and the searches by arm"
    def how(kind): return dict(path=results/f'{name}_{kind}.jsonl' if log else None, metric='accuracy', progress=False)
    tuned = {}
    for arm,fit in arms.items():
        budget = budgets[arm] if isinstance(budgets, dict) else budgets
        tuned[arm] = tune_lr(partial(learner, 'tune'), fit, lrs, budget, tune_seeds, **how('tune'))
        print(time.strftime('%H:%M:%S'), name, arm, tuned[arm].lrs, tuned[arm].untuned or '', flush=True)
    res = compare_fits(partial(learner, 'test'), tuned, budgets, seeds, **how('runs'))
    print(time.strftime('%H:%M:%S'), res, flush=True)
    return res,tuned
