"""Does the best weight decay fall as the LR of the cycle rises, does the best dropout, and does a short search find it?

    SUPERCONV_DATA=/path/to/data python benchmarks/balance.py [--log FILE] [--tasks digits,fashion,cifar] [--time]

A small residual network with BatchNorm, SGD, fastai's decoupled decay, on digits (1,000 images), Fashion-MNIST at
14x14 (1,000) and CIFAR-10 at 16x16 (2,000). Every run is one complete 1cycle from fresh weights. Full runs over 5 LRs
x 7 weight decays, and over 5 LRs x 4 dropouts, are scored on the test split; short ones, as a search would do them,
on a split of their own. Seeds are paired: a seed gives the initial weights and the order of the data. Each finished
run is one line of the log, so an interrupted study goes on where it stopped; results/balance.json holds them all.
"""
import argparse, time, warnings
from pathlib import Path
import numpy as np, torch
from fastai.basics import *
from superconv_fastai.data import digits, load_images, tensor_dls
from superconv_fastai.balance import run_cycle
from superconv_fastai.runs import RunLog, read_log
from common import results, save_results
from subset import cifar10_subset
import time # after the star import, like product
from itertools import product

def splits(x, y, xt, yt, n_train, n_tune, n_test):
    "Half-size images, normalised; 'tune' comes from the training set"
    x,xt = (F.avg_pool2d(o.float(), 2) for o in (x[:n_train+n_tune], xt[:n_test]))
    y,yt = y[:n_train+n_tune],yt[:n_test]
    m = x[:n_train].mean((0,2,3), keepdim=True)
    s = x[:n_train].std((0,2,3), keepdim=True)
    x,xt = (x-m)/s,(xt-m)/s
    return dict(train=(x[:n_train],y[:n_train]), tune=(x[n_train:],y[n_train:]), test=(xt,yt))

def fashion():
    (x,y),(xt,yt) = load_images('fashion_mnist')
    return splits(x, y, xt, yt, 1000, 1000, 2000)

def cifar():
    def mixed(x, y):
        i = np.random.RandomState(0).permutation(len(x))
        return x[i],y[i]
    (x,y),(xt,yt) = (mixed(*o) for o in cifar10_subset())
    return splits(x, y, xt, yt, 2000, 1000, 2000)

class Block(Module):
    def __init__(self, i, o, p, stride):
        def conv(i, ks, stride): return nn.Conv2d(i, o, ks, stride=stride, padding=ks//2, bias=False)
        self.body = nn.Sequential(conv(i, 3, stride), nn.BatchNorm2d(o), nn.ReLU(), nn.Dropout(p),
                                  conv(o, 3, 1), nn.BatchNorm2d(o))
        self.short = noop if i==o and stride==1 else nn.Sequential(conv(i, 1, stride), nn.BatchNorm2d(o))
    def forward(self, x): return F.relu(self.body(x) + self.short(x))

def resnet8(n_in, size, p=.2):
    "ResNet-8 with 20,000 parameters; dropout inside the blocks. It works on 7x7 or 8x8 pixels from the first layer on"
    first = nn.Conv2d(n_in, 8, 3, stride=1+(size>8), padding=1, bias=False)
    blocks = Block(8, 8, p, 1),Block(8, 16, p, 2),Block(16, 32, p, 2)
    head = nn.AdaptiveAvgPool2d(1),Flatten(),nn.Linear(32, 10)
    return nn.Sequential(first, nn.BatchNorm2d(8), nn.ReLU(), *blocks, *head)

def fresh(model):
    for m in model.modules():
        if hasattr(m, 'reset_parameters'): m.reset_parameters()

tasks = dict(digits=dict(get=lambda: {k:digits(k) for k in ('train','tune','test')}, bs=64, full=15, short=3),
             fashion=dict(get=fashion, bs=64, full=20, short=4),
             cifar=dict(get=cifar, bs=64, full=12, short=3))
lrs = [.03,.1,.3,1.,3.]
wds = [0.,1e-3,1e-2,3e-2,.1,.3,1.]
drops,wd_of_drops = [0.,.5,1.,2.],1e-3 # multipliers of p=0.2, at one small weight decay
cache = {}

def learner(task, split):
    t = tasks[task]
    if task not in cache: cache[task] = t['get']()
    d = cache[task]
    set_seed(0)
    dls = tensor_dls(d['train'], d[split], bs=t['bs'], device='cpu')
    dls.train.drop_last = True
    _,n_in,size,_ = d['train'][0].shape
    return Learner(dls, resnet8(n_in, size), loss_func=nn.CrossEntropyLoss(), opt_func=partial(SGD, mom=.95),
                   metrics=accuracy, path=Path('/tmp'))

def plan(names):
    "What to run: task, epochs, split, LR, weight decay, dropout, seed; what answers most comes first"
    first,rest = range(3),range(3,5)
    for name,seeds in (('digits',range(5)), ('fashion',first), ('cifar',first), ('fashion',rest), ('cifar',rest)):
        if name not in names: continue
        t = tasks[name]
        for seed,(n,split),lr in product(seeds, ((t['full'],'test'),(t['short'],'tune')), lrs):
            yield from ((name,n,split,lr,wd,0.,seed) for wd in wds)
            if split=='test': yield from ((name,n,split,lr,wd_of_drops,p,seed) for p in drops if p)

def run(name, n, split, lr, wd, p, seed): return run_cycle(learner(name, split), lr, n, fresh, wd, p, seed)

def time_each(todo):
    "Time one run of each kind"
    for kind in dict.fromkeys(o[:2] for o in todo):
        same = [o for o in todo if o[:2]==kind]
        start = time.perf_counter()
        res = run(*same[0])
        seconds = time.perf_counter()-start
        print(*kind, f'{seconds:.2f} s, {len(same)} runs: {seconds*len(same)/60:.1f} min', res)

def run_all(todo, path):
    "The runs of the log, once all are there"
    with RunLog('study', path, dict(study='balance')) as log:
        for k in todo:
            if k in log.runs: continue
            log.add(k, run(*k))
            if k[4]==wds[-1]: print(time.strftime('%H:%M:%S'), len(log.runs), 'of', len(todo), *k, flush=True)
        return log.runs

def as_text(v): return '' if v is None else f'{v:.6g}' if isinstance(v, float) else str(v)

def save(names, todo, runs):
    "A line of text for each run"
    def line(k, r): return (*k, r['loss'], r['metrics'].get('accuracy'), r['train_loss'], r['steps'], r['start'])
    grid = dict(lrs=lrs, wds=wds, drops=drops, wd_of_drops=wd_of_drops,
                tasks={n: {k:v for k,v in tasks[n].items() if k!='get'} for n in names})
    columns = 'task,epochs,split,lr_max,wd,dropout,seed,loss,accuracy,train_loss,steps,start'
    lines = [','.join(map(as_text, line(k, runs[k]))) for k in todo if k in runs]
    save_results('balance', dict(grid=grid, columns=columns, runs=lines))

def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--log', default=str(results/'balance.jsonl'))
    ap.add_argument('--tasks', default='digits,fashion,cifar')
    ap.add_argument('--time', action='store_true', help='time one run of each kind and stop')
    ap.add_argument('--save', action='store_true', help='write the results of the runs in the log and stop')
    a = ap.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    names = a.tasks.split(',')
    todo = list(plan(names))
    if a.time: return time_each(todo)
    results.mkdir(exist_ok=True)
    save(names, todo, read_log('study', a.log)[1] if a.save else run_all(todo, a.log))

if __name__=='__main__': main()
