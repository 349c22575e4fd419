"Every public call in a process of several. Prints a line of JSON: what this process got. Run by test_distributed.py"
import io, json, sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).parent))
from fastai.distributed import *
from fingerprints import bits
from learners import *
from superconv_fastai.all import *

path,rank,res = Path(sys.argv[1]),rank_distrib(),{}
sys.stdout = printed = io.StringIO()
def learner(seed=0, **kwargs): return classifier(seed, path, **kwargs).to_distributed()
def digest(learn): return bits(learn.model.state_dict())
def nums(x): return [None if math.isnan(v) else round(float(v), 5) for v in np.ravel(x)]

# each process has its own generators, as when nobody seeds
def unseed(learn):
    set_seed(100+rank)
    [dl.rng.seed(100+rank) for dl in learn.dls.loaders]
    return learn

learn = unseed(learner())
learn.fit_superconv(2)
res['fit_superconv'] = dict(
    lr=nums(learn.recorder.hps['lr']),
    mom=nums(learn.recorder.hps['mom']),
    weights=digest(learn),
    restored=nums([learn.opt.hypers[0][k] for k in ('lr', 'mom')]),
    expected=nums(one_cycle(8, .05).values()),
)  # 250 items by two processes, 4 steps in each epoch

acc = unseed(learner(cbs=GradientAccumulation(96)))
acc.fit_superconv(4)
# 125 items in an epoch of each, the rest of a window stays open
res['accumulation'] = dict(lr=nums(acc.recorder.hps['lr']), weights=digest(acc),
                           expected=nums(one_cycle(4, .05).values()))

# uneven last windows, with and without a rest that no process gets: items, their order and the steps are counted batch
# by batch
for n,n_acc,drop_last in ((250,64,False), (202,40,False), (250,64,True), (100,32,True)):
    class Count(Callback):
        "Sizes of the batches that this process trains on, and the optimizer's steps"
        order,run_valid = 20,False
        def __init__(self): self.sizes,self.steps = [],0
        def before_batch(self): self.sizes.append(find_bs(self.xb))
        def after_step(self): self.steps += 1
    acc,count = unseed(learner(n=n, cbs=GradientAccumulation(n_acc))),Count()
    if drop_last: acc.dls.train.drop_last = True
    acc.fit_superconv(3, cbs=count)
    items,steps = 0,0
    for size in count.sizes:
        items += size
        if items>=n_acc: steps,items = steps+1,0
    res[f'accumulation, {n} items, {n_acc=}, {drop_last=}'] = dict(lr=nums(acc.recorder.hps['lr']),
        expected=nums(one_cycle(steps, .05).values()), sizes=count.sizes, steps=[steps,count.steps])

before,model = digest(learn),learn.model
test = learn.lr_range_test(.5, n_steps=20, n_evals=5)
res['lr_range_test'] = dict(lrs=nums(test.lrs), scores=nums(test.scores), losses=nums(test.step_losses),
                            verdict=repr(test), untouched=digest(learn)==before and learn.model is model)

for mode in ('paper','secant','probe'):
    ends = []
    for cbs in ([], [HessianFreeLR(mode, every=2)]):
        learn = unseed(learner())
        learn.fit_superconv(2, cbs=cbs)
        ends.append(digest(learn))
    est = cbs[0].estimates
    res[f'HessianFreeLR {mode}'] = dict(observes=ends[0]==ends[1], estimates=nums(est.raw), reasons=est.reason.tolist())

# a network without chance or batch statistics: what all processes find is what one finds on the batches of all
def linear(dls):
    return quiet(Learner(dls, set_seed(0) or nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(),
        nn.Linear(16, 10)), CrossEntropyLossFlat(), opt_func=sgd, lr=.05), path)
x,y = (t[:256] for t in digits('train'))
halves = torch.arange(256).view(2, 8, 16) # each process gets a half of the items, in batches of 16
together = halves.transpose(0, 1).flatten()
def batches(i, bs): return on_cpu(DataLoaders(*[TensorDL(TensorDataset(x[i], y[i]), bs=bs) for _ in range(2)]))
for name,learn in (('all', linear(batches(torch.arange(256), 16)).to_distributed()),
                   ('one', linear(batches(together, 32)))):
    found = dict(curvature_lr=(c := learn.curvature_lr(4)) and [c.probe, c.secant, *c.interval],
                 curvature_lr_find=learn.curvature_lr_find(1e-3, 1., n_steps=10).estimates.raw)
    for mode in ('secant','probe'):
        learn.fit_superconv(1, cbs=(est := HessianFreeLR(mode, every=2, by_layer=True)))
        found[mode] = est.estimates.raw
        layers = est.estimates.layer.tolist()
    res[f'whole batch, {name}'] = {**{k:nums(v) for k,v in found.items()}, 'layers':layers}

# the loss of one process is not finite: all of them end, together
learn = unseed(learner())
class Spoil(Callback):
    run_valid = False
    def after_loss(self):
        if rank==1 and self.train_iter>=4:
            self.learn.loss_grad,self.learn.loss = self.learn.loss_grad*math.nan,self.learn.loss*math.nan
learn.add_cb(Spoil())
res['curvature_lr_find, one process has NaN'] = dict(lr=repr(learn.curvature_lr_find(1e-3, 1., n_steps=30)))
res['lr_range_test, one process has NaN'] = dict(verdict=repr(learn.lr_range_test(.5, n_steps=20, n_evals=5)))

learn = unseed(learner())
learn.fit_superconv(1)
before = digest(learn)
c,f = learn.curvature_lr(3),learn.curvature_lr_find(1e-3, 1., n_steps=10)
res['curvature_lr'] = dict(lr=nums([c.probe, c.secant]), interval=nums(c.interval), reason=c.reason,
                           untouched=digest(learn)==before)
res['curvature_lr_find'] = dict(estimates=nums(f.estimates.raw), lr=repr(f), untouched=digest(learn)==before)

audit = learn.regularizers(lr_max=.1)
res['regularizers'] = dict(rows=repr(audit), step=nums(audit[audit.kind=='batch_size'].effective),
                           untouched=digest(learn)==before)

b = learn.balance_regularization(.05, 1, wds=[0,.1], seeds=2, path=path/'balance.jsonl')
res['balance_regularization'] = dict(runs=[[list(k), r] for k,r in b.runs.items()], choice=repr(b),
                                     untouched=digest(learn)==before)
again = learn.balance_regularization(.05, 1, wds=[0,.1], seeds=3, path=path/'balance.jsonl') # goes on from the log
res['balance_regularization, resumed'] = dict(runs=[[list(k), r] for k,r in again.runs.items()],
                                              kept=all(again.runs[k]==r for k,r in b.runs.items()))

learn,calm = learner(),learner()
report = unseed(learn).superconverge(2, search=60)
unseed(calm).fit_superconv(2, report.lr_max)
res['superconverge'] = dict(
    lr=report.lr_max, table=report.table().to_json(), weights=digest(learn), as_fit=digest(learn) == digest(calm)
)
class Spoiled(Callback):
    "The loss of one process is not finite in the run, while the LR is high"
    run_valid = False
    def after_loss(self):
        high = self.opt.hypers[0]['lr']>.05 and not hasattr(self.learn, 'lr_finder')
        if rank==1 and high:
            self.learn.loss_grad,self.learn.loss = self.learn.loss_grad*math.nan,self.learn.loss*math.nan
learn = unseed(learner())
report = learn.superconverge(6, lr_max=.08, cbs=Spoiled())
res['superconverge, one process has NaN'] = dict(lr=report.lr_max, restarts=len(report.restarts), weights=digest(learn))

def fits(): return dict(cycle=Learner.fit_superconv, constant=Learner.fit)
c = compare_fits(learner, fits(), 1, seeds=1, path=path/'compare.jsonl')
res['compare_fits'] = dict(runs=c.runs.drop(columns='seconds').to_json())
c = compare_fits(learner, fits(), 1, seeds=2, path=path/'compare.jsonl')
c.save(path/'saved.jsonl') # all call it, one writes
torch.distributed.barrier()
saved = Comparison.load(path/'saved.jsonl').runs
res['compare_fits, resumed'] = dict(runs=c.runs.drop(columns='seconds').to_json(),
                                    kept=saved.drop(columns='seconds').equals(c.runs.drop(columns='seconds')))

loud = classifier(1, path)
loud.add_cb(ProgressCallback())
loud.logger = print
loud.to_distributed()
loud.fit_superconv(1)
loud.lr_range_test(.5, n_steps=8, n_evals=2)
res['printed'] = printed.getvalue()

(path/f'rank{rank}.json').write_text(json.dumps(res))
