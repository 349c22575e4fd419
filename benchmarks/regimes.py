"""Where super-convergence holds: the gain of one cycle over multistep training, by budget and size of the training set.

    SUPERCONV_DATA=/path/to/data python benchmarks/regimes.py [--data FOLDER] [--log FILE] [--quick]

The papers train for 200 epochs (one cycle) and 1,600 (multistep), long after the training set is learned. Here their
settings are scaled in the number and the size of the images, and not in epochs: CIFAR-10 at 16x16 with 1,000, 2,500
and 10,000 training images (and Fashion-MNIST at 14x14 with 2,500), a ResNet-8 of 78,000 parameters, batches of a
tenth of the set or less, momentum 0.9, coupled weight decay 1e-4 on all parameters, BatchNorm averages over 20
batches, mirrored images. 8 to 600 epochs: 25, 75 and 200 are three apart, 25 and 200, and 75 and 600 eight.

cycle        LR/30 to LR to LR/30 in two equal legs, nothing after them; the paper's LR is 3
multistep    a tenth of the LR after 5/8 and again after 7/8 of the run; the paper's LR is 0.35
linear       from the LR to zero
constant     the LR throughout

Both LRs are also tuned: the paper's and its neighbours half a decade away, further at an edge, one seed, on training
items that are held out, at the run's own budget or at 75 epochs, whichever is shorter. So are LR and weight decay
together, for the cycle and for multistep. Each scoring seed has its own training images, initial weights and order of
batches, the same for all arms; the score is the accuracy on the 10,000 test images.

Each finished run is at once a line in results/regimes.jsonl, so an interrupted study goes on where it stopped. What
tells most comes first. `further` was added when the first three seeds were known.
"""
import argparse, math, os, time
from fastai.basics import *
from fastai.callback.all import *
from superconv_fastai.all import *
from superconv_fastai.runs import RunLog, seed_all
from common import machine, results
from small import EvaluateAt, quiet_start

# ---- one run ----

settings = dict(study='regimes', net='resnet8, stride 2', width=16, bn_mom=.05, momentum=.9,
                wd='coupled, all parameters', sizes=dict(cifar10=16, fashion_mnist=14),
                batches={1000:100, 2500:250, 10_000:250}, aug='mirror', n_tune=5000)

def cycle(learn, n_epoch, lr): learn.fit_superconv(n_epoch, lr, div=30., tail_pct=0., moms=(.9,.9,.9))
def multistep(learn, n_epoch, lr): fit_multistep(learn, n_epoch, lr, at=(5/8,7/8))
def constant(learn, n_epoch, lr): learn.fit(n_epoch, lr)

fits = dict(cycle=cycle, multistep=multistep, linear=fit_linear, constant=constant)

def make_learner(data, n_train, n_epoch, wd, split, seed, folder=None):
    "A new learner that evaluates after each quarter of the run"
    n_valid = None if split=='test' else settings['n_tune']
    size,bs = settings['sizes'][data],settings['batches'].get(n_train, max(2, n_train//10))
    dls = image_dls(data, bs, n_train, n_valid, split, 'mirror', size, folder, seed, device='cpu')
    model = resnet8(settings['width'], 3 if data=='cifar10' else 1, bn_mom=settings['bn_mom'], stride=2)
    sgd = partial(torch.optim.SGD, momentum=settings['momentum'], weight_decay=wd)
    quarters = {math.ceil(n_epoch*i/4) for i in range(1, 5)}
    return Learner(dls, model.to(memory_format=torch.channels_last), loss_func=nn.CrossEntropyLoss(), metrics=accuracy,
                   opt_func=partial(OptimWrapper, opt=sgd), cbs=[EvaluateAt(quarters), TerminateOnNaNCallback()])

def number(v): return float(f'{float(v):.5g}') if math.isfinite(v) else None

def run(data, n_train, schedule, lr, wd, n_epoch, split, seed, folder=None):
    "Train once: accuracy at the end; after each quarter of the run `[epoch, training loss, held-out loss, accuracy]`"
    seed_all(seed)
    learn = make_learner(data, n_train, n_epoch, wd, split, seed, folder)
    seed_all(seed, learn.dls)
    start = time.perf_counter()
    with learn.no_bar(), learn.no_logging(): fits[schedule](learn, n_epoch, lr)
    curve = [[i, *map(number, row)] for i,row in enumerate(learn.recorder.values, 1) if len(row)==3]
    finished = len(curve)>0 and curve[-1][0]==n_epoch
    return dict(status='finished' if finished else 'diverged', accuracy=curve[-1][-1] if finished else .1, curve=curve,
                seconds=round(time.perf_counter()-start, 1), machine=machine()['cpu'])

# ---- tuning ----

ladders = dict(cycle=[.1,.3,1.,3.,10.,30.], multistep=[.01,.035,.1,.35,1.,3.5])
papers_lr,papers_wd = dict(cycle=3., multistep=.35, linear=3., constant=3.),1e-4
wds = [1e-5,3e-5,1e-4,3e-4,1e-3,3e-3,1e-2,3e-2,1e-1,3e-1] # the first two and the last two were added later
tune_seed = 1000

def best_on(ladder, first, score):
    "The best of `first`, neighbours on the ladder, going on while the best is at an edge"
    tried = {v:score(v) for v in first}
    while True:
        best = max(tried, key=tried.get)
        i = ladder.index(best)
        more = [v for v in ladder[max(0, i-1):i+2] if v not in tried]
        if not more: return best,tried[best]
        tried |= {v:score(v) for v in more}

def tuned_lr(once, data, n_train, schedule, n_epoch, wd=papers_wd):
    "The LR with the best accuracy on held-out training items, and that accuracy"
    ladder = ladders[schedule]
    i = ladder.index(papers_lr[schedule])
    def score(lr): return once(data, n_train, schedule, lr, wd, min(n_epoch, 75), 'tune', tune_seed)['accuracy']
    return best_on(ladder, ladder[i-1:i+2], score)

def tuned_lr_wd(once, data, n_train, schedule, n_epoch):
    "LR and weight decay, tuned together"
    found = {}
    def score(wd):
        found[wd],res = tuned_lr(once, data, n_train, schedule, n_epoch, wd)
        return res
    i = wds.index(papers_wd)
    wd,_ = best_on(wds, wds[i:i+4], score)
    return found[wd],wd

def arm_of(once, arm, data, n_train, n_epoch):
    "Schedule, LR and weight decay of an arm: 'cycle', or 'cycle, tuned', or 'cycle, tuned with wd'"
    schedule,_,how = arm.partition(', ')
    if how=='tuned': return schedule,tuned_lr(once, data, n_train, schedule, n_epoch)[0],papers_wd
    if how=='tuned with wd': return schedule,*tuned_lr_wd(once, data, n_train, schedule, n_epoch)
    return schedule,papers_lr[schedule],papers_wd

# ---- the study ----

pair = ['cycle','cycle, tuned','multistep','multistep, tuned']
others = ['linear','constant']
with_wd = ['cycle, tuned with wd','multistep, tuned with wd']
seeds = [0,1,2]

def stage(data, n_train, arms, budgets, seeds):
    return [(data,n_train,arm,n,s) for s in seeds for n in budgets for arm in arms]

def plan():
    "Data set, images, arm, epochs, seed: what tells most comes first"
    few,one,more = ('cifar10',2500),seeds[:1],seeds[1:]
    return [*stage(*few, pair, [25,75,200], one), *stage(*few, pair, [8], one), *stage(*few, others, [25,200], one),
            *stage(*few, pair, [25,75,200,8], more), *stage(*few, others, [25,200], more),
            *stage('cifar10', 1000, pair, [25,75,200,8], seeds),
            *stage('fashion_mnist', 2500, pair, [25,75,200], seeds),
            *stage(*few, with_wd, [25,200], seeds),
            *stage(*few, pair[2:], [600], seeds), *stage('cifar10', 1000, pair[2:], [600], seeds),
            *stage('cifar10', 10_000, pair, [25,75,8], seeds),
            *further()]

def further():
    "What was added when the first three seeds were known: weight decay with more images; seeds, for all arms alike"
    more = range(3, 10)
    return [*stage('cifar10', 2500, with_wd, [25], more), *stage('cifar10', 10_000, with_wd, [25], seeds),
            *stage('cifar10', 10_000, ['cycle',*with_wd], [25], more), *stage('cifar10', 2500, pair, [25,75], more),
            *stage('cifar10', 10_000, pair, [25], more), *stage('cifar10', 1000, pair, [25,75], more),
            *stage('cifar10', 10_000, pair, [75], range(3, 6))]

lengths = {('cifar10',2500):[200,600], ('cifar10',1000):[200,600], ('fashion_mnist',2500):[200]}

def best_length_runs(once, data, n_train):
    "Multistep on held-out training items at the lengths at which its LR was not tuned: they decide on its best length"
    for n in lengths[data,n_train]:
        schedule,lr,wd = arm_of(once, 'multistep, tuned', data, n_train, n)
        once(data, n_train, schedule, lr, wd, n, 'tune', tune_seed)

def study(log, jobs, folder=None):
    def once(*key):
        if key not in log.runs:
            log.add(key, res := run(*key, folder))
            print(time.strftime('%H:%M:%S'), *key, res['accuracy'], f"{res['seconds']} s", flush=True)
        return log.runs[key]
    for data,n_train,arm,n_epoch,seed in jobs:
        once(data, n_train, *arm_of(once, arm, data, n_train, n_epoch), n_epoch, 'test', seed)
    for data,n_train in dict.fromkeys(o[:2] for o in jobs):
        if (data,n_train) in lengths: best_length_runs(once, data, n_train)

def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--data', default=os.environ.get('SUPERCONV_DATA'), help='folder with the data sets')
    ap.add_argument('--log', type=Path, default=results/'regimes.jsonl', help='the log of finished runs')
    ap.add_argument('--quick', action='store_true', help='a few epochs of 100 images, no file: does it run?')
    a = ap.parse_args()
    quiet_start()
    if a.quick:
        return study(RunLog('study'), stage('cifar10', 100, [*pair,*others,*with_wd[1:]], [1,2], seeds[:1]), a.data)
    with RunLog('study', a.log, settings, dict(machine=machine())) as log: study(log, plan(), a.data)

if __name__=='__main__': main()
