"""Does the verdict of `lr_range_test` agree with training? Small networks on digits, Fashion-MNIST and CIFAR-10.

For each network: a range test (and re-runs with its own advice if it cannot tell), with both ways to evaluate
BatchNorm; a fit with the better of two small constant LRs (0.01 and 0.03); `fit_superconv` at the LR that the test
recommends, and at LR 1, in the same number of epochs. All fits are long enough for the cycle to reach its LR no
faster than the test did (`RangeTest.min_steps`). The folder with Fashion-MNIST and CIFAR-10 is taken from
SUPERCONV_DATA; without it only digits run.

Writes results/live_range_test.json; `--data` and `--nets` choose rows, and keep the others. About 40 minutes on one
core.
"""
import argparse, json, math, os, time, warnings
from pathlib import Path

import numpy as np, torch
from fastai.basics import *
from superconv_fastai.all import *
from superconv_fastai.data import digits, load_images, tensor_dls
from common import results, save_results
from subset import cifar10_subset

def images(x, y): return (F.avg_pool2d(x.float(), 2)-120)/65, y

def fashion(): return [images(x[:n], y[:n]) for (x,y),n in zip(load_images('fashion_mnist'), (3000,1000))]

def cifar():
    def part(x, y, n):
        i = np.random.RandomState(0).permutation(len(x))[:n]
        return images(x[i], y[i])
    return [part(x, y, n) for (x,y),n in zip(cifar10_subset(), (5000,1000))]

def conv(i, o, stride=1, bn=True, act=True):
    return nn.Sequential(nn.Conv2d(i, o, 3, stride, 1, bias=not bn), *[nn.BatchNorm2d(o)]*bn, *[nn.ReLU()]*act)

class Residual(nn.Module):
    def __init__(self, i, o, stride=1, bn=True):
        super().__init__()
        self.body = nn.Sequential(conv(i, o, stride, bn), conv(o, o, 1, bn, act=False))
        self.skip = nn.Identity() if i==o and stride==1 else nn.Conv2d(i, o, 1, stride, bias=False)
    def forward(self, x): return F.relu(self.body(x)+self.skip(x))

def he_init(model):
    "He et al.'s initialisation, without which the deep networks without BatchNorm do not start"
    for m in model.modules():
        if isinstance(m, (nn.Conv2d,nn.Linear)):
            nn.init.kaiming_normal_(m.weight, nonlinearity='relu')
            if m.bias is not None: nn.init.zeros_(m.bias)
    return model

def head(c): return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 10)]

def resnet(c, bn=True, w=16):
    blocks = Residual(w, w, 1, bn),Residual(w, 2*w, 2, bn),Residual(2*w, 2*w, 1, bn)
    return he_init(nn.Sequential(conv(c, w, 1, bn), *blocks, *head(2*w)))

def plain(c, bn=True, w=16):
    "Six convolutions; the third halves the sides and doubles the channels"
    widths = (w,w,w,2*w,2*w,2*w)
    layers = [conv(i, o, 1 if i==o else 2, bn) for i,o in zip(widths, widths[1:])]
    return he_init(nn.Sequential(conv(c, w, 1, bn), *layers, *head(2*w)))

def mlp(n, depth=4, w=100):
    layers = [nn.Linear(n, w), nn.ReLU()] + [o for _ in range(depth-2) for o in (nn.Linear(w, w), nn.ReLU())]
    return he_init(nn.Sequential(nn.Flatten(), *layers, nn.Linear(w, 10)))

on_digits = {'ResNet-8': partial(resnet, 1), 'plain 6 conv, BatchNorm': partial(plain, 1),
             'ResNet-8 without BatchNorm': partial(resnet, 1, bn=False), 'plain 6 conv': partial(plain, 1, bn=False),
             'MLP, 4 layers': partial(mlp, 64)}
on_fashion = {'ResNet-8': partial(resnet, 1), 'plain 6 conv, BatchNorm': partial(plain, 1),
              'plain 6 conv': partial(plain, 1, bn=False), 'MLP, 4 layers': partial(mlp, 196)}
on_cifar = {'ResNet-8': partial(resnet, 3), 'ResNet-8 without BatchNorm': partial(resnet, 3, bn=False)}
# data: epochs, batch size, steps of the test (None: its default, 200 here), networks
networks = {'digits': (16, 64, None, on_digits), 'Fashion-MNIST': (8, 64, None, on_fashion),
            'CIFAR-10': (10, 64, 780, on_cifar)}

def learner(data, net, bs, seed):
    set_seed(seed)
    sgd = partial(SGD, mom=.9, wd=1e-4, decouple_wd=False)
    dls = tensor_dls(*data, bs=bs, device='cpu')
    return Learner(dls, net(), loss_func=CrossEntropyLossFlat(), opt_func=sgd, metrics=accuracy)

def accuracies(make, fit, seeds):
    res = []
    for s in range(seeds):
        learn = make(s)
        with learn.no_bar(), learn.no_logging():
            fit(learn)
            res.append(round(100*learn.validate()[1], 1))
    return res

def range_test(make, **kwargs):
    "As the advice says, up to two re-runs"
    calls,kw = [],{}
    for _ in range(3):
        learn = make(0)
        start = time.perf_counter()
        with learn.no_bar(): res = learn.lr_range_test(**{**kwargs, **kw})
        calls.append(dict(call=kw, seconds=round(time.perf_counter()-start, 1), feasible=res.verdict.feasible,
                          lr_max=res.lr_max, reason=res.verdict.reason, settings=res.settings,
                          lrs=res.lrs.round(5).tolist(), scores=res.scores.round(4).tolist()))
        if res.verdict.feasible is not None: break
        kw = res.rerun
    return res,calls

def study(data, net, epochs, bs, n_steps, seeds, small_lrs=(.01,.03)):
    def make(seed): return learner(data, net, bs, seed)
    row = dict(params=sum(p.numel() for p in net().parameters()))
    for bn_stats in ('running','batch'): # the last one, the default, is the one that counts
        res,calls = range_test(make, bn_stats=bn_stats, n_steps=n_steps)
        row[bn_stats] = dict(feasible=res.verdict.feasible, lr_max=res.lr_max, tests=calls)
    if res.min_steps: epochs = max(epochs, math.ceil(res.min_steps/len(make(0).dls.train)))
    small = {lr: accuracies(make, lambda l: l.fit(epochs, lr), seeds) for lr in small_lrs}
    best = max(small, key=lambda lr: np.mean(small[lr]))
    row.update(epochs=epochs, small=small, small_lr=best, small_acc=small[best])
    row['superconv'] = res.lr_max and accuracies(make, lambda l: l.fit_superconv(epochs, res.lr_max), seeds)
    row['at_1'] = accuracies(make, lambda l: l.fit_superconv(epochs, 1.), seeds)
    return row

def data_of(name):
    if name=='digits': return digits('train'),digits('test')
    return fashion() if name=='Fashion-MNIST' else cifar()

def say(row):
    says = {True:'can', False:'cannot', None:'cannot tell'}
    batch,running = (says[row[k]['feasible']] for k in ('batch','running'))
    lr_max = row['batch']['lr_max'] or math.nan
    print(f"{row['data']:14s} {row['net']:27s} batch: {batch:11s} running: {running:11s} lr_max {lr_max:.3g}",
          f"LR {row['small_lr']:g}: {row['small_acc']}", f"superconv: {row['superconv']}", f"at LR 1: {row['at_1']}",
          sep='  ', flush=True)

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--data', nargs='*', default=list(networks))
    ap.add_argument('--nets', nargs='*')
    ap.add_argument('--seeds', type=int, default=2)
    ap.add_argument('--name', default='live_range_test')
    a = ap.parse_args()
    warnings.filterwarnings('ignore')
    torch.set_num_threads(1)
    path = results/f'{a.name}.json'
    rows = json.loads(path.read_text())['rows'] if path.exists() else []
    order = [(d,n) for d,v in networks.items() for n in v[3]]
    for name in a.data:
        if name!='digits' and not os.environ.get('SUPERCONV_DATA'):
            print(f'{name}: set SUPERCONV_DATA')
            continue
        data,(epochs,bs,n_steps,nets) = data_of(name),networks[name]
        for label,net in nets.items():
            if a.nets and label not in a.nets: continue
            row = dict(data=name, net=label, **study(data, net, epochs, bs, n_steps, a.seeds))
            say(row)
            rows = [r for r in rows if (r['data'],r['net'])!=(name,label)] + [row]
            save_results(a.name, dict(rows=sorted(rows, key=lambda r: order.index((r['data'],r['net'])))))

if __name__=='__main__': main()
