"The papers' recipes: complete, right against the authors' logs, and runnable."
import json, math, os, pickle
from dataclasses import replace
from pathlib import Path
import numpy as np, pytest, torch
from fastai.basics import *
from fastai.callback.all import *
from superconv_fastai.core import unpartial
from superconv_fastai.data import RandomCropMirror, Standardize
from superconv_fastai.models import GhostBatchNorm2d, airbench94, resnet8
from superconv_fastai.recipes import *
from superconv_fastai.recipes import BatchStatistics, _epochs_of
from superconv_fastai.schedule import policies

traces = {r['run']:r
          for r in json.loads((Path(__file__).parent/'data'/'authors_1cycle_traces.json').read_text())['runs']}
names = list(recipes)

def small(**kwargs):
    return Recipe(**{**dict(name='own', paper='none', where='none', net='lenet', data='mnist', aug='none', n_train=200,
                            n_valid=100, bs=50, steps=12, lr_max=.05, lr_min=.01, stepsize=5), **kwargs})

# ---- the numbers ----

@pytest.mark.parametrize('name', names)
def test_recipe_adds_up(name):
    r = recipes[name]
    assert r.name==name and r.net in nets and r.paper and r.where
    assert r.published is not None or r.replication is not None or r.note # something to compare with, or why not
    assert all(v is None or 5<v<100 for v in (r.published, r.replication))
    if r.policy in policies:
        assert 0 < r.lr_min < r.lr_max and 4.9 < r.div < 40.1
        tail = 1-2*r.stepsize/r.steps
        assert (tail==0 if r.paper=='1708.07120' else 0<tail<.26), tail
    if r.policy=='multistep': assert sorted(r.at)==list(r.at) and 0<r.gamma<1
    lr,mom = r.schedules()
    at = [0, r.steps//3, r.steps//2, r.steps-1]
    assert all(0 <= lr(s) <= r.lr_max*(1+1e-12) and 0 <= mom(s) < 1 for s in at)
    assert lr(0)==pytest.approx(r.lr_min or (r.lr_max/r.steps if r.policy=='range test' else r.lr_max))
    assert r.wd_how=='L2' and r.wd_norm_bias and r.bs%r.ghost_bs==0 if r.ghost_bs else True

def test_every_family_is_there():
    "Both papers' figures and tables, DAWNBench; nothing twice"
    for prefix,n in dict(fig1a=2, fig1b=5, fig2b=3, fig4=3, fig6a=8, fig6b=4, fig7=3, fig8=5, fig9=5, fig10=6, table1=5,
                         wrn32=7, densenet40=7, lenet=6, cifar100=7, momentum=20, resnet50=3, inception=3,
                         dawnbench=1, cifar94=1).items():
        assert sum(k.startswith(prefix) for k in names)==n, prefix
    settings = [tuple(str(v) for k,v in vars(r).items() if k not in ('name','where','published','published_sd',
                                                                     'replication','note')) for r in recipes.values()]
    assert len(set(settings))==len(settings)

@pytest.mark.parametrize('name,leg,steps', [('momentum-95',4003,9277), ('cifar100-145',3417,7080),
                                            ('densenet40-50',2148,4882), ('wrn32-50',2246,4882),
                                            ('wrn32-100',4394,9765),
                                            ('fig1a',5000,10_000), ('fig1b-2k',1000,2000),
                                            ('resnet50-wd3e-6',95_000,200_000), ('inception-wd3e-6',108_000,220_000)])
def test_lengths_are_those_of_the_logs(name, leg, steps):
    assert (recipes[name].stepsize, recipes[name].steps) == (leg,steps)

@pytest.mark.parametrize('name,run,moms',
                         [('cifar100-145','c100Resnet56_C100Res1CycLR.1001.2CM0.95.85WD1e-4Epoch145BS256g_1',None),
                                           ('densenet40-50','genDensenet40_Den1CycLR.1004M0.9WD1e-6Epoch50BS128c_1',
                                            (.9,.8,.9))])
def test_lr_and_momentum_of_the_authors_logs(name, run, moms):
    r = recipes[name] if moms is None else replace(recipes[name], moms=moms)
    lr,mom = r.schedules()
    for step,l,m in traces[run]['trace']:
        assert lr(step)==pytest.approx(l, rel=2e-5) and mom(step)==pytest.approx(m, abs=2e-6), step

def test_momentum_at_the_end_of_the_imagenet_runs():
    "0.917 in the log of ResNet-50; the Inception runs fell to 0.930 and never rose"
    assert recipes['resnet50-wd1e-6'].schedules()[1](199_999)==pytest.approx(.9167, abs=1e-4)
    mom = recipes['inception-wd3e-6'].schedules()[1]
    vs = [mom(s) for s in range(0, 220_000, 1000)]
    assert all(a>b for a,b in zip(vs, vs[1:])) and mom(219_999)==pytest.approx(.930, abs=5e-4)

def test_baselines():
    "What Caffe's policies say"
    lr = recipes['fig1a-multistep'].schedules()[0]
    assert [lr(s) for s in (0, 49_999, 50_000, 69_999, 70_000, 79_999)] == pytest.approx([.35, .35, .035, .035, .0035,
                                                                                          .0035])
    lr = recipes['densenet40-400-multistep'].schedules()[0] # falls logged at 19531, 29296, 34178 and 36619
    assert recipes['densenet40-400-multistep'].steps==39062
    for i,s in enumerate((19531, 29296, 34178)):
        assert lr(s-3)==pytest.approx(.1*.316**i) and lr(s+3)==pytest.approx(.1*.316**(i+1))
    assert lr(36619+5)==pytest.approx(.1*.316**5)
    lr = recipes['lenet-inv'].schedules()[0]
    assert lr(5000)==pytest.approx(.01*(1+1e-4*5000)**-.75)
    lr = recipes['resnet50-baseline'].schedules()[0]
    assert lr(19_999)==.1 and lr(20_000)==pytest.approx(.094) and lr(1_339_999)==pytest.approx(.1*.94**66)

def test_batch_of_eight_gpus():
    assert all((r.bs,r.ghost_bs) in ((1000,125),(800,100),(1536,192),(512,64),(256,32)) for r in recipes.values()
               if r.paper=='1708.07120')

# ---- scaling ----

@pytest.mark.parametrize('name', names)
@pytest.mark.parametrize('scale', [.3, .05, 1e-6])
def test_scaled(name, scale):
    full = recipes[name]
    r = full.scaled(scale)
    assert r.n_train==max(100, round(full.n_train*scale)) and r.steps==max(10, round(full.steps*scale))
    assert r.n_valid==max(500, round(full.n_valid*scale))
    assert 2*r.bs<=r.n_train and (r.ghost_bs is None or r.bs%r.ghost_bs==0)
    if full.bs<=.5*r.n_train: assert r.bs==full.bs
    same = set(r.reductions(full)) - {'n_train','n_valid','steps','bs','ghost_bs','stepsize','mom_stepsize'}
    assert not same
    if r.policy in policies:
        assert 2*r.stepsize<=r.steps
        if scale==.3: # the schedule in proportion
            (a,ma),(b,mb) = full.schedules(),r.schedules()
            for p in (0, .2, .4, .6, .8):
                i,j = int(p*full.steps),int(p*r.steps)
                assert b(j)==pytest.approx(a(i), abs=.01*r.lr_max) and mb(j)==pytest.approx(ma(i), abs=.002)

def test_scale_one_is_the_recipe():
    assert all(r.scaled(1)==r and r.scaled(1).reductions(r)=={} for r in recipes.values())

@pytest.mark.parametrize('scale', [0, -1, 1.5, math.nan, 'half', None, True])
def test_bad_scale(scale):
    with pytest.raises(ValueError, match='scale='): recipes['fig1a'].scaled(scale)

@pytest.mark.parametrize('bad', [dict(policy='hope'), dict(opt='Lion'), dict(wd_how='both'), dict(bn_eval='test'),
                                 dict(pixels='raw'), dict(net='vgg'), dict(bs=0), dict(steps=2.5),
                                 dict(bs=50, ghost_bs=20), dict(stepsize=None)])
def test_bad_recipe(bad):
    with pytest.raises(ValueError, match=next(reversed(bad))): small(**bad)

# ---- settings in which fastai and Caffe differ ----

def caffe(model, batches, lr, mom, wd, nesterov, decoupled, skip):
    "Caffe's update: v = mom*v + lr*(g + wd*w); Nesterov steps by (1+mom)*v_new - mom*v_old"
    v = {n: torch.zeros_like(p) for n,p in model.named_parameters()}
    for x,y in batches:
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        with torch.no_grad():
            for n,p in model.named_parameters():
                w = 0 if any(s in n for s in skip) else wd
                g = p.grad + (0 if decoupled else w*p)
                old,v[n] = v[n],mom*v[n] + lr*g
                if decoupled: p *= 1-lr*w
                p -= (1+mom)*v[n]-mom*old if nesterov else v[n]

@pytest.mark.parametrize('nesterov', [False, True])
@pytest.mark.parametrize('wd_how', ['L2','decoupled'])
@pytest.mark.parametrize('wd_norm_bias', [True, False])
def test_optimizer_is_caffes(folder, tiny, nesterov, wd_how, wd_norm_bias):
    "Six steps at a constant LR, held against the update written out"
    r = small(policy='constant', lr_max=.05, wd=.1, nesterov=nesterov, wd_how=wd_how, wd_norm_bias=wd_norm_bias)
    learn = learner_of(r, folder=folder, device='cpu')
    ref = deepcopy(learn.model)
    seen = []
    class Keep(Callback):
        def before_batch(self):
            if self.training: seen.append((self.x.clone(), self.y.clone()))
    learn.add_cb(Keep())
    fit_recipe(learn, replace(r, steps=8))
    caffe(ref, seen, .05, .9, .1, nesterov, wd_how=='decoupled', () if wd_norm_bias else ('bn.','bias'))
    assert len(seen)==8
    for (n,a),b in zip(learn.model.named_parameters(), ref.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=n)

def test_both_sgds_agree(folder, tiny):
    from superconv_fastai import recipes as module
    r = small(nesterov=True, moms=(.95,.85,.95), wd=.01)
    res = []
    for f in (module._torch_sgd, module._fastai_sgd):
        learn = learner_of(r, folder=folder, device='cpu')
        learn.opt_func = partial(f, mom=.95, nesterov=True)
        fit_recipe(learn, r)
        res.append(torch.nn.utils.parameters_to_vector(learn.model.parameters()).detach())
    torch.testing.assert_close(*res, rtol=1e-3, atol=1e-4) # the buffers differ while the LR changes only by rounding

def test_batch_statistics_at_evaluation(folder, tiny):
    r = small(bn_eval='batch')
    learn = learner_of(r, folder=folder, device='cpu')
    before = deepcopy(learn.model.bn.state_dict())
    loss = learn.validate()[0]
    assert all(torch.equal(v, before[k]) for k,v in learn.model.bn.state_dict().items())
    assert learn.model.bn.track_running_stats
    learn.model.train()
    with torch.no_grad():
        by_hand = np.average([float(F.cross_entropy(learn.model(x), y)) for x,y in learn.dls.valid],
                             weights=[len(y) for _,y in learn.dls.valid])
    assert loss==pytest.approx(by_hand, rel=1e-4)
    assert loss!=pytest.approx(learner_of(small(), folder=folder, device='cpu').validate()[0], rel=1e-4)

def test_learner_has_the_recipes_settings(folder):
    r = recipes['cifar100-50'].scaled(.002)
    learn = learner_of('cifar100-50', scale=.002, folder=folder, device='cpu')
    norms = [m for m in learn.model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert (learn.lr, learn.wd, learn.moms) == (.5, 1e-4, (.95,.85,.95)) and learn.dls.bs==r.bs
    assert len(learn.dls.train_ds)==100
    assert all(type(m) is GhostBatchNorm2d and m.momentum==.1 and m.ghost_bs==r.ghost_bs for m in norms)
    assert len(norms)>50
    learn.create_opt()
    assert learn.opt.opt.defaults['nesterov'] and isinstance(learn.opt.opt, torch.optim.SGD)

@pytest.mark.parametrize('name', sorted(nets))
def test_networks_pickle(name):
    "What makes them, by plain `pickle`: workers that are spawned get it so"
    make = pickle.loads(pickle.dumps(nets[name]))
    assert unpartial(make) is unpartial(nets[name])

def test_lenet_starts_as_caffes():
    "Uniform weights with a variance of 1/fan_in"
    set_seed(0)
    for m in nets['lenet']().modules():
        if not isinstance(m, (nn.Conv2d,nn.Linear)): continue
        bound = (3/m.weight[0].numel())**.5
        assert .9*bound<m.weight.abs().max()<=bound

# ---- running ----

def used(learn, recipe):
    "LR and momentum of each step"
    class Hypers(Callback):
        order,rows = 80,[]
        def before_step(self): self.rows.append([self.opt.hypers[0][k] for k in ('lr','mom')])
    cb = Hypers()
    cb.rows = []
    learn.add_cb(cb)
    fit_recipe(learn, recipe)
    return np.array(cb.rows)

@pytest.mark.parametrize('kwargs', [dict(policy='paper', div_final=100.),
                                    dict(policy='authors', moms=(.95,.85,.95), nesterov=True), dict(policy='cosine'),
                                    dict(policy='authors', moms=(.95,.85,.95), mom_stepsize=40),
                                    dict(policy='constant', moms=(.95,.85,.95)),
                                    dict(policy='multistep', at=(.5,.75), gamma=.1),
                                    dict(policy='step', stepsize=3, gamma=.5), dict(policy='inv', gamma=.1, power=.75)])
@pytest.mark.parametrize('steps', [12, 15]) # 4 batches in an epoch
def test_a_fit_uses_the_recipes_schedules(folder, tiny, kwargs, steps):
    r = small(**{**kwargs, 'steps':steps})
    learn = learner_of(r, folder=folder, device='cpu')
    n = 4*_epochs_of(r, learn)
    got,(lr,mom) = used(learn, r),r.schedules(n)
    assert len(got)==n and abs(n-steps)<=2
    np.testing.assert_allclose(got[:,0], [lr(s) for s in range(n)], rtol=1e-9)
    np.testing.assert_allclose(got[:,1], [mom(s) for s in range(n)], rtol=1e-9)

@pytest.mark.parametrize('net', sorted({r.net for r in recipes.values() if r.data!='imagenet'}))
def test_every_small_network_takes_a_step(folder, net):
    name = min((r for r in recipes.values() if r.net==net and r.policy in policies), key=lambda r: r.name).name
    learn = learner_of(name, scale=1e-6, folder=folder, device='cpu')
    x,y = (t[:4] for t in learn.dls.one_batch())
    before = [p.detach().clone() for p in learn.model.parameters()]
    learn.create_opt()
    learn.opt.set_hypers(wd=0.)
    learn.loss_func(learn.model.train()(x), y).backward()
    learn.opt.step()
    assert learn.model(x).shape==(4, 100 if recipes[name].data=='cifar100' else 10)
    moved = [not torch.equal(a, b) for a,b in zip(before, learn.model.parameters()) if b.requires_grad]
    assert sum(moved) > .9*len(moved)

def test_run(folder, tmp_path, capsys):
    path = tmp_path/'run.json'
    run = run_recipe('lenet-12', scale=.004, folder=folder, device='cpu', path=path)
    said = capsys.readouterr().out
    assert 'training images 240 instead of 60,000' in said and 'minutes' in said
    assert run.status=='finished' and run.accuracy>50 and run.epochs[-1][-1]==run.accuracy
    assert (run.recipe,run.full) == (recipes['lenet-12'].scaled(.004),recipes['lenet-12'])
    assert 'images in a step 120 instead of 512' in repr(run) and '99.25' in repr(run)
    assert 'Not a reproduction' in repr(run)
    assert RecipeRun.load(path)==run and [p.name for p in tmp_path.iterdir()]==['run.json']
    row = run.table().iloc[0]
    assert (row.ours,row.published,row.scale) == (run.accuracy,99.25,.004)
    again = run_recipe('lenet-12', scale=.004, folder=folder, device='cpu')
    assert again.epochs==run.epochs # the seed decides all
    assert run_recipe('lenet-12', scale=.004, seed=1, folder=folder, device='cpu').epochs!=run.epochs

@pytest.mark.parametrize('opt', ['Adam','Adagrad','Adadelta'])
def test_adaptive_methods_run(folder, opt):
    run = run_recipe(small(opt=opt, policy='multistep', at=(.5,), gamma=.1, lr_max=.001,
                           moms=.9 if opt=='Adam' else 0.), folder=folder, device='cpu')
    assert run.status=='finished' and len(run.epochs)==3 and 'no number' in repr(run)

def test_range_test_recipe(folder, tiny, tmp_path):
    run = run_recipe(small(policy='range test', lr_max=1., steps=100, n_valid=200), folder=folder, device='cpu',
                     path=tmp_path/'r.json')
    assert run.epochs[0][0]==0 and run.epochs[-1][0]==100 and run.accuracy==max(e[-1] for e in run.epochs)
    assert 'range test' in repr(run)
    assert RecipeRun.load(tmp_path/'r.json').accuracy==run.accuracy

def test_divergence_is_a_result(folder, tmp_path):
    run = run_recipe(small(policy='constant', lr_max=1e12, steps=40), folder=folder, device='cpu',
                     path=tmp_path/'r.json')
    assert run.status=='diverged' and 0<=run.accuracy<50 and 'diverged' in repr(run)
    assert 'NaN' not in (tmp_path/'r.json').read_text() and RecipeRun.load(tmp_path/'r.json').status=='diverged'

class Interrupt(Callback):
    "A kill after the first epoch"
    order = 2000
    def after_epoch(self): raise KeyboardInterrupt

def test_an_interrupted_run_goes_on(folder, tiny, tmp_path, monkeypatch):
    "To the bit, with the curve from the start; a run of another seed or recipe does not go on from its file"
    from superconv_fastai import recipes as module
    def run(r, seed=0, **kwargs): return run_recipe(r, seed=seed, folder=folder, device='cpu', **kwargs)
    r,file = small(steps=12),tmp_path/'run.pth'
    whole = run(r)
    def interrupted(*args, **kwargs):
        learn = learner_of(*args, **kwargs)
        learn.add_cb(Interrupt())
        return learn
    with monkeypatch.context() as m:
        m.setattr(module, 'learner_of', interrupted)
        with pytest.raises(KeyboardInterrupt): run(r, resume=file)
    for other,seed in ((r,1), (replace(r, name='other'),0)):
        with pytest.raises(ValueError, match='it is a run of .* and this is one of'): run(other, seed, resume=file)
    assert run(r, resume=file).epochs==whole.epochs and len(whole.epochs)==3
    assert run(r, resume=file).epochs==whole.epochs # nothing is left to train

def test_what_cannot_be_resumed(folder, tiny, tmp_path):
    file = tmp_path/'run.pth'
    for kwargs in (dict(policy='range test', lr_max=1.), dict(policy='constant'),
                   dict(mom_stepsize=4, moms=(.95,.85,.95))):
        with pytest.raises(ValueError, match='resume=.*must be None'):
            run_recipe(small(**kwargs), folder=folder, device='cpu', resume=file)
    with pytest.raises(ValueError, match='resume=.*must be another file'):
        run_recipe(small(), folder=folder, device='cpu', resume=file, path=file)
    assert not file.exists()

# ---- what cannot be done ----

def fails(match, *args, **kwargs):
    with pytest.raises(ValueError, match=match): run_recipe(*args, **kwargs)

def test_errors(folder, tmp_path, monkeypatch):
    fails('fig1a', 'fig1')
    fails('wrn32-100', 'wrn32-10')
    fails('no recipe', None)
    fails('SUPERCONV_DATA|folder', 'fig1a', folder=tmp_path)
    fails('folder that exists', 'lenet-12', scale=.004, folder=folder, path=tmp_path/'no'/'r.json')
    fails('seed', 'lenet-12', scale=.004, folder=folder, seed=-1)
    fails('device', 'lenet-12', scale=.004, folder=folder, device='tpu9')
    if not torch.cuda.is_available(): fails('device', 'lenet-12', scale=.004, folder=folder, device='cuda')
    fails('needs a GPU', 'resnet50-wd3e-6', folder=folder, device='cpu')
    fails('imagenet/train', 'resnet50-wd3e-6', scale=1e-5, folder=folder, device='cpu')
    monkeypatch.delenv('SUPERCONV_DATA', raising=False)
    fails('SUPERCONV_DATA', 'resnet50-wd3e-6', scale=1e-5, device='cpu')

@pytest.mark.parametrize('text', ['', '{}', '[]', 'null', '{"superconv_fastai": "recipe run", "format": 1}',
                                  '{"superconv_fastai": "recipe run", "format": 1, "recipe": {"name": 3}, "full": {}}'])
def test_bad_files(tmp_path, text):
    (tmp_path/'r.json').write_text(text)
    with pytest.raises(ValueError, match='recipe run'): RecipeRun.load(tmp_path/'r.json')

def test_imagenet_folders(tmp_path, monkeypatch):
    "Scaled down: some of the images, at the recipe's size"
    from PIL import Image
    rng = np.random.RandomState(0)
    for split,n in (('train',70),('val',260)):
        for c in ('a','b'):
            (tmp_path/'imagenet'/split/c).mkdir(parents=True)
            for i in range(n):
                Image.fromarray(rng.randint(0, 256, (8,8,3),
                                            dtype=np.uint8)).save(tmp_path/'imagenet'/split/c/f'{i}.png')
    class Pool(nn.Module):
        def __init__(self, n_out):
            super().__init__()
            self.fc = nn.Linear(3, n_out)
        def forward(self, x): return self.fc(x.mean((2,3)))
    monkeypatch.setitem(nets, 'resnet50', Pool)
    learn = learner_of(replace(recipes['resnet50-wd3e-6'], size=8), scale=1e-6, folder=tmp_path, device='cpu')
    assert [len(dl.dataset) for dl in learn.dls.loaders] == [100,500] and len(learn.dls.train)==3
    x,y = learn.dls.one_batch()
    assert x.shape==(32,3,8,8) and set(y.tolist())=={0,1} # of both classes

# ---- the 94 % network ----

@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setitem(nets, 'airbench94', lambda dropout, **kwargs: airbench94(width=.05, **kwargs))

def small94(**kwargs):
    return replace(recipes['cifar94'], **{**dict(n_train=200, n_valid=100, bs=50, steps=8, stepsize=3), **kwargs})

def test_biases_of_batchnorm_are_a_group_with_an_lr_and_a_weight_decay_of_their_own(folder, narrow):
    r = small94()
    learn = learner_of(r, folder=folder, device='cpu')
    fit_recipe(learn, r)
    biases = {id(m.bias) for m in learn.model.modules() if isinstance(m, nn.BatchNorm2d)}
    rest,own = learn.opt.param_lists
    assert {id(p) for p in own}==biases and len(own)==6
    assert {id(p) for p in rest}=={id(p) for p in learn.model.parameters() if p.requires_grad}-biases
    lrs = np.array(learn.recorder.hps_by_group['lr'])
    assert np.allclose(lrs[:,1], 64*lrs[:,0]) and lrs[:,0].max()==pytest.approx(1.5)
    a,b = learn.opt.hypers
    assert a['wd']==pytest.approx(1.33e-3) and b['wd']==pytest.approx(1.33e-3/64)
    assert set(learn.recorder.hps['mom'])=={.85} and learn.opt.opt.param_groups[0]['nesterov']

def test_a_baseline_has_the_lr_of_biases_too(folder, narrow):
    "Multistep, as `ParamScheduler` drives it"
    r = small94(policy='multistep', at=(.5,), gamma=.1)
    learn = learner_of(r, folder=folder, device='cpu')
    seen = []
    class Seen(Callback):
        run_valid = False
        def before_step(self): seen.append([h['lr'] for h in self.opt.hypers])
    learn.add_cb(Seen())
    fit_recipe(learn, r)
    assert seen[0]==pytest.approx([1.5,96.]) and seen[-1]==pytest.approx([.15,9.6])

def test_the_first_layer_whitens_the_training_images_and_stays(folder, narrow):
    r = small94()
    learn = learner_of(r, folder=folder, device='cpu')
    conv,before = learn.model[0],learn.model[0].weight.clone()
    standardize, = [t for t in learn.dls.valid.after_batch.fs if isinstance(t, Standardize)]
    x, = standardize.encodes((learn.dls.train.dataset.tensors[0],))
    out = F.conv2d(x, conv.weight)[:,:12].movedim(1, 3).flatten(0, 2)
    assert torch.allclose(out.T@out/len(out), torch.eye(12), atol=.05)
    fit_recipe(learn, r)
    assert learn.model[0].weight.equal(before)

def test_images_move_by_two_pixels_and_the_target_is_smoothed(folder, narrow):
    learn = learner_of(small94(), folder=folder, device='cpu')
    crop, = [t for t in learn.dls.train.after_batch.fs if isinstance(t, RandomCropMirror)]
    assert crop.pad==2 and learn.loss_func.func.label_smoothing==.2

def test_the_test_averages_mirror_images(folder, narrow):
    "Logits by hand, for one batch of the held-out images"
    learn = learner_of(small94(bs=100), folder=folder, device='cpu')
    preds,_ = learn.get_preds(act=noop)
    x,_ = learn.dls.valid.one_batch()
    with torch.no_grad(): by_hand = (learn.model.eval()(x)+learn.model(x.flip(-1)))/2
    assert torch.allclose(preds, by_hand, atol=1e-4)

@pytest.mark.parametrize('bad', [dict(label_smoothing=1), dict(bias_lr=0), dict(opt='Adam', bias_lr=2.)])
def test_bad_settings_of_the_94_percent_network(bad):
    with pytest.raises(ValueError, match=next(reversed(bad))): small(**bad)

def test_airbench_has_no_dropout(folder):
    with pytest.raises(ValueError, match='dropout'): learner_of(small94(dropout=.1), folder=folder, device='cpu')

def test_a_run_is_shown(folder, tmp_path):
    run = run_recipe(small(policy='constant', lr_max=.01), folder=folder, device='cpu')
    run = replace(run, full=replace(run.full, published=91.2))
    assert run._repr_html_().startswith('<b>own (none, none): lenet on mnist') and '91.20 %' in run._repr_html_()
    ax = run.plot()
    assert list(ax.lines[0].get_xdata())==[4,8,12] and list(ax.lines[0].get_ydata())==[e[-1] for e in run.epochs]
    assert list(ax.lines[1].get_ydata())==[91.2]*2
    assert run.plot(ax) is ax
    plt.close('all')

@pytest.mark.parametrize('width,fast', [(16,True), (4,False)])
def test_layout_on_the_cpu(folder, monkeypatch, width, fast):
    "Channels last is faster; with few channels oneDNN's backward pass of a strided 1x1 convolution ends the process"
    monkeypatch.setitem(nets, 'resnet56', lambda dropout, **kwargs: resnet8(width, **kwargs))
    r = replace(recipes['fig1a'], n_train=100, n_valid=100, bs=50, ghost_bs=25, steps=8, stepsize=4)
    learn = learner_of(r, folder=folder, device='cpu')
    conv = next(m for m in learn.model.modules() if isinstance(m, nn.Conv2d) and m.in_channels>3)
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)==fast
    with learn.no_bar(), learn.no_logging(): fit_recipe(learn, r)
    assert len(learn.recorder.losses)==8
