"Every public call in a process of several. Prints a line of JSON: what this process got. Run by test_distributed.py"
import io, json, sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).parent))
from fastai.distributed import *
from learners import *
from superconv_fastai.all import *
from test_integration import bits

path,rank,res = Path(sys.argv[1]),rank_distrib(),{}
sys.stdout = printed = io.StringIO()
def learner(seed=0, **kwargs): return classifier(seed, path, **kwargs).to_distributed()
def digest(learn): return bits(learn.model.state_dict())
def nums(x): return [None if math.isnan(v) else round(float(v), 5) for v in np.ravel(x)]

# each process has its own generators, as when nobody seeds
def unseed(learn): set_seed(100+rank); [dl.rng.seed(100+rank) for dl in learn.dls.loaders]; return learn

learn = unseed(learner())
learn.fit_superconv(2)
res['fit_superconv'] = dict(lr=nums(learn.recorder.hps['lr']), mom=nums(learn.recorder.hps['mom']), weights=digest(learn), restored=nums([learn.opt.hypers[0][k] for k in ('lr','mom')]),
                            expected=nums(one_cycle(8, .05).values())) # 250 items by two processes, 4 steps in each epoch

acc = unseed(learner(cbs=GradientAccumulation(96)))
acc.fit_superconv(4)
res['accumulation'] = dict(lr=nums(acc.recorder.hps['lr']), weights=digest(acc), expected=nums(one_cycle(4, .05).values())) # 125 items in an epoch of each, the rest of a window stays open

before,model = digest(learn),learn.model
test = learn.lr_range_test(.5, n_steps=20, n_evals=5)
res['lr_range_test'] = dict(lrs=nums(test.lrs), scores=nums(test.scores), losses=nums(test.step_losses), verdict=repr(test), untouched=digest(learn)==before and learn.model is model)

for mode in ('paper','secant','probe'):
    ends = []
    for cbs in ([], [HessianFreeLR(mode, every=2)]):
        learn = unseed(learner())
        learn.fit_superconv(2, cbs=cbs)
        ends.append(digest(learn))
    est = cbs[0].estimates
    res[f'HessianFreeLR {mode}'] = dict(observes=ends[0]==ends[1], estimates=nums(est.raw), reasons=est.reason.tolist())

learn,before = unseed(learn),digest(learn)
c,f = learn.curvature_lr(3),learn.curvature_lr_find(1e-3, 1., n_steps=10)
res['curvature_lr'] = dict(lr=nums([c.probe, c.secant]), interval=nums(c.interval), reason=c.reason, untouched=digest(learn)==before)
res['curvature_lr_find'] = dict(estimates=nums(f.estimates.raw), lr=repr(f), untouched=digest(learn)==before)

audit = learn.regularizers(lr_max=.1)
res['regularizers'] = dict(rows=repr(audit), step=nums(audit[audit.kind=='batch_size'].effective), untouched=digest(learn)==before)

b = learn.balance_regularization(.05, 1, wds=[0,.1], seeds=2, path=path/'balance.jsonl')
res['balance_regularization'] = dict(runs=[[list(k), r] for k,r in b.runs.items()], choice=repr(b), untouched=digest(learn)==before)
again = learn.balance_regularization(.05, 1, wds=[0,.1], seeds=3, path=path/'balance.jsonl') # goes on from the log
res['balance_regularization, resumed'] = dict(runs=[[list(k), r] for k,r in again.runs.items()], kept=all(again.runs[k]==r for k,r in b.runs.items()))

def fits(): return dict(cycle=Learner.fit_superconv, constant=Learner.fit)
c = compare_fits(learner, fits(), 1, seeds=1, path=path/'compare.jsonl')
res['compare_fits'] = dict(runs=c.runs.drop(columns='seconds').to_json())
c = compare_fits(learner, fits(), 1, seeds=2, path=path/'compare.jsonl')
res['compare_fits, resumed'] = dict(runs=c.runs.drop(columns='seconds').to_json())

loud = classifier(1, path)
loud.add_cb(ProgressCallback())
loud.logger = print
loud.to_distributed()
loud.fit_superconv(1)
loud.lr_range_test(.5, n_steps=8, n_evals=2)
res['printed'] = printed.getvalue()

(path/f'rank{rank}.json').write_text(json.dumps(res))
