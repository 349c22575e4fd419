"""The experiments that want a GPU, sized for eight minutes on one of the H200 class.

    SUPERCONV_DATA=/path/to/data python benchmarks/gpu.py [PART ...] [--minutes 8] [--scale 1] [--log FILE]

cifar94      CIFAR-10 to 94 % (recipe `cifar94`, 16 epochs), five seeds
cycle        Figure 1a of arXiv 1708.07120 as the paper has it (recipe `fig1a`): ResNet-56, 10,000 steps up to LR 3
multistep    its baseline, complete, in 10,000 steps: the LR falls at 5/8 and 7/8 of them
cost         what `HessianFreeLR` and `OneCycleScheduler` add to a training step
rivals       of cifar94: `fit_one_cycle` and multistep in as many epochs, three LRs each

All parts in this order when none is named. Before each run its time is estimated from a few steps. What does not fit
into the minutes that are left is not begun, never cut short, and named at the end. Each result is at once a line in
results/gpu.jsonl, with the machine it ran on; runs that are there already are not repeated.

It needs torch and fastai, and no network. The data lie on the device, training is in bfloat16 where the device has
it; `cifar94` has channels last, ResNet-56 is compiled. With `--scale` below 1 there are fewer images and steps, on
any device, and nothing is kept unless `--log` names a file.
"""
import argparse, statistics, sys, warnings
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parents[1])) # the package may not be installed
from fastai.basics import *
from fastai.callback.all import *
from torch.utils.data import TensorDataset
from superconv_fastai.all import *
from superconv_fastai.runs import RunLog
from common import machine, results
from small import EvaluateAt
import time # after the star imports

# ---- time ----

class Deadline:
    "How many seconds are left"
    def __init__(self, seconds): self.end = time.perf_counter()+seconds
    def left(self): return self.end-time.perf_counter()

def synced():
    "Seconds, once the device has done what it was told"
    if torch.cuda.is_available(): torch.cuda.synchronize()
    return time.perf_counter()

# ---- learners ----

def fast_learner(recipe, seed, device):
    "The learner of a recipe, with its data on the device and in the numbers that are fast there"
    learn = learner_of(recipe, seed=seed, device=device)
    if torch.device(device).type!='cuda': return learn
    for dl in learn.dls.loaders: dl.dataset = TensorDataset(*(t.to(dl.device) for t in dl.dataset.tensors))
    torch.set_float32_matmul_precision('high')
    torch.backends.cudnn.benchmark = True
    if recipe.net.startswith('resnet'):
        torch._dynamo.config.suppress_errors = True # what cannot be compiled runs as it is
        learn.model.compile()
    else: learn.to_channelslast(to_fp16=False)
    return learn.to_bf16() if torch.cuda.is_bf16_supported() else learn.to_fp16()

class Stop(Callback):
    "End the run after so many steps, and tell how long the last ones took"
    run_valid = False
    def __init__(self, first, last): self.first,self.last,self.n,self.seconds = first,last,0,0.
    def after_step(self):
        self.n += 1
        if self.n==self.first: self.start = synced()
        if self.n==self.last: self.seconds = (synced()-self.start)/(self.last-self.first)
    def after_batch(self):
        if self.n>=self.last: raise CancelFitException()

def seconds_of(recipe, device):
    "About how long a run takes, from a few steps after the first ones and an evaluation; compiling included"
    learn,start = fast_learner(recipe, 0, device),synced()
    n = min(10, max(2, recipe.steps//4))
    stop = Stop(n//2, n)
    with learn.no_bar(), learn.no_logging(): learn.fit(n, 1e-4, cbs=stop)
    return 1.2*stop.seconds*recipe.steps + (synced()-start)

# ---- runs ----

def trained(recipe, seed, device, fit=None, every=1):
    "Train, evaluating every so many epochs: the curve and the accuracy at the end"
    learn = fast_learner(recipe, seed, device)
    n_epoch = max(1, round(recipe.steps/len(learn.dls.train)))
    learn.add_cb(EvaluateAt({n_epoch, *range(every, n_epoch, every)}))
    with learn.no_bar(), learn.no_logging():
        if fit is None: fit_recipe(learn, recipe)
        else: fit(learn, n_epoch)
    rows = [[i, *(round(float(v), 5) for v in row)] for i,row in enumerate(learn.recorder.values, 1) if len(row)==3]
    done = len(rows)>0 and rows[-1][0]==n_epoch and all(math.isfinite(v) for v in rows[-1])
    rows = [[v if math.isfinite(v) else None for v in row] for row in rows]
    return dict(status='finished' if done else 'diverged', accuracy=round(100*rows[-1][-1], 3) if done else None,
                curve=rows, epochs=n_epoch, steps=n_epoch*len(learn.dls.train))

def one_cycle_at(lr, learn, n_epoch): learn.fit_one_cycle(n_epoch, np.array([lr,64*lr]), moms=(.85,.85,.85))
def multistep_at(lr, learn, n_epoch): fit_multistep(learn, n_epoch, [lr,64*lr])

def cifar94_runs(scale):
    "The runs of a part by their key: recipe, seed, fit and how often to evaluate"
    r = recipes['cifar94'].scaled(scale)
    return {('fit_superconv',r.lr_max,seed): (r,seed,None,1) for seed in range(5)}

def rival_runs(scale):
    "`fit_one_cycle` and multistep in as many epochs as `cifar94`"
    r,fits = recipes['cifar94'].scaled(scale),dict(fit_one_cycle=one_cycle_at, multistep=multistep_at)
    return {(name,lr,0): (r,0,partial(fit, lr),1) for name,fit in fits.items() for lr in (.5,1.,2.)}

def cycle_runs(scale): return {('cycle',3.,0): (recipes['fig1a'].scaled(scale),0,None,10)}

def multistep_runs(scale):
    "BatchNorm's averages as in the cycle: those of the paper's baseline are for 80,000 steps"
    r = replace(recipes['fig1a-multistep'], steps=10_000, bn_mom=recipes['fig1a'].bn_mom)
    return {('multistep',.35,0): (r.scaled(scale),0,None,10)}

parts = dict(cifar94=cifar94_runs, cycle=cycle_runs, multistep=multistep_runs, rivals=rival_runs)

# ---- cost ----

costs = {'OneCycleScheduler': lambda: OneCycleScheduler(1e-3), 'HessianFreeLR, default': HessianFreeLR,
         "HessianFreeLR, mode='probe'": partial(HessianFreeLR, mode='probe')}

def step_seconds(learn, cbs, n):
    "Seconds per training step with these callbacks"
    n_epoch = max(1, -(-n//len(learn.dls.train)))
    with learn.no_bar(), learn.no_logging(), learn.added_cbs(EvaluateAt({})):
        start = synced()
        learn.fit(n_epoch, 1e-3, cbs=cbs)
        return (synced()-start)/(n_epoch*len(learn.dls.train))

def cost(scale, device, pairs=5):
    "Median milliseconds of a step without and with each callback, in turn; ResNet-56, batches of 1,000"
    learn = fast_learner(recipes['fig1a'].scaled(scale), 0, device)
    n = max(2, round(100*scale))
    step_seconds(learn, None, n)
    bare,added = [],{k:[] for k in costs}
    for _ in range(pairs):
        bare.append(1e3*step_seconds(learn, None, n))
        for k,make in costs.items(): added[k].append(1e3*step_seconds(learn, make(), n)-bare[-1])
    def spread(v): return {k: round(f(v), 4) for k,f in (('median',statistics.median), ('low',min), ('high',max))}
    return dict(step_ms=spread(bare), added_ms={k:spread(v) for k,v in added.items()}, pairs=pairs)

# ---- all of it ----

order = 'cifar94','cycle','multistep','cost','rivals' # what tells most comes first

def run_part(part, log, deadline, scale, device):
    "The runs of a part that fit into the time that is left. Returns the others, with the seconds that each needs"
    skipped,needs = [],{}
    def once(key, recipe, f):
        if key in log.runs: return
        if recipe not in needs: needs[recipe] = seconds_of(recipe, device)
        if deadline.left()<needs[recipe]: return skipped.append((key,round(needs[recipe])))
        start = synced()
        res = dict(f(), seconds=round(synced()-start, 2), scale=scale, device=device_name(device))
        needs[recipe] = 1.1*res['seconds'] # what it took is the better estimate
        log.add(key, res)
        said = res.get('accuracy', res.get('added_ms'))
        print(time.strftime('%H:%M:%S'), *key, said, f"{res['seconds']} s", flush=True)
    if part=='cost': # about a fifth of the steps of the whole cycle
        once((part,), recipes['fig1a'].scaled(scale/5), partial(cost, scale, device))
    else:
        for key,(recipe,seed,fit,every) in parts[part](scale).items():
            once((part,*key), recipe, partial(trained, recipe, seed, device, fit, every))
    return skipped

def device_name(device): return torch.cuda.get_device_name() if torch.device(device).type=='cuda' else machine()['cpu']

def main(args=None):
    ap = argparse.ArgumentParser()
    ap.add_argument('parts', nargs='*', metavar='PART', help=f"{', '.join(order)}; all when none is named")
    ap.add_argument('--minutes', type=float, default=8., help='time for all of it')
    ap.add_argument('--scale', type=float, default=1., help='share of images and steps')
    ap.add_argument('--log', type=Path, help='where to write; results/gpu.jsonl at full scale')
    a = ap.parse_args(args)
    if unknown := set(a.parts)-{*order}: ap.error(f"there is no part {', '.join(unknown)}")
    deadline,device = Deadline(60*a.minutes),'cuda' if torch.cuda.is_available() else 'cpu'
    if device=='cpu' and a.scale==1: ap.error('no CUDA device here; on the CPU use --scale 0.01 or less')
    warnings.simplefilter('ignore')
    path = a.log or (results/'gpu.jsonl' if a.scale==1 else None)
    with RunLog('study', path, dict(study='gpu'), dict(machine=machine())) as log:
        skipped = [o for part in a.parts or order for o in run_part(part, log, deadline, a.scale, device)]
    for key,seconds in skipped: print('no time for', *key, f'which takes about {seconds} s')
    print(f'{deadline.left():.0f} s left')
    return log

if __name__=='__main__': main()
