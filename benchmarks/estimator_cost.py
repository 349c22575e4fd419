"""What HessianFreeLR costs: time per training step and peak memory, against the same steps without it.

    python benchmarks/estimator_cost.py [--nets cnn,resnet,mlp] [--reps 15]

Blocks of steps with and without the callback alternate within one fit; overhead = median of the paired differences of block means, over the
median step without; the time spent inside the callback is added up beside it, which says more on a machine that is not quiet. The estimator's work comes in bursts (a pair of steps every `every` steps), so a block is a whole number of periods.
The probe's period of 100 steps is too long for that on the large nets: its two busy steps are timed alone and divided by the period.
"""
import argparse, statistics, time
from pathlib import Path
import torch
from fastai.basics import *
from fastai.callback.progress import ProgressCallback
from superconv_fastai.curvature import HessianFreeLR
from common import save_results
import time # after the star imports

class Naive(Callback):
    "Eq. 8 as one would write it first: three whole snapshots, a number read at each step"
    run_valid,order = False,15
    def __init__(self): self._snaps = []
    def after_step(self):
        self._snaps = self._snaps[-2:] + [[p.detach().clone() for p in self.learn.model.parameters()]]
        if len(self._snaps)==3:
            a,b,c = self._snaps
            num = sum((y-x).abs().sum().item() for x,y in zip(a, b))
            den = sum((2*y-x-z).abs().sum().item() for x,y,z in zip(a, b, c))
            self._est = .1*num/max(den, 1e-30)
    def before_fit(self): pass
    def before_train(self): pass

class Block(Module):
    def __init__(self, ni, no, stride):
        def conv(i, o, k, s): return nn.Conv2d(i, o, k, s, k//2, bias=False)
        self.c1,self.b1,self.c2,self.b2 = conv(ni,no,3,stride),nn.BatchNorm2d(no),conv(no,no,3,1),nn.BatchNorm2d(no)
        self.short = nn.Sequential() if stride==1 and ni==no else nn.Sequential(conv(ni,no,1,stride), nn.BatchNorm2d(no))
    def forward(self, x): return F.relu(self.b2(self.c2(F.relu(self.b1(self.c1(x))))) + self.short(x))

def cnn():
    def block(i, o): return nn.Sequential(nn.Conv2d(i,o,3,padding=1,bias=False), nn.BatchNorm2d(o), nn.ReLU())
    return nn.Sequential(block(1,16), nn.MaxPool2d(2), block(16,32), block(32,32), nn.AdaptiveAvgPool2d(2), Flatten(), nn.Linear(128,10)), torch.randn(64,1,14,14)

def resnet(): # ResNet-18's blocks and 11M parameters, CIFAR stem
    ws = [64,64,128,256,512]
    body = [Block(ws[i], ws[i+1], 1 if i==0 else 2) if j==0 else Block(ws[i+1], ws[i+1], 1) for i in range(4) for j in range(2)]
    return nn.Sequential(nn.Conv2d(3,64,3,padding=1,bias=False), nn.BatchNorm2d(64), nn.ReLU(), *body, nn.AdaptiveAvgPool2d(1), Flatten(), nn.Linear(512,10)), torch.randn(32,3,32,32)

def mlp(): return nn.Sequential(nn.Linear(3072,8192), nn.ReLU(), nn.Linear(8192,8192), nn.ReLU(), nn.Linear(8192,1000)), torch.randn(64,3072) # 100M

nets = dict(cnn=(cnn,10), resnet=(resnet,1), mlp=(mlp,1)) # and how many periods a block has
variants = {'naive, 3 snapshots':(Naive,{},1), 'full':(HessianFreeLR,dict(every=1, n_coords=None),1), 'sample of 10,000':(HessianFreeLR,dict(every=1),1),
            'full, every=10':(HessianFreeLR,dict(n_coords=None),10), 'default (sample, every=10)':(HessianFreeLR,{},10), 'probe, every=100':(HessianFreeLR,dict(mode='probe'),100)}

def timed(cls):
    "The callback, adding up the time that is spent in it"
    class Timed(cls):
        name,spent = 'timed',0.
        def __call__(self, event):
            t = time.perf_counter()
            super().__call__(event)
            type(self).spent += time.perf_counter()-t
    return Timed

def peak():
    return next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmHWM'))*1024
def reset_peak(): Path('/proc/self/clear_refs').write_text('5')

class Alternate(Callback):
    "Blocks of `block` steps without `est` and with it in turn; the time and the peak memory of each"
    order,run_valid = 1000,False
    def __init__(self, est, block, blocks): self._est,self._block,self._blocks,self._i,self._times,self._peaks,self._cur,self._on,self._inside,self._spent = est,block,blocks,0,[[],[]],[[],[]],[],False,[],[0.]
    def after_batch(self):
        now = time.perf_counter()
        if self._i>0: self._cur.append(now-self._t); self._spent.append(type(self._est).spent)
        if self._i>0 and self._i%self._block==0:
            if self._on and self._i>self._block*2: self._inside.append((self._spent[-1]-self._spent[-1-self._block])/self._block)
            if self._i>self._block*2: self._times[self._on].append(self._cur); self._peaks[self._on].append(peak())
            self._cur = []
            if self._on: self.learn.remove_cb(self._est)
            else:
                self.learn.add_cb(self._est)
                if self._i==self._block: self._est.before_fit(); self._est.before_train()
            self._on = not self._on
            reset_peak()
        self._i += 1
        if self._i>self._block*self._blocks: raise CancelFitException
        self._t = time.perf_counter()

def floor_time(n):
    "24 bytes per parameter at this machine's bandwidth: three copies of n floats"
    a,b = torch.zeros(n),torch.ones(n)
    def f():
        t = time.perf_counter()
        for _ in range(3): a.copy_(b)
        return time.perf_counter()-t
    f()
    return min(f() for _ in range(5))

def measure(mk, periods, cls, kw, period, reps):
    torch.manual_seed(0)
    model,x = mk()
    y = torch.randint(0, 10, (len(x),))
    busy = period>=100
    block = 2 if busy else period*periods
    if busy: kw = dict(kw, every=2) # a block is one pair: every step of it is busy
    class Loader(list):
        n_inp,device,rng = 1,torch.device('cpu'),None
    dl = Loader([(x,y)]*(block*(2*reps+6)))
    learn = Learner(DataLoaders(dl, dl), model, loss_func=F.cross_entropy, opt_func=partial(SGD, mom=.9), lr=1e-3)
    alt = Alternate(timed(cls)(**kw), block, 2*reps+4)
    learn.remove_cb(ProgressCallback)
    with learn.no_logging(): learn.fit(1, cbs=alt)
    without,with_ = ([statistics.median(b) if block==1 else sum(b)/len(b) for b in t] for t in alt._times)
    n = min(len(without), len(with_))
    base = statistics.median(without)
    extra = statistics.median(b-a for a,b in zip(without[:n], with_[:n]))
    inside = statistics.median(alt._inside)
    if busy: extra,inside = extra*2/period, inside*2/period
    mem = statistics.median(alt._peaks[1]) - statistics.median(alt._peaks[0])
    return dict(step_ms=base*1e3, extra_ms=extra*1e3, overhead=extra/base, inside_ms=inside*1e3, inside=inside/base, memory=mem, params=sum(p.numel() for p in model.parameters()), blocks=n)

def accuracy(mk, steps=40):
    "Largest deviation of the sample's smoothed estimate from the full one, over a short training on random data"
    class Full(HessianFreeLR): pass
    torch.manual_seed(0)
    model,x = mk()
    y = torch.randint(0, 10, (16,len(x)))
    class Loader(list): n_inp,device,rng = 1,torch.device('cpu'),None
    dl = Loader([(x+torch.randn_like(x), y[i%16]) for i in range(steps)])
    learn = Learner(DataLoaders(dl, dl[:1]), model, loss_func=F.cross_entropy, opt_func=partial(SGD, mom=.9), lr=1e-3)
    cbs = [HessianFreeLR(every=4), Full(every=4, n_coords=None)]
    learn.remove_cb(ProgressCallback); learn.logger = noop
    learn.fit(1, cbs=cbs)
    a,b = (cb.estimates.smooth for cb in cbs)
    return float((a/b-1).abs().max())

def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--nets', default='cnn,resnet,mlp'); ap.add_argument('--reps', type=int, default=15)
    a = ap.parse_args()
    torch.set_num_threads(1)
    res = []
    for net in a.nets.split(','):
        mk,periods = nets[net]
        n = sum(p.numel() for p in mk()[0].parameters())
        floor,dev = floor_time(n),accuracy(mk)
        print(f"{net:7} {n/1e6:7.2f}M sample of 10,000 against all: at most {100*dev:.1f} % off", flush=True)
        for name,(cls,kw,period) in variants.items():
            row = dict(net=net, variant=name, **measure(mk, periods, cls, kw, period, a.reps if net=='cnn' else max(3, a.reps//3)), floor_ms=floor*1e3, sample_off=dev)
            row['of_floor'] = row['inside_ms']/row['floor_ms']
            res.append(row)
            print(f"{net:7} {n/1e6:7.2f}M {name:28} step {row['step_ms']:8.2f} ms  +{row['extra_ms']:8.3f} ms = {100*row['overhead']:6.2f} %  in it {100*row['inside']:6.2f} % = {row['of_floor']:6.2f} x 24 B/param  "
                  f"memory +{row['memory']/2**20:7.1f} MiB = {row['memory']/n:5.1f} B/param", flush=True)
    if a.nets==','.join(nets): save_results('estimator_cost', dict(results=res, threads=1))

if __name__=='__main__': main()
