"""What HessianFreeLR costs: time per training step and memory, against the same steps without it. Six minutes on one
core.

    python benchmarks/estimator_cost.py [--nets cnn,resnet,mlp] [--pairs 5] [--cpu]

Three networks, SGD with momentum. In one fit, blocks of steps with the callback working and blocks with it asleep
alternate; `overhead` is the median of their differences over the median step, `error` the standard error of that
median. On the large networks the differences drown in the noise of the steps, so the time spent inside the callback
is added up beside it, `inside`, which does not. An estimator that works once per period is timed over whole periods
on the small network; on the large ones in its two busy steps, to which the idle ones are added (`idle`, from the
small network). Memory: what the peak of the process rises by (good to some MiB), and the bytes of the tensors that
the callback holds. `--cpu` reads the processor's time instead of the wall clock, for a machine that is not quiet.
"""
import argparse, json, statistics, time
from pathlib import Path
import numpy as np, torch
from fastai.basics import *
from fastai.callback.progress import ProgressCallback
from superconv_fastai.curvature import HessianFreeLR
from common import results, save_results
import time # after the star imports

clock = time.perf_counter

class Naive(Callback):
    "Eq. 8 as one would write it first: three whole snapshots, two numbers read at each step"
    run_valid,order = False,15
    def __init__(self): self._snaps = []
    def after_step(self):
        self._snaps = self._snaps[-2:] + [[p.detach().clone() for p in self.learn.model.parameters()]]
        if len(self._snaps)<3: return
        a,b,c = self._snaps
        num = sum((y-x).abs().sum() for x,y in zip(a, b)).item()
        den = sum((2*y-x-z).abs().sum() for x,y,z in zip(a, b, c)).item()
        self._est = .1*num/max(den, 1e-30)

class Block(Module):
    def __init__(self, ni, no, stride):
        def conv(i, o, k, s): return nn.Conv2d(i, o, k, s, k//2, bias=False)
        self.c1,self.b1 = conv(ni, no, 3, stride),nn.BatchNorm2d(no)
        self.c2,self.b2 = conv(no, no, 3, 1),nn.BatchNorm2d(no)
        same = stride==1 and ni==no
        self.short = nn.Sequential() if same else nn.Sequential(conv(ni, no, 1, stride), nn.BatchNorm2d(no))
    def forward(self, x): return F.relu(self.b2(self.c2(F.relu(self.b1(self.c1(x))))) + self.short(x))

def cnn():
    "A small network, and a batch for it"
    def block(i, o): return nn.Sequential(nn.Conv2d(i,o,3,padding=1,bias=False), nn.BatchNorm2d(o), nn.ReLU())
    body = block(1, 16),nn.MaxPool2d(2),block(16, 32),block(32, 32)
    model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(2), Flatten(), nn.Linear(128, 10))
    return model,torch.randn(64,1,14,14)

def resnet():
    "ResNet-18's blocks and 11M parameters, with a first layer for CIFAR"
    ws = [64,64,128,256,512]
    pairs = [(Block(i, o, 1 if i==o else 2),Block(o, o, 1)) for i,o in zip(ws, ws[1:])]
    first = nn.Conv2d(3,64,3,padding=1,bias=False),nn.BatchNorm2d(64),nn.ReLU()
    head = nn.AdaptiveAvgPool2d(1),Flatten(),nn.Linear(512, 10)
    return nn.Sequential(*first, *(b for p in pairs for b in p), *head),torch.randn(32,3,32,32)

def mlp():
    "100M parameters"
    layers = nn.Linear(3072,8192),nn.ReLU(),nn.Linear(8192,8192),nn.ReLU(),nn.Linear(8192,1000)
    return nn.Sequential(*layers),torch.randn(64,3072)

nets = dict(cnn=cnn, resnet=resnet, mlp=mlp)
# class, arguments, period
variants = {'naive: 3 snapshots': (Naive, {}, 1),
            'paper, all coordinates, every step': (HessianFreeLR, dict(n_coords=None), 1),
            'paper, sample of 10,000, every step': (HessianFreeLR, {}, 1),
            'paper, all coordinates, every=10': (HessianFreeLR, dict(n_coords=None), 10),
            'paper, default: sample, every=10': (HessianFreeLR, {}, 10),
            'probe, default: every=125': (HessianFreeLR, dict(mode='probe'), 125)}

def timed(cls):
    "The callback, adding up the time that is spent in it"
    class Timed(cls):
        _spent = 0.
        def __call__(self, event):
            t = clock()
            super().__call__(event)
            self.__dict__['_spent'] = self._spent+clock()-t
    return Timed

def peak():
    "Largest memory of the process since `reset_peak`, in bytes"
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(l.split()[1]) for l in lines if l.startswith('VmHWM'))*1024

def reset_peak(): Path('/proc/self/clear_refs').write_text('5')

def held(o, own, seen):
    "Bytes of the tensors that `o` refers to, without the model's `own`"
    if id(o) in seen: return 0
    seen.add(id(o))
    if isinstance(o, torch.Tensor):
        st = o.untyped_storage()
        if st.data_ptr() in own|seen: return 0
        seen.add(st.data_ptr())
        return st.nbytes()
    if isinstance(o, (Learner, type)): return 0
    if isinstance(o, (list,tuple)): parts = o
    elif isinstance(o, dict): parts = o.values()
    else: parts = vars(o).values() if hasattr(o, '__dict__') else ()
    return sum(held(v, own, seen) for v in parts)

class Alternate(Callback):
    """Peak memory without `est`; then blocks of `block` steps with it asleep and at work in turn: their times, the time
    inside it, and what it holds"""
    order,run_valid = 1000,False
    def __init__(self, est, block, pairs):
        self._est,self._block,self._pairs = est,block,pairs
        self._blocks,self._steps,self._i,self.held = {False:[],True:[]},[],0,0

    def after_batch(self):
        now,est,self._i = clock(),self._est,self._i+1
        if self._i==3: reset_peak() # two steps have allocated what a step needs
        if self._i==5:
            self.peak = peak()
            self.learn.add_cb(est)
        first = 5+3*self._block # by then the estimator has made its buffers
        if self._i==first: reset_peak()
        if self._i>first: self._steps.append((now-self._t, est._spent-self._s))
        if len(self._steps)==self._block: self._next()
        self._s,self._t = est._spent,clock()
    def _next(self):
        est = self._est
        self._blocks[est.run].append(np.mean(self._steps, 0))
        self._steps = []
        if est.run:
            own = {p.untyped_storage().data_ptr() for p in self.learn.model.parameters()}
            self.held = max(self.held, held(est, own, set()))
            if len(self._blocks[True])==1: self.peak = peak()-self.peak # not later: a fit grows by itself
        elif len(self._blocks[False])==self._pairs: raise CancelFitException
        est.run = not est.run

class Batches(list):
    n_inp,device,rng = 1,torch.device('cpu'),None

def learner(model, *batch):
    dls = DataLoaders(Batches([batch]*100_000), Batches())
    learn = Learner(dls, model, loss_func=F.cross_entropy, opt_func=partial(SGD, mom=.9), lr=1e-3)
    learn.remove_cb(ProgressCallback)
    learn.logger = noop
    return learn

def measure(learn, cls, kw, period, idle, pairs):
    "Cost of a variant: milliseconds and shares of a step, memory in bytes"
    whole = period==1 or idle is None
    busy = period if whole else 2
    if cls is not Naive: kw = dict(kw, every=busy)
    block = busy*10 if idle is None and busy==1 else busy
    alt = Alternate(timed(cls)(**kw), block, pairs)
    learn.fit(1, cbs=alt)
    learn.remove_cb(alt._est)
    off,on = ([t for t,_ in alt._blocks[k]] for k in (False,True))
    inside = [t for _,t in alt._blocks[True]]
    diff,step,share = [b-a for a,b in zip(off, on)],statistics.median(off),busy/period
    rest = 0. if whole else (1-share)*idle
    extra,inside = statistics.median(diff)*share+rest, statistics.median(inside)*share+rest
    error = 1.25*np.std(diff)/math.sqrt(len(diff))*share/step
    return dict(step_ms=step*1e3, extra_ms=extra*1e3, overhead=extra/step, error=error, inside_ms=inside*1e3,
                inside=inside/step, peak=alt.peak, held=alt.held, pairs=len(diff))

def idle_time(learn, n=3000):
    "Seconds for which a step without an estimate is inside the callback"
    est = timed(HessianFreeLR)(every=10**9)
    class Stop(Callback):
        run_valid = False
        def after_batch(self):
            if self.iter==50: self._s = est._spent
            if self.iter==n: raise CancelFitException
    stop = Stop()
    learn.fit(1, cbs=[est,stop])
    return (est._spent-stop._s)/(n-50)

def floor_time(n):
    "24 bytes per parameter at this machine's bandwidth: three copies of n floats"
    a,b = torch.zeros(n),torch.ones(n)
    def f():
        t = clock()
        for _ in range(3): a.copy_(b)
        return clock()-t
    f()
    return min(f() for _ in range(5))

def accuracy(model, x, steps=24):
    "Largest deviation of the default sample's smoothed estimate from that of all coordinates, in a short training"
    learn = learner(model, x, torch.randint(0, 10, (len(x),)))
    class Fresh(Callback):
        run_valid = False
        def before_batch(self):
            self.learn.xb,self.learn.yb = (torch.randn_like(x),),(torch.randint(0, 10, (len(x),)),)
        def after_batch(self):
            if self.iter==steps-1: raise CancelFitException
    cbs = [HessianFreeLR(every=4), HessianFreeLR(every=4, n_coords=None)]
    learn.fit(1, cbs=cbs+[Fresh()])
    a,b = (cb.estimates.smooth for cb in cbs)
    return float((a/b-1).abs().max())

def measure_net(net, idle, pairs, begins):
    "A row for each variant on this network"
    model,x = nets[net]()
    n = sum(p.numel() for p in model.parameters())
    floor,dev = floor_time(n),accuracy(model, x)
    learn = learner(model, x, torch.randint(0, 10, (len(x),)))
    print(f'\n{net}: {n/1e6:.2f}M parameters, 24 bytes for each take {floor*1e3:.3f} ms;',
          f'sample of 10,000 against all: at most {100*dev:.1f} % off', flush=True)
    for name,(cls,kw,period) in variants.items():
        if not name.startswith(begins): continue
        start = clock()
        k = pairs if net!='cnn' else 5*pairs if period>=100 else 20*pairs
        row = dict(net=net, params=n, variant=name, floor_ms=floor*1e3, sample_off=dev,
                   **measure(learn, cls, kw, period, None if net=='cnn' else idle, k))
        row['of_floor'] = row['inside_ms']/row['floor_ms']
        say(row, clock()-start)
        yield row

def say(r, seconds):
    print(f"  {r['variant']:36} step {r['step_ms']:8.2f} ms  +{100*r['overhead']:6.2f} +- {100*r['error']:4.2f} %",
          f"inside {100*r['inside']:6.3f} % = {r['of_floor']:5.2f} x 24 B/param", f"peak {r['peak']/2**20:+8.1f} MiB",
          f"holds {r['held']/2**20:7.2f} MiB = {r['held']/r['params']:5.2f} B/param", f'({seconds:.0f} s)',
          sep='  ', flush=True)

def merged(rows):
    "The rows in the file, with these in their places"
    new = {(r['net'],r['variant']):r for r in rows}
    old = json.loads((results/'estimator_cost.json').read_text())['results']
    return [new.get((o['net'],o['variant']), o) for o in old]

def main():
    global clock
    ap = argparse.ArgumentParser()
    ap.add_argument('--nets', default='cnn,resnet,mlp')
    ap.add_argument('--pairs', type=int, default=5)
    ap.add_argument('--cpu', action='store_true')
    ap.add_argument('--variants', default='', help='only those whose name begins so; the other rows stay')
    a = ap.parse_args()
    if a.cpu: clock = time.process_time
    torch.set_num_threads(1)
    set_seed(0)
    small,x = cnn()
    small = learner(small, x, torch.randint(0, 10, (len(x),)))
    idle = idle_time(small)
    print(f'a step without an estimate: {idle*1e6:.1f} us inside the callback')
    res = [row for net in a.nets.split(',') for row in measure_net(net, idle, a.pairs, a.variants)]
    if a.variants: res = merged(res)
    if a.nets==','.join(nets): save_results('estimator_cost', dict(results=res, threads=1, idle_us=idle*1e6))

if __name__=='__main__': main()
